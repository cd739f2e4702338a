"""An MLflow server is killed in mid run of 02's script: the run goes on to its good end, and says what the server lacks."""

import re
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

import pytest
from harness import ROOT, ScriptJob, kill
from rl.tasks import make_splits, write_splits
from tracker_servers import kill_group, mlflow_server

STEPS = 12


def tracked_steps(store: Path) -> int:
    """The last step whose reward the server has stored."""
    with (
        suppress(sqlite3.OperationalError),
        closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as db,
    ):
        return db.execute("SELECT max(step) FROM metrics WHERE key LIKE '%reward'").fetchone()[0] or 0
    return 0  # the tables are yet to come


@pytest.mark.job
@pytest.mark.timeout(500)
def test_a_run_goes_on_when_its_server_is_killed_and_says_what_it_lacks(tmp_path):
    data = write_splits(make_splits("chain_sum", {"train": 64, "test": 2}), tmp_path / "data-set")
    settings = {
        "max_steps": STEPS,
        "per_device_train_batch_size": 8,
        "num_generations": 4,
        "max_completion_length": 64,
        "eval_problems": 2,
        "eval_samples": 1,
        "eval_max_new_tokens": 4,
        "save_strategy": "no",
        "report_to": ["mlflow"],
    }
    job = ScriptJob(
        ROOT / "02_grpo_trl_accelerate" / "scripts" / "train.py", tmp_path / "job", data, settings
    )
    with mlflow_server(tmp_path) as (url, server):
        variables = {"MLFLOW_TRACKING_URI": url, "JOB_TRACKING_SECONDS": "10"}
        process = job.start(environment=variables)
        try:
            deadline = time.monotonic() + 300
            while tracked_steps(tmp_path / "server.db") < 2:
                assert process.poll() is None and time.monotonic() < deadline, job.log[-3000:]
                time.sleep(0.05)
            kill_group(server)
            at_the_end, ended = max(job.steps(), default=0), time.monotonic()
        except BaseException:
            kill(process)
            raise
        job.end(process)
    assert at_the_end < STEPS, "the run was over before the servers ended"
    assert job.steps() == list(range(1, STEPS + 1)) and job.weights()
    # Each is waited for 10 s; MLflow's client first gives up on what it is asked in that time.
    assert time.monotonic() - ended < 120
    lacks = job.output_json("summary.json")["not_tracked"]
    assert set(lacks) == {"mlflow"}, job.log[-3000:]
    assert 2 <= lacks["mlflow"]["from_step"] <= STEPS and "kept_in" not in lacks["mlflow"], lacks
    # Refused, or broken off where the server was in the middle of an answer.
    reason = lacks["mlflow"]["reason"]
    assert f"API request to {url}" in reason and "failed with exception" in reason, lacks
    assert re.search("HTTPConnection|Connection broken", reason), lacks
    assert job.log.count("[warning] mlflow: what happens from step ") == 1
