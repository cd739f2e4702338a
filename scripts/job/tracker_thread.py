"""A tracker in a thread of its own: whatever becomes of its server, the training goes on at its pace, and ends.

What is sent waits in a queue. A call that fails is lost, and the next one is tried after a pause, which grows: a server that
comes back gets all that has waited. A run that could not be opened is not tried again. The job itself waits for a tracker
twice, when its run is opened and when it is closed, and at most JOB_TRACKING_SECONDS each time (default 60). All metrics are in
the job's own history.jsonl in any case.
"""

import os
import queue
import threading
from collections.abc import Callable

from job.container import print_line
from job.record import NotTracked

VARIABLE = "JOB_TRACKING_SECONDS"
PATIENCE_S = 60.0
FIRST_PAUSE_S = 15.0
LONGEST_PAUSE_S = 300.0
_LONGEST_REASON = 300  # characters


def patience() -> float:
    """Seconds that the job waits for a tracker at its start and at its end.

    Raises:
        ValueError: the variable is no positive number.
    """
    text = os.environ.get(VARIABLE) or str(PATIENCE_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ValueError(f"{VARIABLE} is {text!r}: write a number of seconds, such as 60.")
    return seconds


class Tracker:
    """The calls of one tracker, in order, in one thread: MLflow's open run belongs to the thread that opened it."""

    def __init__(self, name: str, check: Callable[[], None] | None = None) -> None:
        """`name`: mlflow or wandb. `check` is called before each call, and raises what is wrong with the place of the run."""
        self.name, self._check = name, check
        self.trouble: NotTracked | None = None
        self._calls: queue.SimpleQueue[tuple[int, Callable[[], object]] | None] = queue.SimpleQueue()
        self._is_open, self._opened, self._closing = False, threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._step = self._under_way = 0  # last step sent, and that of the call now made

    def open(self, start: Callable[[], object]) -> None:
        """Makes the call that opens the run, and waits for it as long as `patience` says."""
        self._thread = threading.Thread(
            target=self._work, args=(start,), name=f"{self.name} tracker", daemon=True
        )
        self._thread.start()
        if not self._opened.wait(patience()):
            self._say(f"it has not answered for {patience():g} s; what there is to track waits for it")

    def send(self, call: Callable[[], object], step: int | None = None) -> None:
        """Has the call made after those before it. `step`: of the training; without it the last one."""
        self._step = self._step if step is None else step
        self._calls.put((self._step, call))

    def close(self, end: Callable[[], object], step: int | None = None) -> None:
        """Has all calls made, `end` last, for as long as `patience` says; nothing the second time. `step`: the first one that
        may be missing if that fails; without it the last one."""
        if self._closing.is_set() or self._thread is None:
            return
        self.send(end, step)
        self._calls.put(None)
        self._closing.set()
        self._thread.join(patience())
        if self._thread.is_alive():
            text = f"at the job's end it had not answered for {patience():g} s"
            self._lost(self._under_way, text, is_last=True)

    def moved(self, reason: str, kept_in: str) -> None:
        """Notes that the run is kept elsewhere than it was asked to."""
        self.trouble = NotTracked(reason=_one_line(reason), from_step=0, kept_in=kept_in)
        self._say(f"{_one_line(reason)} The run is kept in the job's own output instead, in {kept_in}.")

    def _work(self, start: Callable[[], object]) -> None:
        try:
            start()
            self._is_open = True
        except Exception as error:  # of MLflow, W&B, SQLAlchemy, boto: they have no common base
            self._lost(0, f"{type(error).__name__}: {error}", is_last=True)
        self._opened.set()
        pause = FIRST_PAUSE_S
        while item := self._calls.get():
            self._under_way, call = item
            if not self._is_open:
                continue
            try:
                if self._check:
                    self._check()
                call()
                pause = FIRST_PAUSE_S
            except Exception as error:
                self._lost(self._under_way, f"{type(error).__name__}: {error}")
                self._closing.wait(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)

    def _lost(self, step: int, reason: str, *, is_last: bool = False) -> None:
        """Notes what may be missing. `is_last`: no further call is made."""
        if self.trouble is None or "kept_in" in self.trouble:
            where = self.trouble or {}
            self.trouble = NotTracked(**{**where, "reason": _one_line(reason), "from_step": step})
            again = "not tried again" if is_last else "tried again now and then"
            self._say(
                f"what happens from step {step} on may be missing there: {_one_line(reason)}. The job goes on, all metrics are "
                f"in history.jsonl, and the tracker is {again}."
            )

    def _say(self, text: str) -> None:
        print_line(f"[warning] {self.name}: {text}")


def _one_line(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_REASON else line[:_LONGEST_REASON] + " ..."
