"""Each exercise has a solution that is run on every change, and learners' copies have none of them."""

import ast
import copy
import os
import re
from pathlib import Path

import nbformat
import pytest
import solutions
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from solutions import FOLDED, LEARNER, fold, is_solution, learner_copy, stub

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOKS = sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
by_module = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.parent.name)


def cells(path: Path) -> list[NotebookNode]:
    return nbformat.read(path, as_version=4).cells


def exercises(path: Path) -> dict[int, list[NotebookNode]]:
    """What stands below each exercise's question, up to the next one or the next section."""
    found: dict[int, list[NotebookNode]] = {}
    current: list[NotebookNode] = []
    for cell in cells(path):
        if cell.cell_type == "markdown" and not is_solution(cell):
            if "## " in cell.source and "Exercises" not in cell.source and not cell.source.startswith("**"):
                current = []
            for number in re.findall(r"(?m)^\*\*(\d+)\. ", cell.source):
                current = found[int(number)] = []
        else:
            current.append(cell)
    return found


def all_exercises() -> list:
    return [
        pytest.param(path, number, id=f"{path.parent.name}-{number}")
        for path in NOTEBOOKS
        for number in exercises(path)
    ]


@by_module
def test_exercises_are_numbered_and_each_solution_belongs_to_one(path):
    found = exercises(path)
    assert list(found) == list(range(1, len(found) + 1)) and len(found) >= 3
    solved = [cell.id for below in found.values() for cell in below if is_solution(cell)]
    assert solved == [cell.id for cell in cells(path) if is_solution(cell)]


@pytest.mark.parametrize("path, number", all_exercises())
def test_each_exercise_has_a_solution_that_ran(path, number):
    """The notebooks are run from top to bottom on every change, so what ran in the committed one is run there too."""
    solved = [cell for cell in exercises(path)[number] if is_solution(cell)]
    assert solved
    for cell in solved:
        if cell.cell_type == "code":
            assert cell.execution_count
            assert "Skipped: " not in str(cell.outputs)


@by_module
def test_solutions_are_folded(path):
    """When this fails: python scripts/solutions.py fold."""
    notebook = nbformat.read(path, as_version=4)
    assert notebook.cells == fold(copy.deepcopy(notebook)).cells


def signatures(source: str) -> dict[str, str | None]:
    """The names that a cell makes, functions with their signatures."""
    made: dict[str, str | None] = {}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            made[node.name] = ast.unparse(node.args) + ast.unparse(node.returns or ast.Constant(None))
        elif isinstance(node, ast.Assign):
            made |= {ast.unparse(target): None for target in node.targets}
    return made


@by_module
def test_a_learners_copy_lacks_the_solutions_and_nothing_else(path):
    original = cells(path)
    move, *copied = learner_copy(nbformat.read(path, as_version=4), path.parent.name).cells
    assert move.source.endswith(f"%cd -q ../{path.parent.name}")
    assert len(copied) == len(original)
    for before, after in zip(original, copied, strict=True):
        if not is_solution(before):
            assert after.source.replace(f"](../{path.parent.name}/", "](") == before.source
        elif before.cell_type == "code" and not before.source.startswith("%%"):
            assert signatures(after.source) == signatures(before.source)
            for node in ast.parse(before.source).body:
                for statement in getattr(node, "body", [])[1:]:  # the first is the docstring
                    assert ast.unparse(statement) not in after.source
                if isinstance(node, ast.FunctionDef):
                    _, _, answer = (ast.get_docstring(node) or "").partition("\n\n")
                    assert not answer or answer not in after.source
    assert not any(cell.get("outputs") or cell.get("execution_count") for cell in copied)


@by_module
def test_links_of_a_learners_copy_lead_somewhere(path):
    for cell in learner_copy(nbformat.read(path, as_version=4), path.parent.name).cells:
        if cell.cell_type == "markdown":
            for target in re.findall(r"\]\(([^)#\s]+)", cell.source):
                assert "://" in target or os.path.exists(os.path.normpath(ROOT / LEARNER / target)), target


