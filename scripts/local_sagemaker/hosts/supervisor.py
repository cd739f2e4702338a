"""Runs one host's command, and ends everything it started when the endpoint ends, however that happens.

Standard library only, run as `python -I supervisor.py {direct|wrapped} COMMAND...`. The endpoint holds the
other end of standard input: the line "terminate" asks for a SIGTERM as a container gets it, end of file
(which also happens when the endpoint is killed) kills every process of the host. `wrapped` says that the
container's first process is the child of COMMAND (unshare, proot) rather than COMMAND itself.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

LINUX = sys.platform == "linux"
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36  # <linux/prctl.h>
KILLED = 128 + signal.SIGKILL


def prctl(option: int, value: int) -> None:
    """Linux's prctl(2), which Python does not offer; nothing elsewhere."""
    if LINUX:
        ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0)


def descendants() -> list[int]:
    """Process ids below this one. Those that daemonised are here too: this process is their subreaper."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                after_name = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue  # it ended while we looked
            if after_name[0] != "Z":
                children.setdefault(int(after_name[1]), []).append(int(entry.name))
    found, ahead = [], [os.getpid()]
    while ahead:
        below = children.get(ahead.pop(), [])
        found += below
        ahead += below
    return found


def kill_everything(main: int) -> None:
    """SIGKILL to all descendants until there are none (elsewhere than on Linux: to the process group of `main`)."""
    if not LINUX:
        _send(-main, signal.SIGKILL)  # no subreaper there: the process group is the best there is
        return
    while remaining := descendants():  # again, for what was forked in between
        for pid in remaining:
            _send(pid, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:  # whoever looks the processes up by id must not find zombies
            pass


def terminate(main: int, wrapped: bool) -> None:
    """SIGTERM as `docker stop` sends it: to process 1 alone, which ignores it unless it has a handler.

    The kernel gives only a real process 1 this rule, so without a pid namespace it is applied here: bash, as
    the SDK starts it, never forwards SIGTERM to the training script (sagemaker-training-toolkit #125).
    """
    if wrapped:
        below = Path(f"/proc/{main}/task/{main}/children").read_text().split()
        if not below:
            return
        main = int(below[0])
    if handles_sigterm(main):
        _send(main, signal.SIGTERM)


def handles_sigterm(pid: int) -> bool:
    """Whether the process has a handler for SIGTERM (the mask SigCgt of proc(5))."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next(line for line in status.splitlines() if line.startswith("SigCgt:"))
    return bool(int(caught.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def _send(pid: int, number: int) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        pass


def carry_out_orders(main: int, wrapped: bool) -> None:
    """Wait for the endpoint's orders; when it closes the pipe, kill everything and end this process."""
    while line := os.read(0, 64):
        if b"terminate" in line:
            terminate(main, wrapped)
    kill_everything(main)
    os._exit(KILLED)


def main() -> int:
    wrapped, command = sys.argv[1] == "wrapped", sys.argv[2:]
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL),
    )
    threading.Thread(target=carry_out_orders, args=(child.pid, wrapped), daemon=True).start()
    try:
        while (ended := os.wait())[0] != child.pid:
            pass  # an adopted orphan
    except ChildProcessError:  # the other thread is killing and reaping everything at this moment
        return KILLED
    status = ended[1]
    kill_everything(child.pid)  # a container ends with its first process
    return os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


if __name__ == "__main__":
    sys.exit(main())
