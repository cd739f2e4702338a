"""Fetch what a finished job left in S3: its history, summary and evaluations, and the model if asked for."""

import json
import os
import shutil
import tarfile
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ClientError
from job.metrics import HISTORY, Metrics, add_metrics
from job.record import EVALUATION_BEFORE, SUMMARY, Record
from rl.evaluation import Evaluation
from rl.tasks import DataError

from workshop.errors import WorkshopError
from workshop.jobs.json_lines import read_json_lines
from workshop.jobs.status import TERMINAL, default_session, describe, job_name
from workshop.s3 import split_uri


class OutputError(WorkshopError):
    """A job's output cannot be fetched: the job still runs, left nothing, is too large, or is damaged or unsafe."""


PARTS = {
    "summary": "summary",
    "before": "evaluation before training",
    "after": "evaluation after training",
}


@dataclass
class JobOutput:
    """A job's results on this machine. Asking for a part that the job did not write raises OutputError, which says what there is."""

    name: str
    model_uri: (
        str  # where the model lies in S3: an archive, or a prefix that ends with / if it was not compressed
    )
    data: Path | None  # folder with everything written to output_data_dir()
    history: list[Metrics] = field(default_factory=list, repr=False)  # one dict a logged step
    parts: dict[str, Any] = field(default_factory=dict, repr=False)  # what it wrote of PARTS, by name
    ended: str = field(default="Completed", repr=False)  # and why, if SageMaker says so
    checkpoints: str | None = field(default=None, repr=False)  # where they lie in S3, if it made any
    model_folder: Path | None = None  # None too while the model is in S3 alone
    model_asked: bool = field(default=False, repr=False)

    @property
    def summary(self) -> Record:
        """Settings, time, memory and results in short, as the job wrote them last."""
        return self._part("summary")

    @property
    def before(self) -> Evaluation:
        """The base on the held-out problems."""
        return self._part("before")

    @property
    def after(self) -> Evaluation:
        """The trained model on the same problems."""
        return self._part("after")

    def _part(self, name: str) -> Any:
        if name in self.parts:
            return self.parts[name]
        left = [f"{len(self.history)} logged steps (history)"] if self.history else []
        left += [f"{PARTS[part]} ({part})" for part in PARTS if part in self.parts]
        left += [f"files in {self.data}"] if self.data else []
        text = f"{self.name} ({self.ended}) left no {PARTS[name]}. There is: {'; '.join(left) or 'nothing else'}."
        if self.checkpoints:
            text += f" A job with the same CheckpointConfig goes on from the last checkpoint in {self.checkpoints}."
        raise OutputError(text)

    @property
    def model(self) -> Path | None:
        """Folder with the trained model. Raises OutputError when it was not fetched."""
        if self.model_folder is None and not self.model_asked:
            raise OutputError(
                f"The model of {self.name} was not fetched: fetch_output({self.name!r}, folder, model=True) does that. "
                f"It lies at {self.model_uri}, where a following job can take it from."
            )
        return self.model_folder


def fetch_output(job: Any, folder: Path | str, *, model: bool = False) -> JobOutput:
    """Download a finished job's results into `folder`/<job name>/{data,model} and load what they hold.

    The model is downloaded with `model` only: it may be larger than the disk of a Studio space, and a following job
    takes it from S3. A finished job's output never changes, so what was fetched before is neither fetched again nor
    overwritten. Raises OutputError, before it downloads anything that does not fit on the disk.
    """
    name = job_name(job)
    description = describe(name)
    if description["TrainingJobStatus"] not in TERMINAL:
        raise OutputError(
            f"{name} is still {description['TrainingJobStatus']}: wait for it with watch({name!r})."
        )
    s3, target = default_session().client("s3"), Path(folder) / name
    prefix = description["OutputDataConfig"]["S3OutputPath"].rstrip("/") + f"/{name}/output/"
    if description["OutputDataConfig"].get("CompressionType") == "NONE":
        # AWS says where the model is and not where the data is: whatever else lies in the same place.
        model_uri = _said(description, f"{prefix}model").rstrip("/") + "/"
        beside = {
            key: size
            for key, size in _objects(s3, prefix).items()
            if not f"{prefix}{key}".startswith(model_uri)
        }
        data = _fetch_files(s3, prefix, beside, target / "data")
        files = _objects(s3, model_uri)
        exists = bool(files)
        model_folder = _fetch_files(s3, model_uri, files, target / "model") if model else None
    else:
        model_uri = _said(description, f"{prefix}model.tar.gz")
        data = _fetch_archive(s3, f"{prefix}output.tar.gz", target / "data")
        exists = _size(s3, model_uri) is not None
        model_folder = _fetch_archive(s3, model_uri, target / "model") if model else None
    if data is None and not exists:
        raise OutputError(
            f"{name} ({description['TrainingJobStatus']}) left neither a model nor other output under {prefix}."
        )
    if model_folder is None and (target / "model").is_dir():
        model_folder = target / "model"  # of an earlier call
    output = JobOutput(
        name,
        model_uri,
        data,
        ended=_ended(description),
        checkpoints=_checkpoints(s3, description),
        model_folder=model_folder,
        model_asked=model or not exists,
    )
    if data is not None:
        for metrics in _read_jsonl(data / HISTORY):
            add_metrics(output.history, metrics)
        output.parts = _read_parts(data)
    return output


