"""A job's time cap: whether another step fits before SageMaker ends the job, so that it ends in good order before that.

At MaxRuntimeInSeconds the containers are cut, and a model that was not saved by then is lost. The notebook gives the job
the same number in JOB_MAX_SECONDS. What an ending takes is learned from the run: the slowest step so far, the last save,
the evaluation before training (that of the base model, whose answers are rarely shorter than those of the trained one).
Without the variable there is no cap.
"""

import functools
import math
import os
import time
from collections.abc import Callable
from typing import Any

from accelerate.utils import broadcast_object_list
from rl.evaluation import Evaluation
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from job.container import input_config_dir, is_main_process, print_line

VARIABLE = "JOB_MAX_SECONDS"
STOPPED_BY = "time cap"  # in summary.json
# Kept for what cannot be measured here: the end of the processes, and the model's way to S3. A share of the cap.
RESERVE_SHARE = 0.05
RESERVE_MOST_S = 600.0
DESCRIBE_TIMEOUT_S = 5
# SecondaryStatus of a job whose instances are there, and of one that has just lost them.
RUNNING = ("Downloading", "DownloadingTrainingImage", "Training")
LOST = ("Interrupted", "Restarting")
_IMPORTED = time.time()


class TimeCapError(Exception):
    """A time cap with which nothing can be trained; the message says how much time there was, and where it went."""


def is_capped() -> bool:
    """Whether this job has a cap. Raises TimeCapError as `seconds_left`."""
    return _cap() is not None


def seconds_left() -> float:
    """Until SageMaker ends this job; infinite without a cap.

    Raises:
        TimeCapError: JOB_MAX_SECONDS is no positive number.
    """
    cap = _cap()
    return math.inf if cap is None else cap - (time.time() - started())


def _cap() -> float | None:
    text = os.environ.get(VARIABLE)
    if not text:
        return None
    try:
        cap = float(text)
    except ValueError:
        cap = 0.0
    if not 0 < cap < math.inf:
        raise TimeCapError(f"{VARIABLE} is {text!r}: write the job's MaxRuntimeInSeconds, such as 3600.")
    return cap


def started() -> float:
    """When the cap began to count, in seconds of time.time; rather too early than too late.

    No document says from when SageMaker counts. It bills from TrainingStartTime, before input and image are downloaded
    (DescribeTrainingJob in botocore 1.44), so that is taken; no file of the container tells it, so the service is asked, once.

    A spot job's TrainingStartTime would count the time in which it waited for other machines, too. StoppingCondition (botocore
    1.44) says that MaxWaitTimeInSeconds is that waiting and the time that the job can run, and of attempts by RetryStrategy
    that MaxRuntimeInSeconds is for all in total; of attempts after an interruption it says nothing. They are taken to share it
    too: what earlier attempts ran counts as run.

    Where the job's role or network does not allow the question, the oldest of the container's configuration files stands for
    it, so that a spot job's earlier attempts are not known; and outside of containers the moment at which this module was
    imported.
    """
    asked = _described_start()
    if asked is not None:
        return asked
    return min((path.stat().st_mtime for path in input_config_dir().glob("*.json")), default=_IMPORTED)


@functools.cache
def _described_start() -> float | None:
    name = os.environ.get("TRAINING_JOB_NAME")
    if not name:
        return None
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError

    brief = Config(
        connect_timeout=DESCRIBE_TIMEOUT_S, read_timeout=DESCRIBE_TIMEOUT_S, retries={"total_max_attempts": 1}
    )
    try:
        client = boto3.client("sagemaker", region_name=os.environ.get("AWS_REGION"), config=brief)
        job = client.describe_training_job(TrainingJobName=name)
    except (BotoCoreError, ClientError):
        return None
    if job.get("EnableManagedSpotTraining"):
        return _spot_start(job.get("SecondaryStatusTransitions", []))
    start = job.get("TrainingStartTime")
    return None if start is None else start.timestamp()


def _spot_start(transitions: list[dict[str, Any]]) -> float | None:
    """When a spot job would have begun if all that its attempts have run were one piece; None if no attempt runs.

    Args:
        transitions: SecondaryStatusTransitions of DescribeTrainingJob.
    """
    lost = max((i for i, entry in enumerate(transitions) if entry["Status"] in LOST), default=-1)
    earlier, current = (
        [entry for entry in part if entry["Status"] in RUNNING]
        for part in (transitions[: lost + 1], transitions[lost + 1 :])
    )
    if not current:
        return None
    ran = sum(
        (entry["EndTime"] - entry["StartTime"]).total_seconds() for entry in earlier if "EndTime" in entry
    )
    return current[0]["StartTime"].timestamp() - ran


