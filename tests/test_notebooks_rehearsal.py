"""The notebooks as an attendee in SageMaker Studio runs them: mode = "sagemaker", against the endpoint posing as AWS."""

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import nbformat
import pytest
from aws_policies import RECORD, missing_from_policies, recorded_actions

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK_PYTHON = ROOT / ".venv" / "bin" / "python"
# Jobs that follow on another's output, spot, two hosts, and all that the notebooks share. `make rehearse` runs all five; here
# their requests with every recipe are in test_request_matrix.py, and their jobs in test_notebooks_run.py.
MODULES = ("01_dpo_trl", "03_grpo_trl_fsdp")
TIME_LIMIT = 30 * 60


@pytest.fixture(scope="module")
def rehearsal(tmp_path_factory):
    """The folder that a rehearsal of these notebooks left."""
    output = tmp_path_factory.mktemp("rehearsal")
    python = NOTEBOOK_PYTHON if NOTEBOOK_PYTHON.exists() else sys.executable
    run = subprocess.run(
        [python, ROOT / "scripts" / "rehearse_notebooks.py", *MODULES, "--output", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIME_LIMIT,
    )
    logs = "".join(log.read_text()[-6000:] for log in sorted(output.glob("*.log"))) if run.returncode else ""
    assert run.returncode == 0, f"{run.stdout[-8000:]}\n{logs}"
    return output


pytestmark = [pytest.mark.notebook, pytest.mark.timeout(TIME_LIMIT + 60)]


def test_every_notebook_starts_its_jobs_and_all_of_them_complete(rehearsal):
    jobs = json.loads((rehearsal / "requests.json").read_text())
    assert {job["TrainingJobStatus"] for job in jobs} == {"Completed"}
    started = Counter(job["Environment"]["WORKSHOP_GIT_REVISION"] for job in jobs)
    assert len(started) == 1 and len(jobs) >= 11
    names = [re.sub(r"-\w+-[0-9a-f]{6}-\d{14}$", "", job["TrainingJobName"]) for job in jobs]
    assert {"dpo", "dpo-pairs", "grpo-fsdp", "grpo-spot"} <= set(names)


def test_no_cell_is_skipped_but_those_that_say_why(rehearsal):
    for module in MODULES:
        notebook = nbformat.read(rehearsal / "notebooks" / f"{module}.ipynb", as_version=4)
        for cell in notebook.cells:
            if cell.cell_type == "code" and cell.source.strip():
                assert cell.execution_count is not None
                skipped = [o for o in cell.outputs if "Skipped: " in str(o.get("data", {}).get("text/plain"))]
                assert not skipped or cell.source.startswith("# RUN_IF ")


def test_nothing_of_local_mode_is_in_the_notebooks(rehearsal):
    for module in MODULES:
        notebook = nbformat.read(rehearsal / "notebooks" / f"{module}.ipynb", as_version=4)
        shown = "".join(str(cell.outputs) for cell in notebook.cells if cell.cell_type == "code")
        assert "SageMaker mode: account 123456789012, region us-east-1." in shown
        for word in ("Local mode: AWS calls", "127.0.0.1", "localhost"):
            assert word not in shown, f"{module}: {word}"


def test_the_policies_allow_what_was_called(rehearsal):
    called = recorded_actions(rehearsal / "calls.jsonl")
    assert missing_from_policies(called) == []
    known = recorded_actions(RECORD)
    assert {action: callers - known.get(action, set()) for action, callers in called.items()} == {
        action: set() for action in called
    }
