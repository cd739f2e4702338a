"""The processes of a job on the local endpoint, as /proc shows them: who is who, who is left. Linux only."""

import os
import signal
import time
from pathlib import Path

from local_sagemaker.client import Endpoint

from kills.cases import DRIVER, ENDPOINT, HOST, LAUNCHER, MAIN, OTHER

GONE_S = 15.0  # that a process may take to end


def of_job(name: str) -> dict[int, tuple[str, dict[str, str]]]:
    """Command line and first environment of each process of the job, by its id."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                variables = (entry / "environ").read_bytes()
                if f"TRAINING_JOB_NAME={name}\0".encode() in variables:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                    pairs = (item.partition("=") for item in variables.decode(errors="replace").split("\0"))
                    found[int(entry.name)] = command.strip(), {key: value for key, _, value in pairs}
            except OSError:
                continue  # it has ended
    return found


def victim(name: str, whom: str, module: str, endpoint: Endpoint) -> int | None:
    """The process id; None while there is no such process."""
    if whom == ENDPOINT:
        return endpoint.pid
    is_it = {
        HOST: lambda command, variables: "supervisor.py" in command,
        DRIVER: lambda command, variables: "_driver.py" in command,
        LAUNCHER: lambda command, variables: "torchrun" in command or "accelerate launch" in command,
        MAIN: lambda command, variables: _is_script(command) and variables.get("RANK", "0") == "0",
        OTHER: lambda command, variables: _is_script(command) and variables.get("RANK") == "1",
    }[whom]
    if module == "05" and whom == OTHER:
        is_it = lambda command, variables: command.startswith("ray::WorkerDict")  # noqa: E731
    found = [pid for pid, (command, variables) in of_job(name).items() if is_it(command, variables)]
    return min(found, default=None)


def _is_script(command: str) -> bool:
    words = command.split()
    return "train.py" in [Path(word).name for word in words[:4]] and "python" in Path(words[0]).name


def send(pid: int, name: str) -> None:
    """SIGKILL or SIGTERM, by its short name."""
    os.kill(pid, signal.Signals[f"SIG{name}"])


def left_over(name: str) -> list[str]:
    """Processes of the job that have not ended in time."""
    deadline = time.monotonic() + GONE_S
    while (found := of_job(name)) and time.monotonic() < deadline:
        time.sleep(0.2)
    return [f"process {pid} runs on: {command[:80]}" for pid, (command, _) in found.items()]
