"""Ask SageMaker about one training job: its name, description and logs. Same calls on AWS and locally."""

from dataclasses import dataclass, field
from typing import Any

import boto3
from botocore.exceptions import ClientError
from sagemaker.core.resources import TrainingJob

from workshop.errors import WorkshopError

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
TERMINAL = ("Completed", "Failed", "Stopped")


class JobNotFound(WorkshopError):
    """There is no training job of that name, or the trainer has not started one."""


def job_name(job: Any) -> str:
    """Name of `job`: a name, the SDK's TrainingJob, or a ModelTrainer whose train() was called."""
    if isinstance(job, str):
        return job
    if hasattr(job, "_latest_training_job"):
        job = job._latest_training_job  # the SDK has no public name for it (3.27.0)
        if job is None:
            raise JobNotFound("This ModelTrainer has no job yet: call trainer.train(..., wait=False) first.")
    return job.training_job_name


def training_job(job: Any) -> TrainingJob:
    """The SDK's TrainingJob as it stands now (billable seconds, phases, artifacts), of a job as `job_name` takes it.

    Raises JobNotFound when the trainer has not started one.
    """
    return TrainingJob.get(training_job_name=job_name(job))


def describe(name: str) -> dict:
    """DescribeTrainingJob of `name`. Raises JobNotFound."""
    try:
        return boto3.client("sagemaker").describe_training_job(TrainingJobName=name)
    except ClientError as error:
        if error.response["Error"]["Code"] not in ("ValidationException", "ResourceNotFound"):
            raise
        raise JobNotFound(
            f"There is no training job {name!r} here. Jobs of the local endpoint are forgotten when it stops; "
            "on AWS, check name, account and region."
        ) from error


@dataclass
class LogReader:
    """Reads a job's log streams from CloudWatch Logs, every line once."""

    name: str
    _tokens: dict[str, str | None] = field(default_factory=dict)

    def new_events(self) -> list[tuple[float, str]]:
        """(time in seconds since 1970, line) of what was written since the last call, in order of time.

        With several hosts, a line starts with the name of its host: "[algo-1] ...".
        """
        logs = boto3.client("logs")
        try:
            pages = logs.get_paginator("describe_log_streams").paginate(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.name}/"
            )
            for page in pages:
                for stream in page["logStreams"]:
                    self._tokens.setdefault(stream["logStreamName"], None)
        except logs.exceptions.ResourceNotFoundException:
            return []  # the group is made when the first job of an account starts to write
        events = [event for stream in self._tokens for event in self._new_events_of(stream, logs)]
        return sorted(events, key=lambda event: event[0])  # stable: lines of one stream keep their order

    def _new_events_of(self, stream: str, logs: Any) -> list[tuple[float, str]]:
        host = stream.removeprefix(f"{self.name}/").rpartition("-")[0]
        prefix = f"[{host}] " if len(self._tokens) > 1 else ""
        events = []
        while True:
            position = {"nextToken": self._tokens[stream]} if self._tokens[stream] else {}
            page = logs.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **position
            )
            events += [(event["timestamp"] / 1000, prefix + event["message"]) for event in page["events"]]
            finished = page["nextForwardToken"] == self._tokens[stream] or not page["events"]
            self._tokens[stream] = page["nextForwardToken"]
            if finished:
                return events
