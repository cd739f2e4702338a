"""Processes of jobs whose endpoint has ended: normally there are none, since each host's supervisor ends them (supervisor.py).

Where the supervisor was killed too, they are found by what they were started with, and ended one by one.
"""

import os
import signal
import time
from pathlib import Path

from local_sagemaker.home import note

WAIT_S = 10.0


def end_leftovers(folders: list[Path]) -> None:
    """SIGKILL to every process of the jobs with these folders; returns once they are gone. On Linux only.

    A process is held by a descriptor (pidfd_open(2)) before it is looked at, so that a process which has got the same id
    since is never the one that is ended.
    """
    if not folders or not hasattr(os, "pidfd_open"):
        return
    wanted = [_mark(folder) for folder in folders]
    deadline = time.monotonic() + WAIT_S
    while ended := [
        entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit() and _end(entry, wanted)
    ]:
        note(f"Ended processes of jobs whose endpoint is gone: {', '.join(ended)}")
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)


def _mark(folder: Path) -> tuple[bytes, bytes]:
    """Two variables of every process of a job (hosts.py): its name, and the beginning of its home."""
    return f"TRAINING_JOB_NAME={folder.name}".encode(), f"HOME={folder}/attempt-".encode()


def _end(process: Path, wanted: list[tuple[bytes, bytes]]) -> bool:
    """Kill the process if it is one of those; whether it was."""
    try:
        handle = os.pidfd_open(int(process.name))
    except OSError:
        return False  # it has ended
    try:
        variables = (process / "environ").read_bytes().split(b"\0")  # empty for one that has ended
        if not any(
            name in variables and any(variable.startswith(home) for variable in variables)
            for name, home in wanted
        ):
            return False
        signal.pidfd_send_signal(handle, signal.SIGKILL)
        return True
    except OSError:
        return False  # another user's, or it has just ended
    finally:
        os.close(handle)
