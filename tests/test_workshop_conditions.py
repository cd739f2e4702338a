"""Cells that a notebook skips itself: # RUN_IF, in a real kernel."""

import nbformat
import pytest
from nbclient import NotebookClient
from workshop.session.conditions import Condition, ConditionError, Skipped, applied, only_if

CELL = ["# RUN_IF tools\n", "x = 1\n", "x\n"]


def test_a_cell_runs_as_it_stands_where_its_condition_holds():
    assert applied(CELL, {"tools": Condition(True, "no tools")}) == CELL


def test_a_cell_shows_the_reason_where_it_does_not():
    names: dict = {}
    exec("".join(applied(CELL, {"tools": only_if(False, "no tools on 'GPUs'")})[:1]), names)
    shown = eval(applied(CELL, {"tools": only_if(False, "no tools on 'GPUs'")})[1], names)
    assert shown == Skipped("no tools on 'GPUs'") and str(shown) == "Skipped: no tools on 'GPUs'"


def test_other_cells_are_left_alone():
    assert applied(["# a comment\n", "x = 1\n"], {}) == ["# a comment\n", "x = 1\n"]
    assert applied([], {}) == []


@pytest.mark.parametrize("first", ["# RUN_IF\n", "# RUN_IF tols\n", "# RUN_IF x y\n", "# RUN_IF number\n"])
def test_what_names_no_condition_is_refused(first):
    with pytest.raises(ConditionError, match="only_if"):
        applied([first, "x = 1\n"], {"tools": only_if(True, ""), "number": 3})


def test_in_a_kernel():
    cells = [
        "import sys; sys.path.insert(0, 'scripts')\nfrom workshop import only_if\nx = 0",
        "yes, no = only_if(1 > 0, 'never'), only_if(0 > 1, '<two> hosts')\n[yes, no]",
        "# RUN_IF yes\nx += 1\nx",
        "# RUN_IF no\nx += 10\nx",
        "x",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    shown = [cell.outputs[0].data for cell in notebook.cells[1:]]
    assert shown[0]["text/plain"] == "[applies, does not apply: <two> hosts]"
    assert shown[1]["text/plain"] == "1"
    assert shown[2]["text/plain"] == "Skipped: <two> hosts"
    assert "&lt;two&gt; hosts" in shown[2]["text/html"]
    assert shown[3]["text/plain"] == "1"
