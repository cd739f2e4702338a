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

MODULES = ["torch", "transformers", "datasets", "accelerate", "peft", "trl", "mlflow", "wandb"]
_START_S = 120


@dataclass(frozen=True)
class Ranks:
    """The processes of a job on one host."""

    processes: int
    host_rank: int
    hosts: int
    port: int  # where all of them meet


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


def forks(python: Path) -> bool:
    """Whether this interpreter's jobs may be forked: macOS and its libraries do not stand it."""
    return sys.platform == "linux" and Path(python) == Path(sys.executable)


def fork_job(
    python: Path,
    script: Path,
    arguments: Sequence[str],
    *,
    variables: Mapping[str, str],
    folder: Path,
    log: Path,
    ranks: Ranks | None,
) -> ForkedJob:
    """Starts `script`, in several processes that find one another if there are `ranks`."""
    request = {"script": str(script), "arguments": list(arguments), "variables": dict(variables)}
    request |= {"folder": str(folder), "log": str(log), "ranks": ranks and asdict(ranks)}
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_server(python, variables["PYTHONPATH"].split(os.pathsep)[-1]))
    connection.sendall(json.dumps(request).encode() + b"\n")
    return ForkedJob(connection)


@functools.cache
def _server(python: Path, shared: str) -> str:
    """The address of the interpreter's import server, which is started for the first of its jobs."""
    address = os.path.join(tempfile.mkdtemp(prefix="import-server-"), "socket")
    server = subprocess.Popen(
        [str(python), str(Path(__file__).with_name("import_server.py")), address, *MODULES],
        env={**os.environ, "PYTHONPATH": shared, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        start_new_session=True,
    )
    atexit.register(server.kill)
    deadline = time.monotonic() + _START_S
    while not os.path.exists(address):
        assert server.poll() is None, f"{python} {' '.join(MODULES)}: see its output above"
        assert time.monotonic() < deadline, f"{python} did not import its libraries in {_START_S} s"
        time.sleep(0.05)
    return address
