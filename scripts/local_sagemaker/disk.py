"""A full disk, in words: which one it is, and what to do. Everything that the endpoint writes may fail for it."""

import errno
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

_NUMBERS = (errno.ENOSPC, errno.EDQUOT)
# As systems, Rust's libraries and pip say it. The first is this file's own sentence, which an answer of S3 may hold.
_OWN = re.compile(r"No space left on /.*", re.DOTALL)
WORDS = re.compile(r"No space left on|\(os error 28\)|\[Errno 28\]|Disk quota exceeded", re.IGNORECASE)
TO_DO = (
    "Delete what is no longer needed there: folders of earlier jobs (jobs/ in the endpoint's home, by default"
    " build/local_sagemaker), environments (~/.cache/local_sagemaker), caches of pip, uv and Hugging Face; or set"
    " LOCAL_SAGEMAKER_HOME to a folder on a larger disk. Then start the job again: with the same checkpoint address in"
    " S3 it goes on from its last whole checkpoint."
)


def no_space(error: BaseException, *places: Path) -> str | None:
    """What to say of an error that a full disk caused: "No space left on ..." first. None if it has another cause.

    `places` are folders that may be meant where the error names none; that with the least space is taken.
    """
    for cause in _causes(error):
        if own := _OWN.search(str(cause)):
            return own.group()
        if (isinstance(cause, OSError) and cause.errno in _NUMBERS) or WORDS.search(str(cause)):
            named = getattr(cause, "filename", None)
            return sentence(Path(named)) if isinstance(named, str) else sentence(*places)
    return None


def sentence(*places: Path) -> str:
    """ "No space left on ..." of the place (file or folder) with the least space, and what to do."""
    folders = [_existing(place) for place in places or (Path("/"),)]
    folder = min(folders, key=lambda folder: shutil.disk_usage(folder).free)
    disk = folder
    while not disk.is_mount():
        disk = disk.parent
    usage = shutil.disk_usage(folder)
    return f"No space left on {folder} (disk {disk}: {_size(usage.free)} of {_size(usage.total)} are free). {TO_DO}"


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _existing(place: Path) -> Path:
    while not place.is_dir():
        place = place.parent
    return place


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
