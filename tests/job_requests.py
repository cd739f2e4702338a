"""A training job as preflight sees it, in plain values: what the tests of single checks begin with."""

from typing import Any

import boto3
from workshop.checks.request import JobRequest


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
