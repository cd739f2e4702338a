"""Preflight of a job's network: what a job in a VPC, or one that is isolated from all networks, cannot fetch."""

from collections.abc import Iterator
from typing import Any

from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest

_FETCHED = ("hub:", "pypi:")
_SECRETS = ("WANDB_SECRET_NAME", "HF_SECRET_NAME")
_HUB_DATA = {"pairs_when2call.py": "nvidia/When2Call"}  # entry scripts that load a data set from the Hub


def check_network(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """Nothing for a job on SageMaker's own network, which reaches the Internet.

    Network isolation: SageMaker copies channels, checkpoints and output for the job, and the job itself reaches only its
    own hosts (https://docs.aws.amazon.com/sagemaker/latest/dg/mkt-algo-model-internet-free.html, 2026-11).
    """
    if request.network_isolation:
        problems = list(_cannot_be_reached(request, settings))
        yield from (Check("network", PROBLEM, problem) for problem in problems)
        if not problems:
            yield Check("network", OK, "isolated: the job needs nothing but its image and its channels")
    elif request.vpc:
        needs = ["S3", "CloudWatch Logs"]
        needs += ["a package index (pip)"] if request.requirements else []
        needs += [f"{spec.partition(':')[0]} models" for spec in _fetched_models(settings)]
        needs += ["hub data sets"] if request.entry_script in _HUB_DATA else []
        needs += ["MLflow"] if _has_tracking_server(request) else []
        needs += ["Secrets Manager"] if any(name in request.environment for name in _SECRETS) else []
        yield Check(
            "network",
            NOTE,
            f"in a VPC, whose routes must lead to {', '.join(dict.fromkeys(needs))}: not checked here",
        )
    if request.vpc and request.hosts > 1:
        # https://docs.aws.amazon.com/sagemaker/latest/dg/train-vpc.html, "Configure the VPC security group", 2026-11
        yield Check(
            "network",
            WARNING,
            f"{request.hosts} hosts in a VPC: the security group must let its members talk to each other, by a rule that allows "
            "inbound traffic from the group itself on all ports; with EFA (p4d, p5) all traffic within the group, inbound and "
            "outbound. Otherwise the hosts wait for each other in vain: not checked here",
        )


def _cannot_be_reached(request: JobRequest, settings: dict[str, Any]) -> Iterator[str]:
    if request.requirements:
        yield (
            f"network isolation keeps pip from installing {request.requirements}: take an image that holds everything, "
            "and requirements = None"
        )
    for spec in _fetched_models(settings):
        yield (
            f"network isolation keeps the job from fetching {spec}: stage it in S3 once (python scripts/stage_model.py "
            f"{spec} s3://BUCKET/models/NAME), and give it to the job as a channel: base_model: channel:model"
        )
    if request.entry_script in _HUB_DATA:
        yield (
            f"network isolation keeps {request.entry_script} from {_HUB_DATA[request.entry_script]} on the Hub: run this job "
            "without isolation, or make the pairs with pairs_sampled.py"
        )
    if _has_tracking_server(request):
        yield "network isolation keeps the job from its MLflow server: leave tracking_uri out; the run is in the job's output"
    for name in _SECRETS:
        if name in request.environment:
            yield f"network isolation keeps the job from Secrets Manager: leave {name} out of its environment"


def _has_tracking_server(request: JobRequest) -> bool:
    return request.environment.get("MLFLOW_TRACKING_URI", "").startswith(("arn:", "http"))


def _fetched_models(settings: dict[str, Any]) -> list[str]:
    """Specs of models that the job would download itself, anywhere in the recipe."""
    values = [item for value in settings.values() for item in (value if isinstance(value, list) else [value])]
    return [value for value in values if isinstance(value, str) and value.startswith(_FETCHED)]
