"""Run uv or pip, pass on what a reader wants to know of its output, and end it with this process.

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

from local_sagemaker.secret_names import without_secrets

HEARTBEAT_SECONDS = 10.0

# Settings of the caller's shell that would make them install somewhere else, or Python import something else.
LEAKING_VARIABLES = (
    "PIP_PREFIX",
    "PIP_REQUIRE_VIRTUALENV",
    "PIP_ROOT",
    "PIP_TARGET",
    "PIP_USER",
    "PYTHONHOME",
    "PYTHONPATH",
    "UV_PREFIX",
    "UV_SYSTEM_PYTHON",
    "UV_TARGET",
    "VIRTUAL_ENV",
)

Log = Callable[[str], None]


class EnvironmentBuildError(RuntimeError):
    """An environment could not be built; the message says why and what to do."""


def run_installer(
    command: list[str], cwd: Path, log: Log | None, lock: int, settings: dict[str, str] | None = None
) -> None:
    """Run a command of uv or pip, passing what a reader wants to know of its output to `log` (None: nothing).

    It keeps the file descriptor `lock` open, so that a builder's lock is held as long as its installer lives, and is
    ended with everything it started when this process is interrupted. `settings` are variables that it gets besides.
    Raises EnvironmentBuildError with the installer's own reason and its last lines.
    """
    # What a package's build runs is its author's: it gets none of the user's keys.
    variables = {
        key: value for key, value in without_secrets(os.environ).items() if key not in LEAKING_VARIABLES
    }
    variables |= {"PIP_NO_INPUT": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1", **(settings or {})}
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,  # one group with the build tools that it starts
        pass_fds=(lock,),  # one that outlives a killed builder keeps the next builder waiting
    )
    last: deque[str] = deque(maxlen=15)
    spoken = time.monotonic()
    try:
        for line in process.stdout or ():
            line = line.rstrip()
            if not line or "neither a file nor a directory" in line:
                continue
            last.append(line)
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
        cause = _cause(list(last)) or f"the installer ended with exit code {code}"
        tail = "\n".join(last)
        raise EnvironmentBuildError(
            f"{cause}\nCheck the names and versions in the requirements file and the network. The installer's last "
            f"lines:\n{tail}"
        )


def _cause(lines: list[str]) -> str | None:
    """pip's last line that begins with ERROR:, or uv's error and its causes, a line each."""
    errors = [line for line in lines if line.startswith("ERROR:")]
    if errors:
        return errors[-1]
    begins = [number for number, line in enumerate(lines) if line.startswith("error:")]
    if begins:
        return " ".join(" ".join(lines[begins[0] :]).split()).replace(" cause:", ":")
    return None


def _progress(line: str, waited: bool) -> str | None:
    """What a reader wants to know of one line of output: big downloads, the size of the set, errors."""
    download = re.match(r"\s*Downloading (\S+) \((\d{2,}[\d.]* ?[MG]i?B|[\d.]+ ?Gi?B)\)", line)
    if download:
        return f"  downloading {download.group(1).rsplit('/', 1)[-1]} ({download.group(2)})"
    if line.startswith("Installing collected packages:"):
        return f"  installing {line.count(',') + 1} packages"
    if re.match(r"(Resolved|Installed) \d+ packages?|ERROR:|error:", line):
        return f"  {line.strip()}"
    collecting = re.match(r"Collecting (\S+)|\s+Building (\S+)", line)
    if collecting and waited:
        return f"  resolving, now at {collecting.group(1) or collecting.group(2)}"
    return None
