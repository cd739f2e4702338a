"""Preflight of a job that trains with Unsloth: one process on one device, with the keys of the TRL that Unsloth allows."""

from collections.abc import Iterator
from typing import Any

from workshop.request import OK, PROBLEM, WARNING, Check, JobRequest
from workshop.request_checks import installed_packages

# In the TRL and transformers that signatures.json describes, not yet in those that unsloth 2026.10.9 allows (1.15, 5.17).
LATER_KEYS = ("activation_checkpointing", "activation_checkpointing_kwargs")


def check_unsloth(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """Only for jobs whose requirements name unsloth."""
    if "unsloth" not in installed_packages(request):
        return
    problems = []
    processes = request.hosts * request.processes_per_host
    if processes > 1:
        problems.append(
            f"it trains one model on one device, but the job would start {processes} processes on {request.hosts} "
            "host(s): leave distributed= out and set instance_count=1. 03_grpo_trl_fsdp spreads a model over several "
            "devices"
        )
    if not int(settings.get("lora_rank") or 0):
        problems.append("lora_rank is 0, but adapters are what it trains here: set 8 or more")
    problems += [
        f"{key} is not in the TRL that Unsloth allows: remove it" for key in LATER_KEYS if key in settings
    ]
    yield from [Check("unsloth", PROBLEM, problem) for problem in problems] or [
        Check("unsloth", OK, "one process on one device")
    ]
    if not request.local and (request.gpus or 0) > 1:
        idle = f"{request.instance_type} has {request.gpus} GPUs, of which Unsloth uses one"
        yield Check("unsloth", WARNING, f"{idle}: the smallest of its family costs less and does as much")
