"""How long a notebook took the last time, and from that, how long it has still to go.

A run's moments are the seconds at which it began (0), each of its jobs was created and ended, and it ended itself. Now
and last time are laid side by side at the last moment that both have, so that a slower machine shows at the next one.
"""

import json
from datetime import datetime
from pathlib import Path

from local_sagemaker.home import file_lock, write_json

from runs.jobs import Job

FILE = "run_times.json"  # {notebook and its parameters: moments}, below the output folder


def moments(started: datetime, jobs: list[Job]) -> list[float]:
    """The moments so far, in seconds."""
    times = [job.created for job in jobs] + [job.ended for job in jobs if job.ended]
    return [0.0, *sorted(round((time - started).total_seconds(), 1) for time in times)]


def seconds_left(last: list[float], so_far: list[float], elapsed: float) -> float:
    """What `last` says is still to come after `elapsed` seconds; 0 if it took as long already."""
    here = min(len(so_far), len(last)) - 1
    following = last[min(here + 1, len(last) - 1)]
    position = min(last[here] + elapsed - so_far[here], following)
    return max(0.0, last[-1] - position)


def run_key(notebook: str, parameters: dict[str, object]) -> str:
    """Runs that take as long as each other: the same notebook with the same parameters."""
    return " ".join([notebook, *(f"{name}={value}" for name, value in sorted(parameters.items()))])


def read_times(output: Path) -> dict[str, list[float]]:
    """The moments of the last complete runs; none before the first, or where the file is not what was written here."""
    try:
        times = json.loads((output / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, ValueError):
        return {}
    return times if isinstance(times, dict) else {}


def keep_times(output: Path, key: str, complete: list[float]) -> None:
    """Remember the moments of a run that went to its end; several runs may do so at once."""
    with file_lock(output / f"{FILE}.lock"):
        write_json(output / FILE, read_times(output) | {key: complete})


def in_words(seconds: float) -> str:
    """ "45 s", "4 min 05 s", "1 h 10 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
