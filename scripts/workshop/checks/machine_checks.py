"""Preflight of the machines: instances and what starts the processes on them, disk, spot, time limit and quota."""

import re
from collections.abc import Iterator
from typing import Any
from weakref import WeakKeyDictionary

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from job.ranges import COUNT, Range

from workshop.checks.duration import in_words
from workshop.checks.instances import find_instance, training_instance_types
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest

# CreateTrainingJob, https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ResourceConfig.html and
# API_StoppingCondition.html: a job runs for 28 days at most; a gp2 volume has 16 TiB at most. A warm pool is kept for
# an hour, of no spot instances: https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html ("Maximum warm pool
# duration"; botocore's model lets 21,600 s pass). Without a quota of its own it is not kept, and the job runs all the same:
# train-warm-pools-resource-limits.html, 2026-11.
ASKED = {
    "instance_count": COUNT,
    "volume_size_in_gb": Range(least=1, most=16_384),
    "keep_alive_period_in_seconds": Range(least=0, most=3600),
    "max_runtime_in_seconds": Range(least=1, most=28 * 86_400),
    "process_count_per_node": COUNT,
}
LONGEST_BASE_NAME = 48  # the SDK cuts a job's name at 63 characters, its time stamp (15) included
JOB_MAX_SECONDS = "JOB_MAX_SECONDS"  # the job's own copy of its maximal run time
# SageMaker's quotas by name, as last listed for a session, and so for its account and region: there are thousands.
_QUOTAS: WeakKeyDictionary[boto3.Session, dict[str, float]] = WeakKeyDictionary()


