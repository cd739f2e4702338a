"""A training that makes no step any more: said in the log with what each process waits for, and ended in the end.

A reward that never returns, a process that waits for one that is gone: SageMaker would bill such a job to its last second. So
a thread in each training process looks at the clock. A step that takes ten times as long as usual, and at least 5 minutes, is
a warning; one that takes thirty times as long, and at least 25 minutes, is the end. The first step (compilation, an engine
that starts) and what lies between two steps (evaluation, checkpoints, the next batch) may take four times as long.

JOB_STALL_SECONDS sets another least time for the end than 1500, a fifth of which is the least time for the warning; 0 watches
nothing. 25 minutes come before the 30 after which torch.distributed gives up waiting (its default), whose error says less.
"""

import faulthandler
import os
import statistics
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from types import FrameType

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from job.container import failure_file, print_line, process_count, process_rank
from job.failure import write_once
from job.metrics import STALLED

VARIABLE = "JOB_STALL_SECONDS"
LEAST_S = 1500.0  # without a step: the end
WARNING_SHARE = 5  # the warning comes after a fifth of that
USUAL_STEPS = 10, 30  # warning and end, in usual steps
OUTSIDE = 4  # times as long: the first step, and between steps
POLL_SHARE = 100  # looks within the least time
# The process that hangs speaks before those that wait for it, which would otherwise be taken for the cause.
GRACE_S = 10.0
ARRIVAL_S = 3.0  # until what other processes write has come to the log


class StallError(Exception):
    """JOB_STALL_SECONDS is no number."""


def least_seconds() -> float:
    """Seconds without a step after which a job ends at the earliest; 0: never.

    Raises:
        StallError: JOB_STALL_SECONDS is negative, or no number.
    """
    text = os.environ.get(VARIABLE) or str(LEAST_S)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise StallError(f"{VARIABLE} is {text!r}: write a number of seconds, such as 1500, or 0 for none.")
    return seconds


class StepClock:
    """Watches the steps of the training in this process from `begins` to `ends`."""

    def __init__(self, others: Callable[[], None] | None = None) -> None:
        """`others` has processes that train nothing themselves say where they are, with the warning.

        Raises:
            StallError: as `least_seconds`.
        """
        self._least, self._others = least_seconds(), others
        self._step, self._in_step, self._warned = 0, False, False
        self._beat = self._step_began = time.monotonic()
        self._times: deque[float] = deque(maxlen=100)
        self._ended = threading.Event()

    def begins(self, step: int = 0) -> None:
        """Training begins after so many steps."""
        self._step, self._beat = step, time.monotonic()
        if self._least:
            threading.Thread(target=self._watch, name="stall watch", daemon=True).start()

    def step_begins(self) -> None:
        self._in_step, self._step_began = True, time.monotonic()
        self.alive()

    def step_ends(self, step: int) -> None:
        self._times.append(time.monotonic() - self._step_began)
        self._in_step, self._step = False, step
        self.alive()

    def alive(self) -> None:
        """Something was done, such as a batch of an evaluation."""
        self._beat, self._warned = time.monotonic(), False

    def ends(self) -> None:
        """Training is over."""
        self._ended.set()

    def limits(self) -> tuple[float, float]:
        """Seconds from the last sign of life until the warning, and until the end."""
        usual = statistics.median(self._times) if self._times else 0.0
        longer = 1 if self._in_step and self._times else OUTSIDE
        warning, end = USUAL_STEPS
        return (
            longer * max(self._least / WARNING_SHARE, warning * usual),
            longer * max(self._least, end * usual),
        )

    def _watch(self) -> None:
        while not self._ended.wait(min(self._least / POLL_SHARE, GRACE_S)):
            silent = time.monotonic() - self._beat
            warning, end = self.limits()
            if silent > warning and not self._warned:
                self._warned = True
                print_line(
                    f"{STALLED} {self._told(silent)} The job ends after {end:.0f} s. All stacks follow."
                )
                faulthandler.dump_traceback(sys.stderr, all_threads=True)
                self._ask_others()
            if silent > end + (GRACE_S if _waits_for_others() else 0.0):
                self._end(silent)

    def _ask_others(self) -> None:
        try:
            if self._others:
                self._others()
        except Exception as error:  # the watch must go on
            print_line(f"{STALLED} The other processes could not be asked: {type(error).__name__}: {error}")

    def _told(self, silent: float) -> str:
        usual = f", where a step usually takes {statistics.median(self._times):.1f} s" if self._times else ""
        who = f"Process {process_rank()} of {process_count()}: n" if process_count() > 1 else "N"
        where = "" if self._in_step else " (between two steps)" if self._step else " (before the first)"
        return (
            f"{who}o step for {silent:.0f} s after step {self._step}{where}{usual}. It is in {_innermost()}."
        )

    def _end(self, silent: float) -> None:
        stack = "".join(traceback.format_stack(_main_frame()))
        told = self._told(silent)
        write_once(
            f"JobStalled: {told} Look there for what never returns (a reward, a download, a lock). {VARIABLE} in the job's "
            f"environment sets how long a job waits at least, now {self._least:g} s.\n\n{stack}",
            failure_file(),
        )
        print_line(f"{STALLED} {told} The job is ended.\n{stack}")
        if self._others:  # at the warning they may have been on their way to where they wait now
            self._ask_others()
            time.sleep(ARRIVAL_S)
        os._exit(1)  # the main thread cannot be reached where it is


class StallWatch(TrainerCallback):
    """`StepClock` for a Trainer."""

    def __init__(self) -> None:
        self._clock = StepClock()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._clock.begins(state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._clock.step_begins()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._clock.step_ends(state.global_step)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._clock.ends()

    def _alive(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._clock.alive()

    on_substep_end = on_prediction_step = on_log = on_evaluate = on_save = _alive


def _main_frame() -> FrameType | None:
    return sys._current_frames().get(threading.main_thread().ident or 0)


def _stack() -> traceback.StackSummary:
    return traceback.extract_stack(_main_frame())


def _innermost() -> str:
    """Where the main thread is: its innermost function, and the line there."""
    frame = _stack()[-1]
    return f"{'/'.join(frame.filename.split(os.sep)[-2:])}:{frame.lineno}, {frame.name}: {frame.line}"


def _waits_for_others() -> bool:
    """Whether the main thread is in a collective of torch.distributed."""
    return any("torch/distributed/" in frame.filename.replace(os.sep, "/") for frame in _stack())
