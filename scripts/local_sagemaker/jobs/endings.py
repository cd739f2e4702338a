"""What ended a job that could not say it itself, for the FailureReason: a signal, or a full disk.

A launcher reports it at the end of a long traceback of its own, and the SDK's driver writes another one into the failure
file, of which FailureReason has the first 1,024 characters.
"""

import re
import signal
from collections.abc import Iterable
from pathlib import Path

from local_sagemaker import disk

_CAUSES = {
    "SIGKILL": "most likely the machine ran out of memory, or somebody ended it",
    "SIGSEGV": "it crashed in compiled code",
    "SIGABRT": "compiled code gave up; the lines before say why",
    "SIGBUS": "shared memory (/dev/shm) or a disk is full",
    "SIGILL": "it holds instructions that this processor does not know",
    "SIGTERM": "somebody asked it to end",
}
# torchrun's summary of its processes, and its mark before the one that failed first.
_EXIT_CODE = re.compile(r"exitcode\s*: -(?P<number>\d+) \(pid: (?P<pid>\d+)\)")
_FIRST = "Root Cause (first observed failure)"
_REPORTS = (
    _EXIT_CODE,
    # a driver, of what it has started
    re.compile(r"died with <Signals\.(?P<name>SIG\w+): \d+>"),
    # torchrun, or accelerate's launcher, of itself
    re.compile(r"SignalException: Process (?P<pid>\d+) got signal: (?P<number>\d+)"),
)
_SAID = "No space left on /"  # the first words of scripts/job/failure.py
SPACE_LINES = 80  # a traceback with its causes; what was said earlier did not end the job
_MEMORY_MONITOR = re.compile(
    r"(killed due to memory pressure|Ray killed this worker|node was running low on memory)"
)


def ended_by_signal(lines: Iterable[str], exit_code: int) -> str | None:
    """The sentence about the process that a signal ended, out of the log's lines; None if none was.

    Where torchrun lists it, SIGTERM counts for the process that failed first alone: with it a launcher ends the others.

    Args:
        exit_code: of the host. Where a signal ended the script itself it is 128 more (a shell's), or 256 less it (what is
            left of the negative number with which the SDK's driver exits); where one ended the host's own process, negative.
    """
    found, first = None, False
    for line in lines:
        first = first or _FIRST in line
        if _MEMORY_MONITOR.search(line):
            return (
                "Ray ended a process because the machine ran out of memory; the log says how much each held."
            )
        for match in filter(None, (report.search(line) for report in _REPORTS)):
            named = match.groupdict()
            name = named.get("name") or _name(int(named["number"]))
            if name and (name != "SIGTERM" or first or match.re is not _EXIT_CODE):
                found = _sentence(f"process {named['pid']}" if "pid" in named else "a process", name)
    who, number = ("the host", -exit_code) if exit_code < 0 else ("the script", exit_code - 128)
    name = _name(number) or _name(256 - exit_code)
    if found is None and name and name in _CAUSES.keys() - {"SIGTERM"}:
        found = _sentence(who, name)
    return found


def out_of_space(lines: Iterable[str], text: str, folder: Path) -> str | None:
    """The sentence about a full disk, if the job failed for one and its failure file does not begin with it.

    Args:
        lines: of the log, where a script says it whose failure file found no space either.
        text: of the failure file, or what stands for it.
        folder: of the host, with all that it writes.
    """
    if text.startswith(_SAID):
        return None
    last = list(lines)[-SPACE_LINES:]
    for line in last:
        if _SAID in line:  # the script knows which disk it is
            return line[line.index(_SAID) :]
    if any(disk.WORDS.search(line) for line in (*last, text)):
        places = [folder / "tmp", folder / "ml", *(folder / "ml").iterdir()]
        return disk.sentence(*(place for place in places if place.is_dir()))
    return None


def _name(number: int) -> str | None:
    return (
        signal.Signals(number).name if number in signal.valid_signals() and number < signal.SIGRTMIN else None
    )


def _sentence(who: str, name: str) -> str:
    return f"{name} ended {who}: {_CAUSES.get(name, 'it did not end by itself')}."
