"""Where the endpoint keeps its files, and what the two records in it hold: endpoint.json and a job's job.json."""

import contextlib
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TypedDict


class EndpointFile(TypedDict):
    """endpoint.json in the home folder: by it others find the running endpoint."""

    url: str
    pid: int
    started: float  # seconds since the epoch
    isolation: str


class EndedFile(TypedDict):
    """ended.json in the home folder: the last endpoint that ended by itself or was stopped; one that was killed writes none."""

    url: str
    ended: str  # ISO 8601 with time zone
    why: str


class TransitionRecord(TypedDict):
    """One SecondaryStatusTransition."""

    status: str
    message: str
    start: str  # ISO 8601 with time zone, as are all times below
    end: str | None


class JobFile(TypedDict):
    """jobs/<name>/job.json: what DescribeTrainingJob says of a job besides its request, for the next endpoint and for people."""

    name: str
    region: str
    status: str  # TrainingJobStatus
    secondary_status: str
    failure_reason: str | None
    created: str
    training_started: str | None
    ended: str | None
    model: str | None  # s3:// address of model.tar.gz
    training_seconds: int | None
    metrics: dict[str, float]
    metric_times: dict[str, str]
    transitions: list[TransitionRecord]


def home_folder(home: Path | str | None = None) -> Path:
    """Folder of the endpoint's files: the argument, else LOCAL_SAGEMAKER_HOME, else build/local_sagemaker.

    The last one is in the project that the package belongs to: the nearest folder above it with a pyproject.toml
    or a .git, else the working folder.
    """
    chosen = home or os.environ.get("LOCAL_SAGEMAKER_HOME") or _project() / "build" / "local_sagemaker"
    return Path(chosen).expanduser().resolve()


def make_home(home: Path) -> None:
    """Make the endpoint's home if it is not there: for its user alone, since jobs leave pip's settings and tokens in it.

    One that is there stays as it is: it may be shared on purpose.
    """
    home.mkdir(mode=0o700, parents=True, exist_ok=True)


def _project() -> Path:
    for folder in Path(__file__).resolve().parents:
        if (folder / "pyproject.toml").exists() or (folder / ".git").exists():
            return folder
    return Path.cwd()


def write_json(path: Path, value: object) -> None:
    """Replace `path` in one step, so that a reader never sees half a file. Raises OSError, and leaves the old one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp")
    try:
        fresh.write_text(json.dumps(value, indent=1, default=str))
        fresh.replace(path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise


def note(text: str) -> None:
    """A line for endpoint.log, which may itself be on a disk that is full: what happens to it stops nothing."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it is released when this process ends, however it ends."""
    import filelock  # here, since image_build.py reads this module before anything is installed

    path.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(path):
        yield
