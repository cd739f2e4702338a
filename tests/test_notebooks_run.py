"""The workshop's notebooks, run from top to bottom in local mode, and what their training must achieve.

They run in the notebook side's own environment (.venv, made by `make setup`) where it exists, so that a library
which only the tests install is not missed.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK_PYTHON = ROOT / ".venv" / "bin" / "python"
NOTEBOOKS = sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
TIME_LIMIT = 45 * 60

# module -> base greedy pass@1 below, trained at least
THRESHOLDS = {
    "01_dpo_trl": (0.40, 0.85),
    "02_grpo_trl_accelerate": (0.70, 0.90),
    "03_grpo_trl_fsdp": (0.70, 0.90),
    "04_grpo_unsloth": (0.70, 0.85),
    "05_grpo_verl": (0.70, 0.90),
}
# Jobs beside the main one, whose results are in the notebooks as recorded, only show here that they run.
SHORTER = {
    "02_grpo_trl_accelerate": {"short_steps": 6, "letter_steps": 1},
    "03_grpo_trl_fsdp": {"sick_steps": 6},
    "04_grpo_unsloth": {"short_steps": 6},
    "05_grpo_verl": {
        "loss_steps": 2,
        "parallel_steps": 6,
    },  # 5 of the latter are warm-up, which Megatron wants less than all
}
CUT_SHORT = {"tiny_tensor", "tiny_pipeline", "tiny_ulysses"}  # recipes of 05 whose jobs are among them


@pytest.mark.notebook
@pytest.mark.timeout(TIME_LIMIT + 60)
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.parent.name)
def test_notebook_runs_and_its_model_learns(notebook):
    results = ROOT / "build" / "results.json"
    before = len(json.loads(results.read_text())) if results.exists() else 0
    python = NOTEBOOK_PYTHON if NOTEBOOK_PYTHON.exists() else sys.executable
    changes = [f"-p{name}={value}" for name, value in SHORTER.get(notebook.parent.name, {}).items()]
    run = subprocess.run(
        [python, ROOT / "scripts" / "run_notebooks.py", notebook, *changes],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=TIME_LIMIT,
    )
    assert run.returncode == 0, run.stdout[-20_000:]

    records = [
        record
        for record in json.loads(results.read_text())[before:]
        if record["module"] == notebook.parent.name
    ]
    assert records, "the notebook appended no record to build/results.json"
    base, trained = records[0]["base"], records[0]["trained"]
    base_below, trained_from = THRESHOLDS[notebook.parent.name]
    assert base["decoding"] == trained["decoding"] == "greedy" and base["n"] == trained["n"] == 300
    assert base["value"] < base_below
    assert trained["value"] >= trained_from
    for record in records:  # 05 has one for the model with a tool, too
        if record["recipe"] in CUT_SHORT:
            continue
        # Intervals that touch need not mean that nothing was learned; here they are far apart.
        for before, after in (("base", "trained"), ("base_sampled", "trained_sampled")):
            assert record[before]["high"] < record[after]["low"], f"{before} and {after} touch"
    lengths = records[0]["completion_length"]
    assert lengths["trained"] > lengths["base"] + 5, "it did not learn to think"