def check_machines(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """The instance type exists, and processes and recipe fit its devices."""
    if request.instance_type is None:
        yield Check("machines", NOTE, "no single instance type, so GPUs, quota and cost are not checked")
        return
    types = training_instance_types()
    if request.instance_type not in types:
        family = request.instance_type.rpartition(".")[0]
        # A name of one part less, such as ml.large, is of no family; all would be of "ml".
        near = sorted(known for known in types if "." in family and known.startswith(family + "."))
        hint = f"of this family there are {', '.join(near)}" if near else "names look like ml.g5.2xlarge"
        yield Check(
            "machines", PROBLEM, f"there is no training instance type {request.instance_type!r}: {hint}"
        )
        return
    yield from (_check_local if request.local else _check_on_aws)(request, settings)


def _check_local(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    processes = request.hosts * request.processes_per_host
    yield Check(
        "machines",
        OK,
        f"{request.hosts} x {request.instance_type} on AWS; here {processes} process{'es' if processes > 1 else ''} on this "
        "machine",
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


def _check_on_aws(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    name, processes, gpus = request.instance_type, request.processes_per_host, request.gpus
    on_cpu = settings.get("use_cpu") is True
    known = "unknown" if gpus is None else gpus
    yield Check("machines", OK, f"{request.hosts} x {name}, GPUs each: {known}, processes each: {processes}")
    if gpus and processes > gpus:
        text = f"{processes} processes a host, but {name} has {gpus} GPUs: set process_count_per_node={gpus}"
        yield Check("machines", PROBLEM, text)
    if gpus and processes < gpus:
        yield Check(
            "machines",
            WARNING,
            f"{name} has {gpus} GPUs, of which {processes} would be used: a smaller one of its family costs less and does as "
            "much, or start a process for each GPU",
        )
    if gpus and on_cpu:
        yield Check(
            "machines", WARNING, "the recipe says use_cpu: true, so the GPUs that you pay for stay idle"
        )
    if gpus == 0 and settings.get("use_vllm") is True:
        yield Check("machines", PROBLEM, f"use_vllm needs a GPU, and {name} has none")
    elif gpus == 0 and not on_cpu and settings.get("bf16") is True:
        text = f"the recipe is made for a GPU, and {name} has none: choose a GPU instance, or set use_cpu=True and bf16=False"
        yield Check("machines", PROBLEM, text)
    row = find_instance(name or "")
    if row and row.gpu and row.gpu.name == "T4" and settings.get("bf16") is True:
        text = f"the T4 of {name} has no bfloat16, which vLLM refuses and PyTorch only imitates: choose ml.g5 or ml.g6"
        yield Check("machines", PROBLEM if settings.get("use_vllm") is True else WARNING, text)
    if request.hosts > 1 and not request.launcher:
        text = f"nothing joins the {request.hosts} hosts, each of which would train a model of its own: add distributed=..."
        yield Check("machines", PROBLEM, text)
    if request.hosts > 1 and settings.get("precompute_ref_log_probs") is True:
        yield Check(
            "machines",
            PROBLEM,
            "precompute_ref_log_probs: what one process computes of the reference, the others read from their host's disk, "
            f"and there are {request.hosts} hosts: set instance_count=1, or precompute_ref_log_probs=False",
        )


def check_numbers(request: JobRequest) -> Iterator[Check]:
    """Numbers of the request, and its name, that the service takes: it refuses others when the job is created."""
    for name, value in request.numbers.items():
        if isinstance(value, int | float) and (problem := ASKED[name].problem([value])):
            yield Check("request", PROBLEM, f"{name} {problem}")
    name = (request.job_name or "").replace("_", "-")  # as the SDK does
    if len(name) > LONGEST_BASE_NAME:
        yield Check(
            "request",
            PROBLEM,
            f"base_job_name has {len(name)} characters, {LONGEST_BASE_NAME} are allowed: of a longer one the SDK cuts off the "
            "time that stands behind it, and a second job would be refused for its name",
        )
    if request.job_name is not None and not re.fullmatch(r"[a-zA-Z0-9](-*[a-zA-Z0-9])*", name):
        yield Check(
            "request",
            PROBLEM,
            f"base_job_name {request.job_name!r}: a job's name has letters, digits and hyphens between them alone",
        )


def check_disk(request: JobRequest) -> Iterator[Check]:
    """Instances with a disk of their own get no volume: neither a larger one nor a KMS key for it can be asked for.

    Source: the documentation of ResourceConfig in the SageMaker API (VolumeSizeInGB, VolumeKmsKeyId), 2026-11.
    """
    found = find_instance(request.instance_type or "")
    if request.local or found is None or not found.local_disk_gb:
        return
    own = (
        f"{request.instance_type} has a disk of its own ({found.local_disk_gb} GB, encrypted by the instance)"
    )
    if request.volume_key:
        text = f"{own}, for which no KMS key can be named: leave volume_kms_key_id out of Compute"
        yield Check("disk", PROBLEM, text)
    if (request.volume_gb or 0) > found.local_disk_gb:
        text = f"{own}, and {request.volume_gb} GB are asked for: lower volume_size_in_gb, or take a larger instance"
        yield Check("disk", PROBLEM, text)


def check_spot(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """An interrupted spot job starts again from its checkpoint; without one it may never finish."""
    if not request.spot:
        return
    if request.keep_alive_s:
        yield Check(
            "spot",
            PROBLEM,
            "SageMaker keeps no spot instances for the next job: leave keep_alive_period_in_seconds out, or "
            "enable_managed_spot_training",
        )
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
        yield Check("spot", OK, f"with checkpoints, waiting at most {in_words(request.max_wait_s)}")


def check_time_limit(request: JobRequest) -> Iterator[Check]:
    """The job knows when it will be stopped, so that it can save and end before."""
    told = request.environment.get(JOB_MAX_SECONDS)
    if told is not None and str(told) != str(request.max_runtime_s):
        yield Check(
            "time limit",
            PROBLEM,
            f"{JOB_MAX_SECONDS} in environment is {told}, and max_runtime_in_seconds of StoppingCondition is "
            f"{request.max_runtime_s}: the job would save too late or end too early. Set both to the same number",
        )


def job_quotas(instance_type: str, spot: bool) -> list[str]:
    """The names of the quotas that a job's instances count towards: that of their type, and that of all types together."""
    job = "spot training job" if spot else "training job"
    return [f"{instance_type} for {job} usage", f"Number of instances across all {job}s"]


def check_quota(request: JobRequest) -> Iterator[Check]:
    """The account's quotas let this many instances run, and stay for the next job, if they may be asked."""
    if request.local or request.instance_type is None:
        return
    pool = f"{request.instance_type} for training warm pool usage"
    wanted = [*job_quotas(request.instance_type, request.spot), *([pool] if request.keep_alive_s else [])]
    try:
        values = _quotas(request.boto_session, wanted, request.hosts)
    except (ClientError, BotoCoreError) as error:
        names = " and ".join(map(repr, wanted))
        yield Check("quota", WARNING, f"quotas cannot be read ({error}): look up {names} in the console")
        return
    for name in wanted:
        value = values.get(name)
        if value is None:
            yield Check("quota", WARNING, f"Service Quotas lists no {name!r}")
        elif value >= request.hosts:
            yield Check("quota", OK, f"{name}: {value:.0f}")
        elif name == pool:
            text = f"{name!r} is {value:.0f}: the job runs, but its {request.hosts} instances are not kept for the next one"
            yield Check("quota", WARNING, f"{text}. Ask for more in Service Quotas")
        else:
            text = (
                f"{name!r} is {value:.0f}, but the job needs {request.hosts}: ask for more in Service Quotas"
            )
            yield Check("quota", PROBLEM, text)


def _quotas(session: boto3.Session, wanted: list[str], least: int) -> dict[str, float]:
    """SageMaker's quotas by name: those listed before, unless one of the wanted is less than `least` there.

    It may have been raised since. Raises ClientError or BotoCoreError if they cannot be listed.
    """
    known = _QUOTAS.get(session, {})
    if any(known.get(name, 0) < least for name in wanted):
        pages = session.client("service-quotas").get_paginator("list_service_quotas")
        listed = pages.paginate(ServiceCode="sagemaker", PaginationConfig={"PageSize": 100})
        known = {quota["QuotaName"]: quota["Value"] for page in listed for quota in page["Quotas"]}
        _QUOTAS[session] = known
    return known