def reserve() -> float:
    """Seconds of the cap that are planned for nothing."""
    return min(RESERVE_SHARE * (_cap() or 0.0), RESERVE_MOST_S)


def agreed(opinion: Callable[[], bool]) -> bool:
    """The main process's opinion, in all processes: clocks differ, and one that stopped alone would hang the others."""
    answer = [is_main_process() and opinion()]
    broadcast_object_list(answer)
    return answer[0]


def time_for(seconds: float) -> bool:
    """Whether so many seconds, and the reserve, are left. Every process must call this, and all get the same answer."""
    return not is_capped() or agreed(lambda: seconds_left() - reserve() >= seconds)


class Pace:
    """How long a training's steps and saves take, in seconds, and whether another step fits.

    Attributes:
        step: the slowest so far, from the end of one to the end of the next, with all that stands between.
    """

    def __init__(self, evaluation: float, saves: int) -> None:
        """`evaluation`: seconds that the one after training will take. `saves`: how often as much as a checkpoint is written
        from the last step to the end, the checkpoint itself included."""
        self.step, self._save = 0.0, None
        self._evaluation, self._saves = evaluation, saves
        self.begins()

    def begins(self) -> None:
        self._step_ended = self._saving_since = time.perf_counter()

    def step_ended(self) -> None:
        now = time.perf_counter()
        self.step = max(self.step, now - self._step_ended)
        self._step_ended = now

    def save_begins(self) -> None:
        self._saving_since = time.perf_counter()

    def save_ended(self) -> None:
        self._save = time.perf_counter() - self._saving_since

    @property
    def save(self) -> float:
        """Seconds of the last save; before the first, those of a step."""
        return self.step if self._save is None else self._save

    def ending(self) -> float:
        """Seconds from the last step to the job's end."""
        return self._saves * self.save + self._evaluation + reserve()

    def is_short(self) -> bool:
        """Whether another step would leave too little time for the ending."""
        return seconds_left() < self.step + self.ending()

    def is_over(self) -> bool:
        """Whether there is no time even for a first step. (Where only the evaluation does not fit, that is left out.)"""
        return seconds_left() <= reserve()

    def error(self) -> TimeCapError:
        """What to raise where `is_over`."""
        cap = _cap() or 0.0
        return TimeCapError(
            f"No step fits into this job's {cap:g} s: {cap - seconds_left():.0f} s were over when training began, "
            f"{self._evaluation:.0f} s of them for the evaluation of the base model, and {reserve():.0f} s are kept for the "
            "end. Give the job more time (max_hours in the notebook, MaxRuntimeInSeconds in the request), or set a smaller "
            "eval_problems."
        )

    def stop_line(self, step: int, steps: int) -> str:
        """What the log says of a training that ends at its cap."""
        job = os.environ.get("TRAINING_JOB_NAME", "this job")
        return (
            f"[time cap] Stopped after step {step} of {steps}: {max(seconds_left(), 0.0):.0f} of {_cap():g} s are left, "
            f"a step takes up to {self.step:.1f} s, and saving and evaluating {self.ending():.1f} s. To go on, start a job "
            f"with the same checkpoint folder: resume_from in the notebook is the checkpoint URI of {job}."
        )


class TimeCap(TrainerCallback):
    """Ends a Trainer's training, with a checkpoint, when no further step fits: in all processes at the same step."""

    def __init__(self, before: Evaluation | None) -> None:
        """`before`: the evaluation before training, if one like it is to follow.

        Raises:
            TimeCapError: as `is_capped`.
        """
        self.stopped, self._capped = False, is_capped()
        self.pace = Pace(before.seconds if before else 0.0, saves=2)  # the checkpoint, and the model

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.pace.begins()
        if self._capped and agreed(self.pace.is_over):
            raise self.pace.error()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.pace.step_ended()
        self.pace.save_begins()  # unless a log or an evaluation comes first
        if self._capped and not control.should_training_stop and agreed(self.pace.is_short):
            control.should_training_stop = control.should_save = self.stopped = True
            if is_main_process():
                print_line(self.pace.stop_line(state.global_step, state.max_steps))

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.pace.save_begins()

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.pace.save_begins()

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self.pace.save_ended()
