"""Fetch what a finished job left in S3: the model, and its history, summary and evaluations."""

import json
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from job.metrics import HISTORY, Metrics, add_metrics
from job.record import Record
from rl.evaluation import Evaluation

from workshop.errors import WorkshopError
from workshop.jobs.status import TERMINAL, describe, job_name


class OutputError(WorkshopError):
    """A job's output cannot be fetched: the job still runs, left nothing, or an archive is damaged or unsafe."""


@dataclass
class JobOutput:
    """A job's results on this machine. What the job did not write is None (history: empty)."""

    name: str
    model: Path | None  # folder with the trained model
    data: Path | None  # folder with everything written to output_data_dir()
    history: list[Metrics] = field(default_factory=list, repr=False)  # one dict a logged step
    summary: Record | None = field(default=None, repr=False)
    before: Evaluation | None = field(default=None, repr=False)
    after: Evaluation | None = field(default=None, repr=False)


def fetch_output(job: Any, folder: Path | str) -> JobOutput:
    """Download and unpack a finished job's archives into `folder`/<job name>/{model,data}; load what they hold.

    A finished job's output never changes, so what was fetched before is not fetched again, nor overwritten.
    Raises OutputError.
    """
    name = job_name(job)
    description = describe(name)
    if description["TrainingJobStatus"] not in TERMINAL:
        raise OutputError(
            f"{name} is still {description['TrainingJobStatus']}: wait for it with watch({name!r})."
        )
    target = Path(folder) / name
    prefix = description["OutputDataConfig"]["S3OutputPath"].rstrip("/") + f"/{name}/output"
    model = _fetch_archive(f"{prefix}/model.tar.gz", target / "model")
    data = _fetch_archive(f"{prefix}/output.tar.gz", target / "data")
    if model is None and data is None:
        raise OutputError(
            f"{name} ({description['TrainingJobStatus']}) left neither model.tar.gz nor output.tar.gz under {prefix}."
        )
    output = JobOutput(name, model, data)
    if data is not None:
        for metrics in _read_jsonl(data / HISTORY):
            add_metrics(output.history, metrics)
        output.summary = _read_json(data / "summary.json")
        output.before = _read_evaluation(data / "evaluation_before.json")
        output.after = _read_evaluation(data / "evaluation_after.json")
    return output


def _fetch_archive(uri: str, target: Path) -> Path | None:
    """Unpack the archive at `uri` into `target`; None when there is no such object."""
    if target.is_dir():
        return target
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        archive, unpacked = Path(scratch) / "archive.tar.gz", Path(scratch) / "unpacked"
        try:
            boto3.client("s3").download_file(bucket, key, str(archive))
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter=_inside_only)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise OutputError(f"{uri} cannot be unpacked: {error}") from error
        shutil.move(unpacked, target)  # whole or not at all
    return target


def _inside_only(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo | None:
    """Refuse paths that lead out of the folder; leave out links that do (W&B makes some to its logs elsewhere)."""
    try:
        return tarfile.data_filter(member, folder)
    except (tarfile.AbsoluteLinkError, tarfile.LinkOutsideDestinationError):
        return None


def _read_jsonl(path: Path) -> list[dict]:
    if not path.is_file():
        return []
    try:
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except ValueError as error:
        raise OutputError(f"{path} is damaged: {error}") from error


def _read_json(path: Path) -> Any:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise OutputError(f"{path} is damaged: {error}") from error


def _read_evaluation(path: Path) -> Evaluation | None:
    return Evaluation.load(path) if path.is_file() else None
