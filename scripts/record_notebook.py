"""Keep the outputs of an executed notebook in the notebook itself, so that its page teaches without being run.

    python scripts/run_notebooks.py 02          # executes a copy under build/notebooks
    python scripts/record_notebook.py 02        # takes that copy's outputs over

What papermill added goes, cells are numbered from 1, and this machine's paths become <workshop> and ~.
"""

import argparse
import json
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[1]


def recorded(notebook: NotebookNode, executed: NotebookNode) -> NotebookNode:
    """The notebook with the outputs of its executed copy.

    Raises ValueError if the copy is of other cells, or a cell of it failed or did not run.
    """
    ran = [cell for cell in executed.cells if "injected-parameters" not in cell.metadata.get("tags", [])]
    if [cell.source for cell in ran] != [cell.source for cell in notebook.cells]:
        raise ValueError("the executed copy is of another version of the notebook; run it again")
    number = 0
    for cell, copy in zip(notebook.cells, ran, strict=True):
        if cell.cell_type != "code":
            continue
        if copy.execution_count is None or any(output.output_type == "error" for output in copy.outputs):
            raise ValueError(f"this cell failed or did not run:\n{cell.source}")
        number += 1
        text = json.dumps(copy.outputs).replace(str(ROOT), "<workshop>").replace(str(Path.home()), "~")
        cell.outputs = [nbformat.from_dict(output) for output in json.loads(text)]
        for output in cell.outputs:
            if html := output.get("data", {}).get(
                "text/html"
            ):  # where it would be a tag, which no browser shows
                output.data["text/html"] = html.replace("<workshop>", "&lt;workshop&gt;")
        cell.execution_count = number
        for output in cell.outputs:
            if output.output_type == "execute_result":
                output.execution_count = number
    return notebook


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("modules", nargs="+", help="folders by their first characters, such as 02")
    for module in parser.parse_args().modules:
        for path in sorted(ROOT.glob(f"{module}*/*.ipynb")):
            executed = ROOT / "build" / "notebooks" / path.name
            if not executed.exists():
                sys.exit(f"{executed} is not there: run scripts/run_notebooks.py {module} first")
            notebook = recorded(nbformat.read(path, as_version=4), nbformat.read(executed, as_version=4))
            nbformat.write(notebook, path)
            print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
