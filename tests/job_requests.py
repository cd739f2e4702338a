"""A training job as preflight sees it, in plain values: what the tests of single checks begin with."""

from pathlib import Path
from typing import Any

import boto3
from workshop.checks.instances import gpu_count
from workshop.checks.request import JobRequest, read_script

ROOT = Path(__file__).resolve().parents[1]


def job_request(**changes: Any) -> JobRequest:
    """A request of local mode for train.py on one host, without source, channels and script, but for the changes."""
    plain = {
        "local": True,
        "region": "us-east-1",
        "source_dir": None,
        "entry_script": "train.py",
        "command": None,
        "requirements": "requirements.txt",
        "hyperparameters": {},
        "environment": {},
        "launcher": {},
        "channels": [],
        "instance_type": None,
        "hosts": 1,
        "gpus": None,
        "max_runtime_s": 3600,
        "max_wait_s": None,
        "spot": False,
        "checkpoints": False,
        "script": None,
    }
    session = changes.pop("boto_session", None) or boto3.Session(region_name="us-east-1")
    return JobRequest(boto_session=session, **(plain | changes))


def module_request(
    module: str, instance_type: str, entry_script: str = "train.py", **changes: Any
) -> JobRequest:
    """A request of AWS for a script of the module ("02") on the instance type."""
    folder = next(ROOT.glob(f"{module}_*")) / "scripts"
    plain = {
        "local": False,
        "source_dir": folder,
        "entry_script": entry_script,
        "script": read_script(folder, entry_script),
        "instance_type": instance_type,
        "gpus": gpu_count(instance_type, "us-east-1"),
    }
    return job_request(**(plain | changes))
