"""Where the endpoint keeps its files, and the record by which others find a running one."""

import contextlib
import fcntl
import json
import os
from collections.abc import Iterator
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def home_folder(home: Path | str | None = None) -> Path:
    """Folder of the endpoint's files: the argument, else LOCAL_SAGEMAKER_HOME, else build/ of this clone."""
    chosen = home or os.environ.get("LOCAL_SAGEMAKER_HOME") or REPOSITORY / "build" / "local_sagemaker"
    return Path(chosen).expanduser().resolve()


def write_json(path: Path, value: object) -> None:
    """Replace `path` in one step, so that a reader never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_name(path.name + ".tmp")
    fresh.write_text(json.dumps(value, indent=1, default=str))
    fresh.replace(path)


@contextlib.contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on `path`; it is released when this process ends, however it ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
