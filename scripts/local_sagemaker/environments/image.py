"""The environment that stands for a job's training image: the base list plus the job's requirements.txt."""

import json
import os
import sys
import tarfile
from pathlib import Path

from botocore.client import BaseClient

from local_sagemaker.api.training_request import TrainingRequest
from local_sagemaker.environments import BASE_REQUIREMENTS, EnvironmentBuildError
from local_sagemaker.hosts.process import SupervisedProcess
from local_sagemaker.jobs.channels import fetch_channel
from local_sagemaker.jobs.storage import inside

NO_LISTS = (".py", ".pyc", ".json", ".jsonl", ".yaml", ".safetensors")  # of most files of a job's source


def base_requirements() -> Path:
    """The list that stands for the image; LOCAL_SAGEMAKER_BASE_REQUIREMENTS names another."""
    return Path(os.environ.get("LOCAL_SAGEMAKER_BASE_REQUIREMENTS") or BASE_REQUIREMENTS)


def job_requirements(s3: BaseClient, request: TrainingRequest, folder: Path) -> Path | None:
    """The requirements file that the SDK's drivers will install, fetched into `folder`; None if there is none."""
    channels = {channel.name: channel for channel in request.channels}
    if not {"code", "sm_drivers"} <= channels.keys():
        return None
    fetch_channel(s3, channels["sm_drivers"], folder / "sm_drivers", 0, 1, without=(".py", ".pyc"))
    settings = json.loads((folder / "sm_drivers" / "sourcecode.json").read_text())
    name = settings.get("requirements")
    if not name:
        return None
    code = folder / "code"
    # All that may be a list, since the file may include others with -r.
    fetch_channel(s3, channels["code"], code, 0, 1, without=NO_LISTS)
    for archive in code.glob("*.tar.gz"):  # a source_dir given as an archive
        with tarfile.open(archive) as tar:
            tar.extractall(code, filter="data")
    path = inside(code, "requirements.txt" if name == "auto" else name)
    return path if path.is_file() else None


def start_build(requirements: Path | None, result: Path) -> SupervisedProcess:
    """Start building the environment; its progress is the process's output, its outcome the file `result`.

    It is a process of its own so that a stop, or the end of the endpoint, also ends pip.
    """
    arguments = [str(base_requirements()), str(result), *([str(requirements)] if requirements else [])]
    scripts = str(Path(__file__).resolve().parents[2])
    environment = {**os.environ, "PYTHONPATH": scripts, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-m", "local_sagemaker.environments.image_build", *arguments]
    return SupervisedProcess(command, environment=environment, folder=result.parent)


def build_outcome(result: Path) -> Path:
    """The environment's folder after `start_build` has ended. Raises EnvironmentBuildError with the reason."""
    if not result.exists():
        raise EnvironmentBuildError("the build was ended before it was complete")
    outcome = json.loads(result.read_text())
    if "error" in outcome:
        raise EnvironmentBuildError(outcome["error"])
    return Path(outcome["environment"])
