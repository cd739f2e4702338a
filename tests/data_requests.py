"""Requests whose data preflight checks, and what it finds."""

import dataclasses
from pathlib import Path

from job.arguments import EvaluationArguments, Script
from job_requests import job_request
from rl.tasks import make_splits, write_splits
from workshop.checks.data_checks import check_data
from workshop.checks.request import JobRequest


@dataclasses.dataclass
class Arguments(EvaluationArguments):
    """What a script reads beside its trainer's config."""


def job(channels: dict, config: str = "trl.GRPOConfig", *, processes: int = 1, session=None) -> JobRequest:
    return job_request(
        boto_session=session,
        launcher={"process_count_per_node": processes},
        channels=list(channels.items()),
        script=Script(Arguments, config),
    )


def found(channels: dict, settings: dict | None = None, **options) -> list[tuple[str, str, str]]:
    """The findings, enough rows not among them where nothing is said of a step."""
    settings = {"generation_batch_size": 8, "num_generations": 8} if settings is None else settings
    return [
        (check.name, check.status, check.detail) for check in check_data(job(channels, **options), settings)
    ]


def written_problems(folder: Path) -> dict[str, str]:
    """The folders of 12 problems to train on and 4 to test with."""
    splits = make_splits("chain_sum", {"train": 12, "test": 4})
    return {name: str(path) for name, path in write_splits(splits, folder).items()}
