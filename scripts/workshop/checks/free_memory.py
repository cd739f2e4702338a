"""Preflight of local mode: what the job's processes need of this machine's memory, and what is free of it now.

The figures are for the tiny models, with which all is code and hardly anything weights. For 01 to 04 they are the peak of one
process (the results table in README.md). verl spreads a job over some thirty processes, which share most of their pages, so
it was measured as a whole: the greatest sum of their proportional set sizes, on Linux, in November 2026. The recipe tiny took
5.4 GB on one host (29 processes) and 5.7 GB on two (36), tools 5.4 GB, tiny_pipeline on two hosts 6.3 GB (37).
"""

from collections.abc import Iterator
from typing import Any

import psutil

from workshop.checks.memory import GB
from workshop.checks.request import PROBLEM, WARNING, Check, JobRequest

_PROCESS = 0.9 * GB  # one of 01 to 03
_UNSLOTH_PROCESS = 1.3 * GB
_VERL = 5.4 * GB  # on one host, its training processes and Ray included
_VERL_HOST = 0.9 * GB  # each host more, with Megatron
_RAY_KEEPS = (
    0.05  # of the machine: with less than this free, Ray ends processes (RAY_memory_usage_threshold 0.95)
)
_HOPELESS = 0.7  # with less than this share of what is needed no job gets through


def needed_bytes(request: JobRequest, settings: dict[str, Any]) -> float | None:
    """What the job's processes hold at most, together; None for models that were not measured."""
    if not str(settings.get("base_model")).startswith("asset:"):
        return None
    if _is_verl(request):
        return _VERL + (request.hosts - 1) * _VERL_HOST
    each = _UNSLOTH_PROCESS if settings.get("module") == "04_grpo_unsloth" else _PROCESS
    return request.hosts * request.processes_per_host * each


def check_free_memory(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """Nothing where the job fits, or runs on AWS."""
    if not request.local or (needed := needed_bytes(request, settings)) is None:
        return
    memory = psutil.virtual_memory()
    usable = memory.available - (_RAY_KEEPS * memory.total if _is_verl(request) else 0.0)
    if usable >= needed:
        return
    cure = "end other programs and jobs, then run this cell again"
    if _is_verl(request):
        cure += (
            f"; Ray ends processes when less than {_RAY_KEEPS:.0%} of {memory.total / GB:.1f} GB are free, which "
            'environment={"RAY_memory_usage_threshold": "0.98"} moves'
        )
    yield Check(
        "memory",
        PROBLEM if usable < _HOPELESS * needed else WARNING,
        f"the job's processes need about {needed / GB:.1f} GB together, and of this machine's memory {usable / GB:.1f} GB are "
        f"left for them: {cure}",
    )


def _is_verl(request: JobRequest) -> bool:
    return "join_timeout_s" in request.launcher  # RayCluster's
