"""Solve the exercises yourself: copies of the notebooks without their solutions, and solutions that are folded away.

    python scripts/solutions.py copy 02      # learner/02_grpo_trl_accelerate.ipynb: open that one and work in it
    python scripts/solutions.py fold         # for who writes a notebook: folds the solutions of those in this repository

A solution is a cell tagged `solution`. A copy has a stub in its place, with the names, signatures and purposes that the
cells below it use, and no outputs. It runs in the module's folder, and its links lead there. In the notebooks themselves
the solutions stay, because they are what is run and checked on every change; JupyterLab shows them as a bar to click on.
"""

import argparse
import ast
import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]
LEARNER = "learner"  # git-ignored, and not in build/, which `make clean` empties
YOURS = "# Your solution here."
RELATIVE_LINK = re.compile(r"(\]\()(?![\w+.-]+:|[#/])")
FOLDED = {"source_hidden": True, "outputs_hidden": True}


def is_solution(cell: NotebookNode) -> bool:
    """Whether the cell is tagged `solution`."""
    return "solution" in cell.metadata.get("tags", [])


def stub(source: str) -> str:
    """A solution's code without what solves it.

    Imports stay, functions keep decorators, signature and the first line of their docstring and raise NotImplementedError, variables become `...`,
    and all else goes. Of a cell magic (%%writefile) its line stays.
    """
    if source.startswith("%%"):
        return f"{source.splitlines()[0]}\n{YOURS}"
    python = "\n".join("" if line.startswith(("%", "!")) else line for line in source.splitlines())
    kept = [text for node in ast.parse(python).body if (text := _without_body(node))]
    condition = [line for line in source.splitlines()[:1] if line.startswith("# RUN_IF")]
    return "\n".join([*condition, YOURS, *kept])


def _without_body(node: ast.stmt) -> str:
    if isinstance(node, ast.Import | ast.ImportFrom):
        return ast.unparse(node)
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        documented = (
            [ast.Expr(ast.Constant(text.splitlines()[0]))] if text else []
        )  # the rest may be the answer
        node.body = [
            *documented,
            *ast.parse(f"raise NotImplementedError('{node.name} is for you to write')").body,
        ]
        return f"\n\n{ast.unparse(node)}"
    if isinstance(node, ast.Assign):
        return f"{' = '.join(ast.unparse(target) for target in node.targets)} = ..."
    return ""


def learner_copy(notebook: NotebookNode, module: str) -> NotebookNode:
    """The notebook of the folder `module`, for a folder beside it: stubs for solutions, no outputs; changed in place."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            cell.source = RELATIVE_LINK.sub(rf"\1../{module}/", cell.source)
        if is_solution(cell):
            cell.source = stub(cell.source) if cell.cell_type == "code" else "*Your answer here.*"
            cell.metadata.pop("jupyter", None)
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    move = nbformat.v4.new_code_cell(
        f"# The lesson's folder, from which all paths below are.\n%cd -q ../{module}"
    )
    notebook.cells.insert(0, move)
    return notebook


def fold(notebook: NotebookNode) -> NotebookNode:
    """The notebook with its solutions, and what they print, folded away in JupyterLab; changed in place."""
    for cell in filter(is_solution, notebook.cells):
        cell.metadata["jupyter"] = dict(FOLDED) if cell.cell_type == "code" else {"source_hidden": True}
    return notebook


def copy(path: Path) -> Path:
    """Write the learner's copy of the notebook at `path` into the folder LEARNER; return where it is.

    Raises FileExistsError if there is one already.
    """
    target = ROOT / LEARNER / path.name
    if target.exists():
        raise FileExistsError(
            f"{target} is there already, with your work in it. Rename it if you want to start anew."
        )
    target.parent.mkdir(exist_ok=True)
    nbformat.write(learner_copy(nbformat.read(path, as_version=4), path.parent.name), target)
    return target


def main(arguments: list[str] | None = None) -> int:
    """Exit code: 0, 1 if a copy is there already, 2 for a wrong command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("action", choices=["copy", "fold"])
    parser.add_argument(
        "modules", nargs="*", help="folders by their first characters, such as 02; default: all"
    )
    options = parser.parse_args(arguments)
    notebooks = sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
    wanted = tuple(options.modules) or ("",)
    if not (chosen := [path for path in notebooks if path.parent.name.startswith(wanted)]):
        parser.error(
            f"no notebook {', '.join(wanted)}; there are {', '.join(path.stem for path in notebooks)}"
        )
    there_already = False
    for path in chosen:
        if options.action == "fold":
            nbformat.write(fold(nbformat.read(path, as_version=4)), path)
            continue
        try:
            print(copy(path).relative_to(ROOT))
        except FileExistsError as error:
            print(error, file=sys.stderr)
            there_already = True
    return int(there_already)


if __name__ == "__main__":
    sys.exit(main())
