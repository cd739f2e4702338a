"""Where each of verl's processes is: their Python stacks, in the job's log. For a training that makes no step any more.

A process that imports verl listens for a signal (verl_hub). Whoever wants to know sends it to all of Ray's actors, on every
host; Ray brings what they write to the log. On Linux, which says of each process whether it listens: others would die of it.
"""

import faulthandler
import os
import signal
from pathlib import Path

import ray
from job.container import print_line
from verl_hosts import on_host

SIGNAL = signal.SIGUSR1
PATIENCE_S = 20.0


def listen() -> None:
    """From now on this process writes its stacks when it is asked."""
    faulthandler.register(SIGNAL, all_threads=True)


def ask_all() -> None:
    """Has all living actors write their stacks; returns soon, also where Ray does not answer."""
    pids: dict[str, list[int]] = {}
    for actor in ray._private.state.actors().values():
        if actor["State"] == "ALIVE":
            pids.setdefault(actor["Address"]["NodeID"], []).append(actor["Pid"])
    asked = [on_host(host, ask, found) for host, found in pids.items()]
    done, silent = ray.wait(asked, num_returns=len(asked), timeout=PATIENCE_S) if asked else ([], [])
    print_line(
        f"Stacks of {sum(ray.get(done))} processes on {len(done)} hosts follow; {len(silent)} hosts are silent."
    )


def ask(pids: list[int]) -> int:
    """Signals those of this host's processes that listen; says how many."""
    listening = [pid for pid in pids if pid != os.getpid() and _listens(pid)]
    for pid in listening:
        os.kill(pid, SIGNAL)
    return len(listening)


def _listens(pid: int) -> bool:
    """Whether a process catches the signal (proc(5): SigCgt, a bit mask in hexadecimal)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False
    caught = next((line.split()[1] for line in status.splitlines() if line.startswith("SigCgt:")), "0")
    return bool(int(caught, 16) >> (SIGNAL - 1) & 1)
