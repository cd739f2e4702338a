"""Preflight of what SageMaker hands to the job: hyperparameters, environment, channels, source and requirements."""

import json
import re
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from local_sagemaker.environments import EnvironmentBuildError, check_job_requirements, requirement_lines

from workshop.checks.request import OK, PROBLEM, WARNING, Check, JobRequest
from workshop.s3 import split_uri
from workshop.secrets import secret_files, secret_in

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
_RESERVED_CHANNELS = {"code", "sm_drivers"}
MAX_HYPERPARAMETER_LENGTH = 2500  # characters, a limit of CreateTrainingJob


def check_hyperparameters(request: JobRequest, numeric_keys: set[str]) -> Iterator[Check]:
    """Hyperparameters that reach the script unchanged: the SDK's drivers pass them through JSON and a shell file.

    `numeric_keys` are settings that are numbers, where 1e-5 and 0.00001 are the same thing.
    """
    wrong = 0
    for key, value in request.hyperparameters.items():
        problem = _hyperparameter_problem(key, value, key in numeric_keys)
        if problem:
            wrong += 1
            yield Check("hyperparameters", PROBLEM, problem)
    if request.command:
        yield Check(
            "hyperparameters",
            PROBLEM,
            "SourceCode(command=...) drops hyperparameters from the command line (sagemaker-python-sdk#5226): use "
            "entry_script, and distributed= for a launcher",
        )
    elif not wrong:
        yield Check("hyperparameters", OK, ", ".join(request.hyperparameters) or "none")


def _hyperparameter_problem(key: str, value: Any, numeric: bool) -> str | None:
    if not _NAME.match(key):
        return f"the name {key!r} cannot be an environment variable (SM_HP_...): use letters, digits and _"
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except TypeError:
        return (
            f"{key!r} is a {type(value).__name__}, which JSON cannot hold: pass a number, text, list or dict"
        )
    if "'" in text:
        return f"{key!r} holds a ' : the SDK's start script breaks on it (unexpected EOF). Put the text in the recipe"
    if re.match(r"--[A-Za-z]", text):
        return f"{key!r} is {text[:40]!r}, which a command line takes for a setting of its own: put it in the recipe"
    if "\0" in text:
        return f"{key!r} holds a NUL character, which no command line can carry"
    if "\n" in text:
        return f"{key!r} holds a line break, which CreateTrainingJob refuses: put it in the recipe"
    if len(text) > MAX_HYPERPARAMETER_LENGTH:
        return f"{key!r} has {len(text)} characters, the limit is {MAX_HYPERPARAMETER_LENGTH}: put it in the recipe"
    if isinstance(value, str) and not numeric:
        arrives = _through_the_drivers(value)
        if arrives != value:
            return f"{key!r} is the text {value!r} but would arrive as {arrives!r}: put it in the recipe"
    return None


