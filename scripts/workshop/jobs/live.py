"""Watch a training job: status, steps, the reward curve and the end of the log, until the job ends."""

import re
import time
from typing import Any

from botocore.exceptions import EndpointConnectionError, HTTPClientError
from job.metrics import Metrics, add_metrics, last_step, parse_metrics

from workshop.errors import WorkshopError
from workshop.jobs.display import JobView, new_display
from workshop.jobs.status import LOG_GROUP, TERMINAL, LogReader, describe, job_name

FAILURE_LOG_LINES = 20
# What `set -x` in the SDK's start script echoes, or nothing.
_SHELL_TRACE = re.compile(r"(\[[\w-]+\] )?(\++ .*|\s*)$")
_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_LOST_AFTER_S = 30.0  # seconds without an answer before giving up


class JobFailed(WorkshopError):
    """A job failed or ran into a time limit. Attributes: name, reason, log (its last lines), history."""

    def __init__(self, name: str, reason: str, log: list[str], history: list[Metrics]) -> None:
        self.name, self.reason, self.log, self.history = name, reason, log, history
        tail = "".join(f"\n  {line}" for line in log) or " none"
        super().__init__(
            f"{name} did not complete.\n{reason}\n\nIts last log lines:{tail}\n\nThe whole log: the CloudWatch group "
            f"{LOG_GROUP}, streams {name}/*; in local mode `python -m local_sagemaker logs {name}`."
        )


class ConnectionLost(WorkshopError):
    """SageMaker (or the local endpoint) stopped answering while a job was watched."""


class WatchInterrupted(KeyboardInterrupt):
    """Ctrl-C, or the notebook's stop button, while watching: the job itself goes on."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"You stopped watching; the job goes on. Watch it again: watch({name!r}). "
            f'Stop it: boto3.client("sagemaker").stop_training_job(TrainingJobName={name!r})'
        )

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def watch(job: Any, *, refresh: float = 2.0) -> list[Metrics]:
    """Show a job until it ends; return its metrics, one dict a logged step ({"step": 1, "reward": 0.5, ...}).

    These are the metrics of the log's lines (job.metrics.SHOWN), to 4 digits. `fetch_output` has all of them, under the
    same names and in full.

    Args:
        job: a name, the SDK's TrainingJob, or the ModelTrainer that started it with train(wait=False).
        refresh: seconds between two looks.

    Raises JobFailed with the job's own reason, ConnectionLost after 30 s without an answer, and WatchInterrupted on
    Ctrl-C, which leaves the job running. A job that was stopped on purpose returns what it logged until then.
    """
    name = job_name(job)
    view, reader, display = JobView(name), LogReader(name), new_display()
    answered = time.monotonic()
    try:
        while True:
            try:
                description = describe(name)  # before the log: a job that has ended writes no more lines
                _take_log(view, reader)
                answered = time.monotonic()
            except (EndpointConnectionError, HTTPClientError) as error:
                if time.monotonic() - answered > _LOST_AFTER_S:
                    raise ConnectionLost(
                        f"No answer for {_LOST_AFTER_S:.0f} s while watching {name}: {error}"
                    ) from error
                time.sleep(refresh)
                continue
            _take_status(view, description)
            if view.status in TERMINAL:
                time.sleep(min(refresh, 1.0))  # CloudWatch on AWS delivers the last lines a moment late
                _take_log(view, reader)
                display.update(view)
                break
            display.update(view)
            time.sleep(refresh)
    except KeyboardInterrupt as interrupt:
        raise WatchInterrupted(name) from interrupt
    _raise_if_failed(view, description)
    return view.history


def _take_log(view: JobView, reader: LogReader) -> None:
    for moment, line in reader.new_events():
        shown = readable(line)
        if not _SHELL_TRACE.match(shown):
            view.log.append(shown)
        metrics = parse_metrics(line)
        if metrics:
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
    view.phases = [
        (transition["Status"], transition["StartTime"].astimezone(), transition.get("EndTime"))
        for transition in description.get("SecondaryStatusTransitions", [])
    ]


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
