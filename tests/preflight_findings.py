"""What preflight says of a request, or of a model alone, as text."""

from pathlib import Path

import pytest
from job_requests import job_request
from preflight_fixtures import GRPO
from workshop.checks.model_checks import check_model
from workshop.checks.preflight import PreflightError, preflight
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, JobRequest, read_script

MARKS = {OK: "+", NOTE: ".", WARNING: "!", PROBLEM: "x"}


def problems(trainer, channels) -> str:
    with pytest.raises(PreflightError) as refused:
        preflight(trainer, channels)
    return str(refused.value)


def details(checks, name: str, status: str) -> str:
    return "\n".join(check.detail for check in checks if check.name == name and check.status == status)


def request_of(channels: dict[str, Path | str], scripts: Path = GRPO) -> JobRequest:
    """A request for that module's training script, in plain values."""
    return job_request(
        source_dir=scripts,
        channels=[(name, str(path)) for name, path in channels.items()],
        instance_type="ml.m5.xlarge",
        gpus=0,
        script=read_script(scripts, "train.py"),
    )


def findings(channels, scripts=GRPO, **settings) -> str:
    """What preflight says of channel:model, a line for each finding: the mark of its status, its name, the detail."""
    settings = {
        "base_model": "channel:model",
        "max_completion_length": 96,
        "eval_max_new_tokens": 96,
        **settings,
    }
    checks = check_model(request_of(channels, scripts), settings)
    return "\n".join(f"{MARKS[check.status]} {check.name}: {check.detail}" for check in checks)