def _through_the_drivers(text: str) -> str:
    """What container_drivers/common/utils.py makes of a text: json.loads where possible, then json.dumps."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    # Lists and mappings are read as JSON again by the script, so that spacing does not matter.
    return text if isinstance(value, list | dict) else value if isinstance(value, str) else json.dumps(value)


def check_secrets(request: JobRequest) -> Iterator[Check]:
    """No secret is in the request, which everyone who may describe the job can read, nor among its source."""
    for place, values in (("environment", request.environment), ("hyperparameters", request.hyperparameters)):
        for key, value in values.items():
            if kind := secret_in(key, value):
                yield Check(
                    "secrets",
                    PROBLEM,
                    f"{key} in {place} ({kind}) would be readable by everyone who can describe the job: store it in "
                    "Secrets Manager and pass the secret's name (WANDB_SECRET_NAME)",
                )
    if source := request.source_dir:
        for path, why in secret_files(source):
            yield Check("secrets", PROBLEM, f"{path.relative_to(source)} in the source: {why}; move it out")


def check_channels(request: JobRequest) -> Iterator[Check]:
    """Channel names that work as folder and as environment variable, and addresses that mean one thing alone."""
    for name, source in request.channels:
        if name in _RESERVED_CHANNELS:
            yield Check("channels", PROBLEM, f"the channel name {name!r} is taken by the SDK: choose another")
        elif not _NAME.match(name or ""):
            yield Check(
                "channels",
                PROBLEM,
                f"the channel name {name!r} breaks SM_CHANNEL_...: use letters, digits and _",
            )
        if other := _also_means(request, source):
            yield Check(
                "channels",
                PROBLEM if request.local else WARNING,  # the local endpoint refuses it
                f"the address of {name!r} is the beginning of {other} too, and a job gets all that begins with it: "
                "write a folder's address with a / at its end, or give one of the two another name",
            )


def _also_means(request: JobRequest, source: Any) -> str | None:
    """What begins with a channel's address in S3 besides the folder or the object of that name; None if nothing is known to."""
    address = getattr(source, "s3_uri", source)
    if not isinstance(address, str) or not address.startswith("s3://") or address.endswith("/"):
        return None
    bucket, prefix = split_uri(address)
    if not prefix or getattr(source, "s3_data_type", None) == "ManifestFile":
        return None
    try:
        s3 = request.boto_session.client("s3")
        found = s3.list_objects_v2(Bucket=bucket, Prefix=prefix, Delimiter="/")
    except (ClientError, BotoCoreError):  # said by those who look at what is in the channel
        return None
    folders = [entry["Prefix"] for entry in found.get("CommonPrefixes", [])]
    names = [*folders, *(entry["Key"] for entry in found.get("Contents", []))]
    meant = next((name for name in (f"{prefix}/", prefix) if name in names), None)
    return next((f"s3://{bucket}/{name}" for name in names if meant and name != meant), None)


def check_source(request: JobRequest) -> Iterator[Check]:
    """Files that launcher and image need from the source."""
    if request.source_dir is None:
        return
    config_file = request.launcher.get("config_file")
    if config_file and not (request.source_dir / config_file).is_file():
        there = sorted(
            str(path.relative_to(request.source_dir)) for path in request.source_dir.glob("accelerate/*.yaml")
        )
        yield Check(
            "launcher",
            PROBLEM,
            f"there is no {config_file} in the source (there: {', '.join(there) or 'none'})",
        )
    if not request.requirements:
        return
    requirements = request.source_dir / request.requirements
    if not requirements.is_file():
        yield Check("requirements", PROBLEM, f"there is no {request.requirements} in the source")
        return
    try:
        check_job_requirements(requirements)
    except EnvironmentBuildError as error:
        yield Check("requirements", PROBLEM, str(error).replace(f"{request.source_dir}/", ""))
        return
    yield Check("requirements", OK, request.requirements)


def check_packages(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """What the settings ask for is installed by the job's requirements; without such a file the image may bring it."""
    if not request.requirements or request.source_dir is None:
        return
    installed = installed_packages(request)
    wanted = {
        "vllm": ("use_vllm: true", settings.get("use_vllm") is True),
        "bitsandbytes": ("quantization: nf4", settings.get("quantization") == "nf4"),
        "liger-kernel": ("use_liger_kernel: true", settings.get("use_liger_kernel") is True),
        "deepspeed": ("deepspeed", bool(settings.get("deepspeed"))),
    }
    for package, (setting, asked) in wanted.items():
        if asked and installed and package not in installed:
            files = sorted(path.name for path in request.source_dir.glob("requirements*.txt"))
            yield Check(
                "requirements",
                PROBLEM,
                f"{setting} needs {package}, which {request.requirements} does not install: choose another of "
                f"{', '.join(files)}, or add it",
            )


def installed_packages(request: JobRequest) -> set[str]:
    """Names of the packages that the job installs; none where a file is missing, which check_source reports."""
    if request.source_dir is None or not request.requirements:
        return set()
    path = request.source_dir / request.requirements
    try:
        lines = requirement_lines(path) if path.is_file() else []
    except EnvironmentBuildError:
        return set()  # check_source reports it
    return {re.split(r"[^A-Za-z0-9._-]", line)[0].lower() for line in lines}
