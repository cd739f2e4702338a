"""What `make check` leaves out has its marker: a test without one can start neither an endpoint nor a job."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from endpoint_fixtures import start_endpoint
from forked_jobs import Command, Preload, fork_job
from job_variables import SHARED


def test_an_unmarked_test_starts_no_endpoint(tmp_path):
    with pytest.raises(RuntimeError, match="it has no marker endpoint"):
        start_endpoint(tmp_path / "home")


def test_a_process_of_an_unmarked_test_starts_none_either():
    code = "from local_sagemaker import client; client.ensure_endpoint()"
    environment = {**os.environ, "PYTHONPATH": str(SHARED)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 1 and "this test needs the marker endpoint" in done.stderr


def test_an_unmarked_test_starts_no_torchrun():
    with pytest.raises(RuntimeError, match="it has no marker job"):
        subprocess.run([sys.executable, "-m", "torch.distributed.run", "--help"])


@pytest.mark.job
def test_a_marked_one_does():
    subprocess.run([sys.executable, "-m", "torch.distributed.run", "--help"], check=True, capture_output=True)


def test_an_unmarked_test_forks_no_job(tmp_path):
    command = Command(tmp_path / "script.py", [], {}, tmp_path, tmp_path / "log")
    with pytest.raises(RuntimeError, match="it has no marker job"):
        fork_job(Preload(Path(sys.executable), ()), command)
