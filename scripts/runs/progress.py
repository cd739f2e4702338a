"""Show a run while it goes on: the notebook, the job, its steps, and the time that is left by the last run's times."""

import sys
import threading
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self, TextIO

from tqdm import tqdm

from runs.jobs import Job, read_jobs
from runs.screen import Screen
from runs.times import in_words, moments, seconds_left

LOOK_S = 1.0
STEPS_S = 60.0  # between two lines about one job's steps, in a log
_SHOWN = ("reward", "loss")  # the first of them that a job logs


@dataclass
class Now:
    """What is known at one moment of a run. `last` has the moments of each notebook's last run (times.py), or None."""

    names: list[str]
    last: list[list[float] | None]
    started: datetime
    number: int = -1  # of the notebook, from 0
    notebook_started: datetime | None = None
    jobs: list[Job] = field(default_factory=list)

    def notebook_left(self, time: datetime) -> float | None:
        """Seconds that the present notebook still takes; None on its first run."""
        last = self.last[self.number]
        if not last or not self.notebook_started:
            return None
        elapsed = (time - self.notebook_started).total_seconds()
        return seconds_left(last, moments(self.notebook_started, self.jobs), elapsed)

    def run_left(self, time: datetime) -> float | None:
        """Seconds that the whole run still takes; None as long as one of its notebooks has never run."""
        following = [last[-1] if last else None for last in self.last[self.number + 1 :]]
        parts = [self.notebook_left(time), *following]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None


def block(now: Now, time: datetime, columns: int, ascii_only: bool = False) -> list[str]:
    """The lines that a terminal shows, at most `columns` - 1 wide where they hold a bar."""
    assert now.notebook_started
    lines = [f"notebook {now.number + 1} of {len(now.names)}  {now.names[now.number]}: "]
    lines[0] += _time_text(time - now.notebook_started, now.notebook_left(time))
    if now.jobs:
        job, last = now.jobs[-1], now.last[now.number]
        of = f" of {(len(last) - 2) // 2}" if last and len(last) > 2 else ""
        state = job.status if job.is_over else job.phase
        lines.append(
            f"job {len(now.jobs)}{of}".ljust(17) + f"{job.label}: {state}, {in_words(job.seconds(time))}"
        )
        if job.steps:
            done = f"{'training steps':17}{job.step}/{job.steps}{_measure(job)}  "
            bar = tqdm.format_meter(
                job.step,
                job.steps,
                0,
                bar_format="{bar}",
                ncols=min(columns - 1 - len(done), 40),
                ascii=ascii_only,
            )
            lines.append(done + bar)
    else:
        lines.append(f"{'job':17}none yet")
    lines.append(f"{'whole run':17}" + _time_text(time - now.started, now.run_left(time)))
    return lines


def _time_text(elapsed: timedelta, left: float | None) -> str:
    text = in_words(elapsed.total_seconds())
    if left is None:
        return f"{text} so far"
    return f"{text}, about {in_words(left)} left" if left >= 1 else f"{text}, longer than the last time"


def _from_here(path: Path) -> Path:
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


def _measure(job: Job) -> str:
    """ ", reward 0.83": the newest value of what it optimizes."""
    for name in _SHOWN:
        values = [entry[name] for entry in job.history if name in entry]
        if values:
            return f", {name} {values[-1]:.3g}"
    return ""


class Progress:
    """Looks at the endpoint's files once a second, in a thread of its own, from `with` to its end."""

    def __init__(
        self, names: list[str], last: list[list[float] | None], home: Path, out: TextIO | None = None
    ) -> None:
        self.now = Now(names, last, datetime.now(UTC))
        self._home = home
        self._screen = Screen(out or sys.stdout)
        self._ascii = (getattr(out or sys.stdout, "encoding", "") or "").lower().replace("-", "") != "utf8"
        self._done = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._look_on, name="progress", daemon=True)
        self._told: dict[str, str] = {}  # job -> the last thing that was said of it
        self._steps_told: dict[str, datetime] = {}

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()
        self._screen.show([])

    def begin(self, number: int, log: Path) -> datetime:
        """The notebook of that number begins; returns when."""
        with self._lock:
            self.now.number, self.now.notebook_started, self.now.jobs = number, datetime.now(UTC), []
        last = self.now.last[number]
        before = (
            f"the last time it took {in_words(last[-1])}"
            if last
            else "its first run here: how long it takes is not known"
        )
        self._screen.say(
            f"{self.now.names[number]}: notebook {number + 1} of {len(self.now.names)}; {before}"
        )
        self._screen.say(
            f"{self.now.names[number]}: what its cells print is in {_from_here(log)}", may_be_left_out=True
        )
        return self.now.notebook_started

    def end(self, failed: bool) -> list[float]:
        """The present notebook has ended; returns its moments."""
        with self._lock:
            self._look()
            started, jobs = self.now.notebook_started, self.now.jobs
            assert started
            self.now.notebook_started = None
        self._screen.show([])
        took = (datetime.now(UTC) - started).total_seconds()
        self._screen.say(
            f"{self.now.names[self.now.number]}: {'FAILED' if failed else 'done'} after {in_words(took)}"
        )
        return [*moments(started, jobs), round(took, 1)]

    def _look_on(self) -> None:
        while not self._done.wait(LOOK_S):
            with self._lock:
                if self.now.notebook_started:
                    self._look()
                    self._screen.show(block(self.now, datetime.now(UTC), self._screen.columns, self._ascii))

    def _look(self) -> None:
        """Read the jobs, and say what has happened to them."""
        assert self.now.notebook_started
        self.now.jobs = read_jobs(self._home, self.now.notebook_started, known=self.now.jobs)
        time, notebook = datetime.now(UTC), self.now.names[self.now.number]
        for number, job in enumerate(self.now.jobs, 1):
            name = f"{notebook}: job {number}, {job.label}"
            if job.name not in self._told:
                self._told[job.name], self._steps_told[job.name] = "InProgress", time
                if not self._screen.rewrites:  # the block shows it
                    self._screen.say(f"{name}: starts", may_be_left_out=True)
            waited = (time - self._steps_told[job.name]).total_seconds()
            if job.is_over and self._told[job.name] != job.status:
                reason = f": {' '.join(job.failure_reason.split())[:200]}" if job.failure_reason else ""
                took = in_words(job.seconds(time))
                self._screen.say(f"{name}: {job.status} after {took}{_measure(job)}{reason}")
            elif not job.is_over and not self._screen.rewrites and waited >= STEPS_S:
                self._steps_told[job.name] = time
                steps = f"step {job.step} of {job.steps}{_measure(job)}" if job.steps else job.phase
                left = self.now.run_left(time)
                to_come = f"; the run: about {in_words(left)} left" if left is not None else ""
                self._screen.say(f"{name}: {steps}{to_come}")
            self._told[job.name] = job.status
