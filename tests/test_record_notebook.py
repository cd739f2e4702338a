"""Outputs of an executed copy go into the notebook, and nothing of this machine or of papermill with them."""

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from record_notebook import ROOT, recorded


def executed_copy(source: str = "print(x)") -> nbformat.NotebookNode:
    """What papermill leaves: an injected cell, its own metadata, odd numbers, a path of this machine."""
    text = new_output("stream", name="stdout", text=f"{ROOT}/build\n")
    data = {"text/plain": "1", "text/html": f"<p>{ROOT}/build</p>"}
    result = new_output("execute_result", data=data, execution_count=7)
    injected = new_code_cell("x = 2", execution_count=4, metadata={"tags": ["injected-parameters"]})
    ran = new_code_cell(
        source, execution_count=7, outputs=[text, result], metadata={"papermill": {"duration": 1}}
    )
    return new_notebook(cells=[new_code_cell("x = 1", execution_count=3), injected, ran])


def test_outputs_are_taken_over_without_traces():
    notebook = new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("print(x)")])
    cells = recorded(notebook, executed_copy()).cells
    assert [cell.source for cell in cells] == ["x = 1", "print(x)"]
    assert [cell.execution_count for cell in cells] == [1, 2]
    assert cells[1].outputs[0].text == "<workshop>/build\n"
    assert cells[1].outputs[1].execution_count == 2
    assert cells[1].outputs[1].data["text/html"] == "<p>&lt;workshop&gt;/build</p>"
    assert "papermill" not in cells[1].metadata


def test_copy_of_another_version_is_refused():
    notebook = new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("print(x + 1)")])
    with pytest.raises(ValueError, match="another version"):
        recorded(notebook, executed_copy())


def test_failed_cell_is_refused():
    copy = executed_copy()
    copy.cells[2].outputs = [new_output("error", ename="NameError", evalue="x", traceback=[])]
    with pytest.raises(ValueError, match="failed or did not run"):
        recorded(new_notebook(cells=[new_code_cell("x = 1"), new_code_cell("print(x)")]), copy)
