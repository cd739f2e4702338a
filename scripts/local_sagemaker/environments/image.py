"""The environment that stands for a job's training image: the base list plus the job's requirements.txt.

To the base list come MPI for the jobs that the SDK starts with it, and the SDK itself for its remote functions.
"""

import json
import os
import re
import sys
import tarfile
import zipfile
from pathlib import Path

from botocore.client import BaseClient

from local_sagemaker.api.training_request import TrainingRequest
from local_sagemaker.compat.mpi_without_ssh import uses_mpi
from local_sagemaker.environments import BASE_REQUIREMENTS, EnvironmentBuildError, requirement_lines
from local_sagemaker.hosts.process import SupervisedProcess
from local_sagemaker.jobs.channels import fetch_channel
from local_sagemaker.jobs.storage import inside

MPI_REQUIREMENTS = BASE_REQUIREMENTS.with_name("mpi-requirements.txt")
# Channels of the SDK's remote functions (sagemaker.core.remote_function.job): its scripts, and what the user gives along.
REMOTE_SCRIPTS, REMOTE_WORKSPACE = "sagemaker_remote_function_bootstrap", "sm_rf_user_ws"
NO_LISTS = (".py", ".pyc", ".json", ".jsonl", ".yaml", ".safetensors")  # of most files of a job's source


def base_requirements() -> Path:
    """The list that stands for the image; LOCAL_SAGEMAKER_BASE_REQUIREMENTS names another."""
    return Path(os.environ.get("LOCAL_SAGEMAKER_BASE_REQUIREMENTS") or BASE_REQUIREMENTS)


def job_requirements(s3: BaseClient, request: TrainingRequest, folder: Path) -> tuple[Path, Path | None]:
    """The list that stands for the job's image, and the requirements file that the job installs (None if it has none).

    What is needed for them is fetched into `folder`.
    """
    channels = {channel.name: channel for channel in request.channels}
    base = base_requirements()
    if REMOTE_SCRIPTS in channels:
        return _remote_function_requirements(s3, request, folder)
    if not {"code", "sm_drivers"} <= channels.keys():
        return base, None
    drivers = folder / "sm_drivers"
    fetch_channel(s3, channels["sm_drivers"], drivers, 0, 1, without=(".py", ".pyc"))
    if uses_mpi(drivers):
        base = _with(base, requirement_lines(MPI_REQUIREMENTS), folder)
    settings = json.loads((drivers / "sourcecode.json").read_text())
    name = settings.get("requirements")
    if not name:
        return base, None
    code = folder / "code"
    # All that may be a list, since the file may include others with -r.
    fetch_channel(s3, channels["code"], code, 0, 1, without=NO_LISTS)
    for archive in code.glob("*.tar.gz"):  # a source_dir given as an archive
        with tarfile.open(archive) as tar:
            tar.extractall(code, filter="data")
    path = inside(code, "requirements.txt" if name == "auto" else name)
    return base, path if path.is_file() else None


def _remote_function_requirements(
    s3: BaseClient, request: TrainingRequest, folder: Path
) -> tuple[Path, Path | None]:
    """The SDK of the caller's version, which unpacks and calls the function, and the caller's `dependencies`."""
    arguments = request.command
    named = dict(zip(arguments, arguments[1:], strict=False))
    version = named.get("--client_sagemaker_pysdk_version", "")
    sdk = f"sagemaker=={version}" if re.fullmatch(r"[\w.+]+", version) else "sagemaker"
    base = _with(base_requirements(), [sdk], folder)
    name = json.loads(named.get("--dependency_settings", "{}")).get("dependency_file")
    workspace = next((channel for channel in request.channels if channel.name == REMOTE_WORKSPACE), None)
    if not name or workspace is None:
        return base, None
    fetch_channel(s3, workspace, folder, 0, 1)
    with zipfile.ZipFile(folder / "workspace.zip") as archive:
        archive.extractall(folder / "workspace")  # it leaves out .. and absolute names
    found = sorted((folder / "workspace").rglob(Path(name).name))
    return base, found[0] if found and name.endswith(".txt") else None


def _with(base: Path, lines: list[str], folder: Path) -> Path:
    """A list in `folder` of what `base` names, and of `lines`."""
    path = folder / "image.txt"
    path.write_text("\n".join([*requirement_lines(base), *lines]) + "\n")
    return path


def start_build(base: Path, requirements: Path | None, result: Path) -> SupervisedProcess:
    """Start building the environment; its progress is the process's output, its outcome the file `result`.

    `base` and `requirements` are those of `job_requirements`.

    It is a process of its own so that a stop, or the end of the endpoint, also ends pip.
    """
    arguments = [str(base), str(result), *([str(requirements)] if requirements else [])]
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
