"""Show a run while it goes on: the notebooks, their jobs, the steps, and the time that is left by the last run's times."""

import heapq
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
class Running:
    """A notebook at one moment. `last` has the moments of its last run (times.py), or None; `home` is its endpoint's."""

    name: str
    number: int  # from 1
    last: list[float] | None
    started: datetime
    home: Path
    jobs: list[Job] = field(default_factory=list)

    def left(self, time: datetime) -> float | None:
        """Seconds that it still takes; None on its first run."""
        if not self.last:
            return None
        return seconds_left(
            self.last, moments(self.started, self.jobs), (time - self.started).total_seconds()
        )


@dataclass
class Now:
    """What is known at one moment of a run. `last` has the moments of each notebook's last run, or None.

    `waiting` are those that have not begun, in their turn; `at_once` may run side by side.
    """

    names: list[str]
    last: list[list[float] | None]
    started: datetime
    at_once: int
    waiting: list[int]
    running: dict[int, Running] = field(default_factory=dict)

    def run_left(self, time: datetime) -> float | None:
        """Seconds that the whole run still takes; None as long as one of its notebooks has never run.

        Each of those that wait begins when the first of those before it ends.
        """
        ends = [notebook.left(time) for notebook in self.running.values()]
        following = [last[-1] if last else None for last in (self.last[number] for number in self.waiting)]
        known = [end for end in ends if end is not None]
        to_come = [seconds for seconds in following if seconds is not None]
        if len(known) < len(ends) or len(to_come) < len(following):
            return None
        known += [0.0] * (self.at_once - len(known))
        heapq.heapify(known)
        for seconds in to_come:
            heapq.heapreplace(known, known[0] + seconds)
        return max(known)


def block(now: Now, time: datetime, columns: int, ascii_only: bool = False) -> list[str]:
    """The lines that a terminal shows, at most `columns` - 1 wide where they hold a bar."""
    lines = []
    for notebook in now.running.values():
        lines += _notebook_lines(notebook, len(now.names), time, columns, ascii_only)
    return [*lines, f"{'whole run':17}" + _time_text(time - now.started, now.run_left(time))]


def _notebook_lines(
    notebook: Running, of_notebooks: int, time: datetime, columns: int, ascii_only: bool
) -> list[str]:
    lines = [f"notebook {notebook.number} of {of_notebooks}  {notebook.name}: "]
    lines[0] += _time_text(time - notebook.started, notebook.left(time))
    if not notebook.jobs:
        return [*lines, f"{'job':17}none yet"]
    job, last = notebook.jobs[-1], notebook.last
    of = f" of {(len(last) - 2) // 2}" if last and len(last) > 2 else ""
    state = job.status if job.is_over else job.phase
    lines.append(
        f"job {len(notebook.jobs)}{of}".ljust(17) + f"{job.label}: {state}, {in_words(job.seconds(time))}"
    )
    if job.steps:
        done = f"{'training steps':17}{job.step}/{job.steps}{_measure(job)}  "
        width = min(columns - 1 - len(done), 40)
        bar = tqdm.format_meter(job.step, job.steps, 0, bar_format="{bar}", ncols=width, ascii=ascii_only)
        lines.append(done + bar)
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
    """Looks at the endpoints' files once a second, in a thread of its own, from `with` to its end.

    `order` has the notebooks' numbers, from 0, in the order in which they begin.
    """

    def __init__(
        self,
        names: list[str],
        last: list[list[float] | None],
        order: list[int],
        at_once: int = 1,
        out: TextIO | None = None,
    ) -> None:
        self.now = Now(names, last, datetime.now(UTC), at_once, order)
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

    def begin(self, number: int, log: Path, home: Path) -> datetime:
        """The notebook of that number begins, its jobs on the endpoint of `home`; returns when."""
        name, last = self.now.names[number], self.now.last[number]
        notebook = Running(name, number + 1, last, datetime.now(UTC), home)
        with self._lock:
            self.now.waiting = [waiting for waiting in self.now.waiting if waiting != number]
            self.now.running[number] = notebook
        before = (
            f"the last time it took {in_words(last[-1])}"
            if last
            else "its first run here: how long it takes is not known"
        )
        self._screen.say(f"{name}: notebook {number + 1} of {len(self.now.names)}; {before}")
        self._screen.say(f"{name}: what its cells print is in {_from_here(log)}", may_be_left_out=True)
        return notebook.started

    def end(self, number: int, failed: bool) -> list[float]:
        """That notebook has ended; returns its moments."""
        with self._lock:
            notebook = self.now.running.pop(number)
            self._look(notebook)
        if not self.now.running:
            self._screen.show([])
        took = (datetime.now(UTC) - notebook.started).total_seconds()
        self._screen.say(f"{notebook.name}: {'FAILED' if failed else 'done'} after {in_words(took)}")
        return [*moments(notebook.started, notebook.jobs), round(took, 1)]

    def _look_on(self) -> None:
        while not self._done.wait(LOOK_S):
            with self._lock:
                for notebook in self.now.running.values():
                    self._look(notebook)
                if self.now.running:
                    self._screen.show(block(self.now, datetime.now(UTC), self._screen.columns, self._ascii))

    def _look(self, notebook: Running) -> None:
        """Read its jobs, and say what has happened to them."""
        notebook.jobs = read_jobs(notebook.home, notebook.started, known=notebook.jobs)
        time = datetime.now(UTC)
        for number, job in enumerate(notebook.jobs, 1):
            name = f"{notebook.name}: job {number}, {job.label}"
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
