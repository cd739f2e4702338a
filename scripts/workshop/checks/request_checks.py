"""Preflight of what SageMaker gets: hyperparameters, environment, channels, machines, spot, cost and quota."""

import json
import re
from collections.abc import Iterator
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from local_sagemaker.environments import EnvironmentBuildError, check_job_requirements, requirement_lines

from workshop.checks.instances import hourly_price, price_source, training_instance_types
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*$")
_SECRET = re.compile(r"SECRET|PASSWORD|TOKEN$|API_?KEY|ACCESS_KEY", re.IGNORECASE)
_NO_SECRET = re.compile(r"(_NAME|_ARN)$|^(pad|eos|bos)_token$", re.IGNORECASE)
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
    if "\0" in text:
        return f"{key!r} holds a NUL character, which no command line can carry"
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
    """No secret is in the request, which everyone who may describe the job can read."""
    for place, values in (("environment", request.environment), ("hyperparameters", request.hyperparameters)):
        for key in values:
            if _SECRET.search(key) and not _NO_SECRET.search(key):
                yield Check(
                    "secrets",
                    PROBLEM,
                    f"{key} in {place} would be readable by everyone who can describe the job: store it in Secrets "
                    "Manager and pass the secret's name (WANDB_SECRET_NAME)",
                )


def check_channels(request: JobRequest) -> Iterator[Check]:
    """Channel names that work as folder and as environment variable."""
    for name, _ in request.channels:
        if name in _RESERVED_CHANNELS:
            yield Check("channels", PROBLEM, f"the channel name {name!r} is taken by the SDK: choose another")
        elif not _NAME.match(name or ""):
            yield Check(
                "channels",
                PROBLEM,
                f"the channel name {name!r} breaks SM_CHANNEL_...: use letters, digits and _",
            )


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


def check_machines(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """The instance type exists, and processes and recipe fit its devices."""
    if request.instance_type is None:
        yield Check("machines", NOTE, "no single instance type, so GPUs, quota and cost are not checked")
        return
    types = training_instance_types()
    if request.instance_type not in types:
        family = request.instance_type.rpartition(".")[0]
        near = sorted(known for known in types if family and known.startswith(family + "."))
        hint = f"of this family there are {', '.join(near)}" if near else "names look like ml.g5.2xlarge"
        yield Check(
            "machines", PROBLEM, f"there is no training instance type {request.instance_type!r}: {hint}"
        )
        return
    hosts = f"{request.hosts} x {request.instance_type}"
    if request.local:
        processes = request.hosts * request.processes_per_host
        yield Check(
            "machines",
            OK,
            f"{hosts} on AWS; here {processes} process{'es' if processes > 1 else ''} on this machine",
        )
        if settings.get("use_vllm") is True or (
            settings.get("bf16") is True and settings.get("use_cpu") is not True
        ):
            yield Check(
                "machines",
                PROBLEM,
                "the recipe is made for a GPU, and jobs of local mode have none: add use_cpu=True, bf16=False, "
                "use_vllm=False and few max_steps, or use the tiny recipe",
            )
        return
    gpus = "unknown to the SDK" if request.gpus is None else request.gpus
    yield Check("machines", OK, f"{hosts}, GPUs each: {gpus}, processes each: {request.processes_per_host}")
    if request.gpus and request.processes_per_host > request.gpus:
        yield Check(
            "machines",
            PROBLEM,
            f"{request.processes_per_host} processes a host, but {request.instance_type} has {request.gpus} GPUs: set "
            f"process_count_per_node={request.gpus}",
        )
    if request.gpus and request.processes_per_host < request.gpus:
        yield Check(
            "machines",
            WARNING,
            f"{request.instance_type} has {request.gpus} GPUs, of which {request.processes_per_host} would be used: a "
            "smaller one of its family costs less and does as much, or start a process for each GPU",
        )
    if request.gpus and settings.get("use_cpu") is True:
        yield Check(
            "machines", WARNING, "the recipe says use_cpu: true, so the GPUs that you pay for stay idle"
        )
    if request.gpus == 0 and settings.get("use_vllm") is True:
        yield Check("machines", PROBLEM, f"use_vllm needs a GPU, and {request.instance_type} has none")


def check_spot(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """An interrupted spot job starts again from its checkpoint; without one it may never finish."""
    if not request.spot:
        return
    if not request.checkpoints:
        yield Check(
            "spot",
            PROBLEM,
            "spot without checkpoints starts from step 0 after each interruption: add "
            "checkpoint_config=CheckpointConfig(s3_uri=...)",
        )
    if settings.get("save_strategy") == "no":
        yield Check("spot", PROBLEM, 'the recipe says save_strategy: "no", so no checkpoint is ever written')
    if request.max_wait_s is None:
        yield Check("spot", PROBLEM, "spot needs StoppingCondition(max_wait_time_in_seconds=...)")
    elif request.max_wait_s < request.max_runtime_s:
        yield Check(
            "spot",
            PROBLEM,
            f"max_wait_time_in_seconds ({request.max_wait_s}) must be at least max_runtime_in_seconds "
            f"({request.max_runtime_s})",
        )
    elif request.checkpoints:
        yield Check("spot", OK, f"with checkpoints, waiting at most {duration(request.max_wait_s)}")


def check_cost(request: JobRequest) -> Check:
    """The most that the job can cost: price x hosts x maximal run time."""
    limit = f"stops after {duration(request.max_runtime_s)} at the latest"
    if request.local:
        return Check("cost", OK, f"runs on this machine: no cost; {limit}")
    price = hourly_price(request.instance_type) if request.instance_type else None
    if price is None:
        return Check(
            "cost",
            WARNING,
            f"the price of {request.instance_type} is unknown here; {limit}. "
            "See https://aws.amazon.com/sagemaker/ai/pricing/",
        )
    ceiling = price * request.hosts * request.max_runtime_s / 3600
    spot = ", on demand; spot costs less" if request.spot else ""
    return Check(
        "cost",
        NOTE,
        f"at most ${ceiling:,.2f}: {request.hosts} x ${price:.3f} an hour{spot}, {limit} ({price_source()})",
    )


def check_quota(request: JobRequest) -> Iterator[Check]:
    """The account's quota lets this many instances run, if it may be asked."""
    if request.local or request.instance_type is None:
        return
    usage = "spot training job usage" if request.spot else "training job usage"
    wanted = f"{request.instance_type} for {usage}"
    try:
        pages = request.boto_session.client("service-quotas").get_paginator("list_service_quotas")
        quotas = (quota for page in pages.paginate(ServiceCode="sagemaker") for quota in page["Quotas"])
        value = next((quota["Value"] for quota in quotas if quota["QuotaName"] == wanted), None)
    except (ClientError, BotoCoreError) as error:
        yield Check("quota", WARNING, f"quotas cannot be read ({error}): look up {wanted!r} in the console")
        return
    if value is None:
        yield Check("quota", WARNING, f"Service Quotas lists no {wanted!r}")
    elif value < request.hosts:
        yield Check(
            "quota",
            PROBLEM,
            f"{wanted!r} is {value:.0f}, but the job needs {request.hosts}: ask for more in Service Quotas",
        )
    else:
        yield Check("quota", OK, f"{wanted}: {value:.0f}")


def duration(seconds: int) -> str:
    """90 -> "90 s", 3600 -> "60 min", 86400 -> "24 h"."""
    if seconds < 120:
        return f"{seconds} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"
