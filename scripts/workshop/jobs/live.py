"""Watch a training job: status, steps, the reward curve and the end of the log, until the job ends."""

import re
import time
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from job.metrics import STALLED, Metrics, add_metrics, last_step, parse_metrics

from workshop.errors import WorkshopError
from workshop.jobs.display import JobView, new_display
from workshop.jobs.outages import Outage, expired, throttled
from workshop.jobs.pace import Pace
from workshop.jobs.status import (
    LOG_GROUP,
    TERMINAL,
    LogReader,
    aws_client,
    describe,
    is_local,
    job_name,
)
from workshop.session.credentials import READ_EVERY_S

FAILURE_LOG_LINES = 20
# What `set -x` in the SDK's start script echoes, or nothing.
_SHELL_TRACE = re.compile(r"(\[[\w-]+\] )?(\++ .*|\s*)$")
_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
SIGN_IN_S = READ_EVERY_S  # between two looks while there are no credentials
LAST_LINES_S = 5.0  # CloudWatch on AWS delivers a job's last lines a moment after its end


class JobFailed(WorkshopError):
    """A job failed or ran into a time limit. Attributes: name, reason, log (its last lines), history."""

    def __init__(self, name: str, reason: str, log: list[str], history: list[Metrics]) -> None:
        self.name, self.reason, self.log, self.history = name, reason, log, history
        tail = "".join(f"\n  {line}" for line in log) or " none"
        super().__init__(
            f"{name} did not complete.\n{reason}\n\nIts last log lines:{tail}\n\nThe whole log: the CloudWatch group "
            f"{LOG_GROUP}, streams {name}/*; in local mode `python -m local_sagemaker logs {name}`."
        )


class WatchInterrupted(KeyboardInterrupt):
    """Ctrl-C, or the notebook's stop button, while watching: the job itself goes on."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"You stopped watching; the job goes on. Watch it again: watch({name!r}). "
            f'Stop it: boto3.client("sagemaker").stop_training_job(TrainingJobName={name!r})'
        )

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def watch(job: Any, *, refresh: float | None = None) -> list[Metrics]:
    """Show a job until it ends; return its metrics, one dict a logged step ({"step": 1, "reward": 0.5, ...}).

    These are the metrics of the log's lines (job.metrics.SHOWN), to 4 digits. `fetch_output` has all of them, under the
    same names and in full.

    Args:
        job: a name, the SDK's TrainingJob, or the ModelTrainer that started it with train(wait=False).
        refresh: seconds between two looks; by default 2 in local mode, and on AWS so seldom that forty people can watch
            in one account (jobs/pace.py has the limits and the arithmetic).

    Waits on while AWS is asked too often, does not answer, or no longer takes the credentials: for ten minutes, in local
    mode for half a minute (jobs/outages.py). Raises JobFailed with the job's own reason, JobNotFound, ConnectionLost (of
    which EndpointEnded is one, at once: the local endpoint is gone) or SessionExpired when waiting does not help, and
    WatchInterrupted on Ctrl-C; these leave the job running. A job that was stopped on purpose returns what it logged until
    then.
    """
    name = job_name(job)
    try:
        view, description = _follow(name, refresh)
    except KeyboardInterrupt as interrupt:
        raise WatchInterrupted(name) from interrupt
    _raise_if_failed(view, description)
    return view.history


def _follow(name: str, refresh: float | None) -> tuple[JobView, dict]:
    """Look and show until the job has ended; returns what is known of it then."""
    view, display, reader = JobView(name), new_display(), LogReader(name)
    sagemaker, stale = aws_client("sagemaker"), False
    local = is_local(sagemaker)
    pace = Pace(local, refresh)
    outage = Outage(name, local, time.monotonic(), sagemaker.meta.endpoint_url)
    description: dict = {}
    while view.status not in TERMINAL:
        try:
            if pace.description_due(time.monotonic(), view.trains):
                description = describe(
                    name, sagemaker
                )  # before the log: a job that has ended writes no more lines
                pace.described(time.monotonic())
                reader.hosts = _hosts(description)
            ended = description["TrainingJobStatus"] in TERMINAL
            if ended:
                time.sleep(0.5 if local else LAST_LINES_S)
            if ended or local or "Training" in {item["Status"] for item in _transitions(description)}:
                _take_log(view, reader, everything=ended)
        except (BotoCoreError, ClientError) as error:
            view.note = outage.note(error, time.monotonic())
            if throttled(error):
                pace.slow_down()
            stale = expired(error)
        else:
            stale = False
            outage.over(time.monotonic())
            pace.speed_up()
            _take_status(view, description)
        display.update(view)
        if view.status not in TERMINAL:
            pause_s = pace.pause_s(reader.hosts or 1, view.trains)
            time.sleep(max(pause_s, SIGN_IN_S) if stale else pause_s)
    return view, description


def _take_log(view: JobView, reader: LogReader, everything: bool) -> None:
    for moment, line in reader.new_events(everything):
        shown = readable(line)
        if not _SHELL_TRACE.match(shown):
            view.log.append(shown)
        if STALLED in shown:
            view.stall = shown[shown.index(STALLED) :]
        metrics = parse_metrics(line)
        if metrics:
            view.stall = ""
            view.max_steps = last_step(line) or view.max_steps
            add_metrics(view.history, metrics)
            del view.step_times[len(view.history) - 1 :]
            view.step_times.append(moment)


def readable(line: str) -> str:
    """The line as a terminal would leave it: of a redrawn progress bar the last state, no escape codes."""
    states = [state for state in _ESCAPE_CODE.sub("", line).split("\r") if state.strip()]
    return states[-1].rstrip() if states else ""


def _take_status(view: JobView, description: dict) -> None:
    status = description["TrainingJobStatus"]
    view.status = status if status in TERMINAL else "InProgress"
    transitions = _transitions(description)
    view.phases = [
        (item["Status"], item["StartTime"].astimezone(), item.get("EndTime")) for item in transitions
    ]
    # Why it does not train yet, as far as SageMaker says so: on AWS that there is no capacity, for example.
    waiting = status == "InProgress" and not view.trains
    view.note = transitions[-1].get("StatusMessage", "") if waiting else view.stall


def _transitions(description: dict) -> list[dict]:
    """The job's phases; of one that has none yet, such as one that waits for its training plan, its present one."""
    now = {"Status": description["SecondaryStatus"], "StartTime": description["CreationTime"]}
    return description.get("SecondaryStatusTransitions") or [now]


def _hosts(description: dict) -> int:
    resources = description["ResourceConfig"]
    groups = resources.get("InstanceGroups") or [resources]
    return sum(group.get("InstanceCount") or 1 for group in groups)


def _raise_if_failed(view: JobView, description: dict) -> None:
    log = list(view.log)[-FAILURE_LOG_LINES:]
    if view.status == "Failed":
        reason = description.get("FailureReason") or "SageMaker gave no reason."
        raise JobFailed(view.name, reason, log, view.history)
    if description["SecondaryStatus"] == "MaxRuntimeExceeded":
        limit = description["StoppingCondition"]["MaxRuntimeInSeconds"]
        reason = (
            f"It was stopped at its limit of {limit} s: raise max_runtime_in_seconds, or ask for fewer steps."
        )
        raise JobFailed(view.name, reason, log, view.history)
    if description["SecondaryStatus"] == "MaxWaitTimeExceeded":
        reason = (
            "Spot capacity did not suffice within max_wait_time_in_seconds: raise it, or train on demand."
        )
        raise JobFailed(view.name, reason, log, view.history)