def _ended(description: dict) -> str:
    """How the job ended: stopped by somebody, by its time cap, failed for a reason."""
    status, more = description["TrainingJobStatus"], description.get("SecondaryStatus")
    reason = f", {more}" if more and more != status else ""
    return status + reason + (f": {description['FailureReason']}" if description.get("FailureReason") else "")


def _checkpoints(s3: BaseClient, description: dict) -> str | None:
    uri = (description.get("CheckpointConfig") or {}).get("S3Uri")
    return uri if uri and _objects(s3, uri.rstrip("/") + "/") else None


def _said(description: dict, otherwise: str) -> str:
    """Where SageMaker says that the model is; it says nothing when a job left none."""
    return (description.get("ModelArtifacts") or {}).get("S3ModelArtifacts") or otherwise


def _size(s3: BaseClient, uri: str) -> int | None:
    """Bytes of the object, None if there is none."""
    bucket, key = split_uri(uri)
    try:
        return s3.head_object(Bucket=bucket, Key=key)["ContentLength"]
    except ClientError as error:
        if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
            return None
        raise


def _objects(s3: BaseClient, prefix: str) -> dict[str, int]:
    """Bytes of each object, by its path below the prefix."""
    bucket, start = split_uri(prefix)
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=start)
    found = (entry for page in pages for entry in page.get("Contents", []))
    return {
        entry["Key"].removeprefix(start): entry["Size"] for entry in found if not entry["Key"].endswith("/")
    }


def _fetch_files(s3: BaseClient, prefix: str, files: dict[str, int], target: Path) -> Path | None:
    """Download these files below `prefix` into `target`; those that share the folder data/ lose it."""
    if target.is_dir():
        return target
    if not files:
        return None
    _check_space(prefix, sum(files.values()), target)
    bucket, start = split_uri(prefix)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        for path in files:
            file = Path(os.path.normpath(Path(scratch, "files", path.removeprefix("data/"))))
            if not file.is_relative_to(Path(scratch, "files")):
                raise OutputError(f"{prefix}{path} would leave its folder and is not fetched.")
            file.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, start + path, str(file))
        shutil.move(Path(scratch, "files"), target)  # whole or not at all
    return target


def _fetch_archive(s3: BaseClient, uri: str, target: Path) -> Path | None:
    """Unpack the archive at `uri` into `target`; None when there is no such object."""
    if target.is_dir():
        return target
    size = _size(s3, uri)
    if size is None:
        return None
    _check_space(uri, 2 * size, target)  # the archive and what is in it; weights hardly compress
    bucket, key = split_uri(uri)
    with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
        archive, unpacked = Path(scratch) / "archive.tar.gz", Path(scratch) / "unpacked"
        s3.download_file(bucket, key, str(archive))
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(unpacked, filter=_inside_only)
        except (tarfile.TarError, EOFError, OSError) as error:
            raise OutputError(f"{uri} cannot be unpacked: {error}") from error
        shutil.move(unpacked, target)  # whole or not at all
    return target


def _check_space(uri: str, needed: int, target: Path) -> None:
    """Make the folder that is to hold `target`. Raises OutputError if its disk has not that many bytes left."""
    target.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(target.parent).free
    if needed > free:
        raise OutputError(
            f"{uri} needs {needed / 1e9:.1f} GB of disk to be fetched, and {free / 1e9:.1f} GB are free in "
            f"{target.parent}. Remove what you do not need there, give a folder on a larger disk, or leave it in S3: a "
            "following job takes it from there as a channel."
        )


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
        return read_json_lines(path)
    except ValueError as error:
        raise OutputError(f"{path} is damaged: {error}") from error


def _read_parts(data: Path) -> dict[str, Any]:
    """What there is of PARTS. One that is damaged does not keep the others from being used, and is said to be (printed)."""
    readers = {
        "summary": (SUMMARY, lambda path: json.loads(path.read_text(encoding="utf-8"))),
        "before": (EVALUATION_BEFORE, Evaluation.load),
        "after": ("evaluation_after.json", Evaluation.load),
    }
    parts = {}
    for part, (name, read) in readers.items():
        try:
            if (data / name).is_file():
                parts[part] = read(data / name)
        except (ValueError, DataError) as error:
            print(
                f"{name} is damaged, as if the job had ended in the middle of writing it, and is left out: {error}"
            )
    return parts
