"""Run pip, pass on what a reader wants to know of its output, and end it with this process.

Standard library only.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

HEARTBEAT_SECONDS = 10.0

# Settings of the caller's shell that would make pip install somewhere else, or Python import something else.
LEAKING_VARIABLES = (
    "PIP_PREFIX",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "VIRTUAL_ENV",
)

Log = Callable[[str], None]


class EnvironmentBuildError(RuntimeError):
    """An environment could not be built; the message says why and what to do."""


def run_pip(command: list[str], cwd: Path, log: Log | None, lock: int) -> None:
    """Run a pip command, passing what a reader wants to know of its output to `log` (None: nothing).

    pip keeps the file descriptor `lock` open, so that a builder's lock is held as long as its pip lives, and is
    ended with everything it started when this process is interrupted. Raises EnvironmentBuildError with pip's own
    reason and its last lines.
    """
    settings = {key: value for key, value in os.environ.items() if key not in LEAKING_VARIABLES}
    settings.update(PIP_NO_INPUT="1", PIP_DISABLE_PIP_VERSION_CHECK="1")
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # one group with the build tools that pip starts
        pass_fds=(lock,),  # a pip that outlives a killed builder keeps the next builder waiting
    )
    last: deque[str] = deque(maxlen=15)
    errors = []
    spoken = time.monotonic()
    try:
        for line in process.stdout or ():
            line = line.rstrip()
            if not line or "neither a file nor a directory" in line:
                continue
            last.append(line)
            if line.startswith("ERROR:"):
                errors.append(line)
            waited = time.monotonic() - spoken > HEARTBEAT_SECONDS
            progress = _progress(line, waited)
            if progress and log:
                log(progress)
                spoken = time.monotonic()
        code = process.wait()
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise
    if code:
        cause = errors[-1] if errors else f"pip ended with exit code {code}"
        tail = "\n".join(last)
        raise EnvironmentBuildError(
            f"{cause}\nCheck the names and versions in the requirements file and the network. pip's last lines:\n{tail}"
        )


def _progress(line: str, waited: bool) -> str | None:
    """What a reader wants to know of one line of pip's output: big downloads, the size of the set, errors."""
    download = re.match(r"\s*Downloading (\S+) \(([\d.]+ [MG]B)\)", line)
    if download:
        return f"  downloading {download.group(1).rsplit('/', 1)[-1]} ({download.group(2)})"
    if line.startswith("Installing collected packages:"):
        return f"  installing {line.count(',') + 1} packages"
    if line.startswith("ERROR:"):
        return f"  {line}"
    collecting = re.match(r"Collecting (\S+)", line)
    if collecting and waited:
        return f"  resolving, now at {collecting.group(1)}"
    return None