SOLUTION = '''\
# RUN_IF spread
import math
limit, other = 3, 4


@cached(size=2)
def solve(x: int, *, power: float = 0.5) -> float:
    """What it does.

    More of it.
    """
    # How.
    return math.pow(x, power)


for x in range(limit):
    print(solve(x))
'''


def test_a_stub():
    assert (
        stub(SOLUTION)
        == '''\
# RUN_IF spread
# Your solution here.
import math
(limit, other) = ...


@cached(size=2)
def solve(x: int, *, power: float=0.5) -> float:
    """What it does."""
    raise NotImplementedError('solve is for you to write')'''
    )


@pytest.mark.parametrize(
    "source, expected",
    [
        ("%%writefile scripts/my_rewards.py\ndef best(): ...", "%%writefile scripts/my_rewards.py\n# Your solution here."),
        ("%matplotlib inline\nshow()", "# Your solution here."),
        ("a = b = 1", "# Your solution here.\na = b = ..."),
    ],
)  # fmt: skip
def test_stubs_of_other_code(source, expected):
    assert stub(source) == expected


@pytest.fixture
def checkout(tmp_path, monkeypatch):
    """A small repository with one module; returns its folder."""
    folder = tmp_path / "07_small"
    folder.mkdir()
    (folder / "data.txt").write_text("6")
    nodes = [
        nbformat.v4.new_markdown_cell(
            "[data](data.txt), [up](../README.md), [page](https://a.org), [below](#x)"
        ),
        nbformat.v4.new_code_cell("six = int(open('data.txt').read())\nsix"),
        nbformat.v4.new_code_cell("def half(x):\n    return x / 2", metadata={"tags": ["solution"]}),
        nbformat.v4.new_markdown_cell("It is a half.", metadata={"tags": ["solution"]}),
        nbformat.v4.new_code_cell("half(six)", execution_count=3),
    ]
    nbformat.write(nbformat.v4.new_notebook(cells=nodes), folder / "07_small.ipynb")
    monkeypatch.setattr(solutions, "ROOT", tmp_path)
    return tmp_path


def test_a_copy_runs_up_to_the_exercise_and_on_when_it_is_solved(checkout):
    path = solutions.copy(checkout / "07_small" / "07_small.ipynb")
    notebook = nbformat.read(path, as_version=4)
    assert (
        notebook.cells[1].source
        == "[data](../07_small/data.txt), [up](../07_small/../README.md), [page](https://a.org), [below](#x)"
    )
    assert notebook.cells[4].source == "*Your answer here.*"

    def run() -> NotebookNode:
        return NotebookClient(
            notebook, timeout=60, kernel_name="python3", resources={"metadata": {"path": str(path.parent)}}
        ).execute()

    with pytest.raises(CellExecutionError, match="half is for you to write"):
        run()
    assert notebook.cells[2].outputs[0].data["text/plain"] == "6"
    notebook.cells[3].source = "def half(x):\n    return x / 2"
    assert run().cells[5].outputs[0].data["text/plain"] == "3.0"


def test_the_command_copies_once(checkout, capsys):
    assert solutions.main(["copy", "07"]) == 0
    assert capsys.readouterr().out == "learner/07_small.ipynb\n"
    assert solutions.main(["copy"]) == 1
    assert "with your work in it" in capsys.readouterr().err
    with pytest.raises(SystemExit) as ended:
        solutions.main(["copy", "08"])
    assert ended.value.code == 2 and "no notebook 08; there are 07_small" in capsys.readouterr().err


def test_the_command_folds(checkout):
    path = checkout / "07_small" / "07_small.ipynb"
    before = cells(path)
    assert solutions.main(["fold"]) == 0
    folded = [cell.metadata.get("jupyter") for cell in cells(path)]
    assert folded == [None, None, FOLDED, {"source_hidden": True}, None]
    assert [cell.source for cell in cells(path)] == [cell.source for cell in before]
    assert cells(path)[4].execution_count == 3
