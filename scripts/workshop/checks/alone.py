"""Code that a learner may have written, run by a process of its own: whatever it does, it ends, and so does what it started."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, NamedTuple


class Run(NamedTuple):
    """How it ended: its exit code (None: it did not end in time), what it wrote to stdout, and to stderr (the end of it)."""

    code: int | None
    answer: str
    said: str


PATIENCE = 5.0  # seconds, before it is said what is waited for


def run_alone(
    arguments: list[str],
    source_dir: Path,
    seconds: float,
    text: str = "",
    *,
    waiting: str = "",
    environment: Mapping[str, str] | None = None,
) -> Run:
    """Python with these arguments in a job's source folder; `text` is its standard input; `waiting` is printed
    if it takes long; `environment` are variables besides those of this kernel.

    Its output goes to files: a process that it leaves behind would keep a pipe open. That process is ended too.
    """
    variables = {
        **os.environ,
        **(environment or {}),
        "PYTHONPATH": str(source_dir),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with TemporaryFile() as given, TemporaryFile() as answer, TemporaryFile() as said:
        given.write(text.encode())
        given.seek(0)
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=given,
            stdout=answer,
            stderr=said,
            cwd=source_dir,
            env=variables,
            start_new_session=True,
        )
        try:
            code = _wait(process, seconds, waiting)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return Run(code, _end(answer), _end(said))


def _wait(process: subprocess.Popen[bytes], seconds: float, waiting: str) -> int:
    if waiting and seconds > PATIENCE:
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(PATIENCE)
        print(waiting, flush=True)
        seconds -= PATIENCE
    return process.wait(seconds)


def _end(file: IO[bytes], most: int = 1_000_000) -> str:
    """The last bytes of a file, as text."""
    file.seek(max(0, file.seek(0, os.SEEK_END) - most))
    return file.read().decode(errors="replace").strip()
