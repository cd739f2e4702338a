"""Telling SageMaker, and so the learner, why a training script failed."""

import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator
from pathlib import Path

from job.container import failure_file, process_count, process_rank
from job.disk_space import no_space

FRAMES = 4
ROOM_BYTES = 65_536
LONGEST_MESSAGE = 600  # characters; with the frames this stays within the 1,024 that FailureReason shows


class EndedEarly(Exception):
    """A job's script that exits as if all were done."""


@contextlib.contextmanager
def report_failure() -> Iterator[None]:
    """Writes whatever ends the block early to /opt/ml/output/failure, and raises it again.

    Of several processes on a host the first to fail writes: the others fail because it left them. An exit with code 0
    before the block has ended is a failure too where it would make a job complete that has done nothing.
    """
    room = _keep_room()
    try:
        yield
    except BaseException as error:
        if not isinstance(error, SystemExit) or error.code:
            write_once(describe(error), failure_file())
        elif "TRAINING_JOB_NAME" in os.environ:  # elsewhere somebody has asked for --help
            early = EndedEarly(
                "the script ended with exit code 0 before it had done its work. Is --help among its arguments, or does "
                "something that it runs call sys.exit()?"
            ).with_traceback(error.__traceback__)
            write_once(describe(early), failure_file())
            raise early from error
        raise
    finally:
        _remove(room)


def _room(path: Path) -> Path:
    return path.with_name("failure.room")


def _remove(room: Path) -> None:
    with contextlib.suppress(OSError):  # where nothing can be written there is none either
        room.unlink()


def _keep_room() -> Path:
    """A file beside the failure file that is there only to make room for it: a disk that is full is full for both."""
    room = _room(failure_file())
    if "TRAINING_JOB_NAME" in os.environ:
        # Another process of the host has made it, or there is no space from the start.
        with contextlib.suppress(OSError):
            room.parent.mkdir(parents=True, exist_ok=True)
            with open(room, "xb") as file:
                file.write(bytes(ROOM_BYTES))
    return room


def describe(error: BaseException) -> str:
    """A full disk, if that was it; type and message, what caused it, the innermost frames first; then the whole traceback."""
    full = no_space(error)
    lines = [full] if full else []
    lines += [f"{_headline(error)}{_rank()}"]
    lines += [
        f"  at {'/'.join(Path(frame.filename).parts[-2:])}:{frame.lineno} in {frame.name}: {frame.line}"
        for frame in reversed(traceback.extract_tb(error.__traceback__)[-FRAMES:])
    ]
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause:
        lines.append(f"Caused by {_headline(cause)}")
    whole = "".join(traceback.format_exception(error))
    return "\n".join(lines) + f"\n\n{whole}"


def _headline(error: BaseException) -> str:
    message = str(error) or "no message"
    if len(message) > LONGEST_MESSAGE:
        message = message[:LONGEST_MESSAGE] + " ..."
    return f"{type(error).__name__}: {message}"


def _rank() -> str:
    return f" (process {process_rank()} of {process_count()})" if process_count() > 1 else ""


def write_once(text: str, path: Path) -> None:
    """Creates the file with its whole content, unless it exists already. What was kept free beside it gives way to it."""
    _remove(_room(path))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(
            "w", encoding="utf-8", errors="backslashreplace", dir=path.parent
        ) as file:
            file.write(text)
            file.flush()
            with contextlib.suppress(FileExistsError):
                os.link(file.name, path)
    except OSError as error:  # outside a container; the failure itself matters more than its report
        print(f"The failure could not be written to {path}: {error}\n{text}", file=sys.stderr)
