"""Jobs that are forked by an import server (import_server.py), one of which each interpreter of a test session has."""

import atexit
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from job_variables import SHARED, job_variables

_START_S = 120


@dataclass(frozen=True)
class Preload:
    """What an import server imports for its jobs, and where it finds it."""

    python: Path
    modules: tuple[str, ...] = (
        "torch",
        "transformers",
        "datasets",
        "accelerate",
        "peft",
        "trl",
        "mlflow",
        "wandb",
    )
    path: tuple[Path, ...] = (SHARED,)


@dataclass(frozen=True)
class Ranks:
    """The processes of a job on one host."""

    processes: int
    host_rank: int
    hosts: int
    port: int  # where all of them meet


@dataclass(frozen=True)
class Command:
    """A script and what it is started with."""

    script: Path
    arguments: Sequence[str]
    variables: Mapping[str, str]
    folder: Path
    log: Path
    ranks: Ranks | None = None  # several processes that find one another


class ForkedJob:
    """What subprocess.Popen offers of a process that it did not start itself."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection, self._lines = connection, connection.makefile("rb", buffering=0)
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, None as long as it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            line = self._lines.readline()  # empty if it was killed
            self.returncode = int(line) if line else -signal.SIGKILL
            self._connection.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        if self.returncode is None and not select.select([self._connection], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("a forked job", timeout or 0)
        return self.poll()

    def send_signal(self, number: int) -> None:
        """To the first process of the job; nothing if it has ended."""
        if self.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Ends the first process of the job at once."""
        self.send_signal(signal.SIGKILL)


def fork_job(preload: Preload, command: Command) -> ForkedJob:
    """Starts a command as a fork of the process that has the libraries."""
    sys.audit("forked_jobs.fork_job", str(command.script))  # conftest.py asks for the test's marker
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server(preload))
    connection.sendall(json.dumps(asdict(command), default=str).encode() + b"\n")
    return ForkedJob(connection)


@functools.cache
def _server(preload: Preload) -> str:
    """The address of an import server, which is started for the first of its jobs."""
    folder = tempfile.mkdtemp(prefix="import-server-")
    address = os.path.join(folder, "socket")
    server = subprocess.Popen(
        [str(preload.python), str(Path(__file__).with_name("import_server.py")), address, *preload.modules],
        env={**job_variables(), "PYTHONPATH": os.pathsep.join(map(str, preload.path))},
        stdin=subprocess.PIPE,  # closed when these tests end, however they do: then the server ends, too
        cwd=folder,  # Unsloth leaves something there
        start_new_session=True,
    )
    atexit.register(server.communicate)  # which closes its input, and so ends it
    deadline = time.monotonic() + _START_S
    while not os.path.exists(address):
        assert server.poll() is None, f"{preload}: see its output above"
        assert time.monotonic() < deadline, f"{preload} was not imported in {_START_S} s"
        time.sleep(0.05)
    return address
