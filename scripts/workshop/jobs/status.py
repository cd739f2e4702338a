"""Ask SageMaker about one training job: its name, description and logs. Same calls on AWS and locally."""

import time
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import boto3
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import ClientError
from sagemaker.core.resources import TrainingJob

from workshop.errors import WorkshopError
from workshop.jobs.pace import STREAMS_S
from workshop.session.credentials import stay_signed_in

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
TERMINAL = ("Completed", "Failed", "Stopped")
LARGE_PAGE = 1000  # log events; after a smaller page the next look is soon enough
# botocore's retries bridge a moment (throttling, a broken connection); whoever watches bridges the rest.
_CONFIG = Config(retries={"mode": "standard", "total_max_attempts": 3}, connect_timeout=10, read_timeout=30)


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

    Raises JobNotFound when there is none. The SDK's client tries ten times when AWS is asked too often.
    """
    name = job_name(job)
    session = default_session()
    try:
        return TrainingJob.get(training_job_name=name, session=session, region=session.region_name)
    except ClientError as error:
        if _says_missing(error):
            raise _not_found(name, session.client("sagemaker")) from error
        raise


def default_session() -> boto3.Session:
    """The boto3 session that `open_session` has set, whose region need not be that of the AWS settings."""
    boto3.DEFAULT_SESSION = stay_signed_in(boto3.DEFAULT_SESSION or boto3.Session())
    return boto3.DEFAULT_SESSION


def aws_client(service: str) -> BaseClient:
    """A client of the default session that gives up after a minute or two: whoever uses it tries again."""
    return default_session().client(service, config=_CONFIG)


def is_local(client: BaseClient) -> bool:
    """Whether the client asks an endpoint on this machine."""
    return urlsplit(client.meta.endpoint_url).hostname in ("127.0.0.1", "localhost")


def describe(name: str, sagemaker: BaseClient | None = None) -> dict:
    """DescribeTrainingJob of `name`, with the client `sagemaker` or one of the default session. Raises JobNotFound."""
    sagemaker = sagemaker or aws_client("sagemaker")
    try:
        return sagemaker.describe_training_job(TrainingJobName=name)
    except ClientError as error:
        if _says_missing(error):
            raise _not_found(name, sagemaker) from error
        raise


def _says_missing(error: ClientError) -> bool:
    return error.response["Error"]["Code"] in ("ValidationException", "ResourceNotFound")


def _not_found(name: str, sagemaker: BaseClient) -> JobNotFound:
    if is_local(sagemaker):
        return JobNotFound(
            f"There is no training job {name!r} here. Check the name: `python -m local_sagemaker jobs` lists all of the "
            "local endpoint's home, those of earlier endpoints too."
        )
    return JobNotFound(
        f"There is no training job {name!r} in this account in {sagemaker.meta.region_name}. Check the name, and that "
        "the session is open for the account and region that the job was started in."
    )


@dataclass
class LogReader:
    """Reads a job's log streams from CloudWatch Logs, every line once.

    With `hosts`, the number of the job's hosts, the streams are listed seldom once each host has one.
    """

    name: str
    hosts: int | None = None
    logs: BaseClient = field(default_factory=lambda: aws_client("logs"), repr=False)
    _tokens: dict[str, str | None] = field(default_factory=dict)  # by stream
    _read: list[tuple[float, str]] = field(default_factory=list)  # kept when a later call fails
    _listed: float = float("-inf")  # when, on a clock that never goes back

    def new_events(self, everything: bool = True) -> list[tuple[float, str]]:
        """(time in seconds since 1970, line) of what was written since the last call, in order of time.

        With several hosts, a line starts with the name of its host: "[algo-1] ...". Without `everything` it is one page
        of each stream, and more only while pages are large: for whoever comes back soon.
        """
        complete = self.hosts is not None and len(self._tokens) >= self.hosts
        if everything or not complete or time.monotonic() - self._listed >= STREAMS_S:
            self._list_streams()
        for stream in self._tokens:
            self._read_on(stream, everything)
        events, self._read = self._read, []
        return sorted(events, key=lambda event: event[0])  # stable: lines of one stream keep their order

    def _list_streams(self) -> None:
        try:
            pages = self.logs.get_paginator("describe_log_streams").paginate(
                logGroupName=LOG_GROUP, logStreamNamePrefix=f"{self.name}/"
            )
            for page in pages:
                for stream in page["logStreams"]:
                    self._tokens.setdefault(stream["logStreamName"], None)
        except self.logs.exceptions.ResourceNotFoundException:
            return  # the group is made when the first job of an account starts to write
        self._listed = time.monotonic()

    def _read_on(self, stream: str, everything: bool) -> None:
        host = stream.removeprefix(f"{self.name}/").rpartition("-")[0]
        prefix = f"[{host}] " if max(len(self._tokens), self.hosts or 0) > 1 else ""
        while True:
            before = self._tokens[stream]
            position = {"nextToken": before} if before else {}
            page = self.logs.get_log_events(
                logGroupName=LOG_GROUP, logStreamName=stream, startFromHead=True, **position
            )
            self._read += [(event["timestamp"] / 1000, prefix + event["message"]) for event in page["events"]]
            self._tokens[stream] = page["nextForwardToken"]
            # An empty page is not yet the end, only the same token is (GetLogEvents, API reference, read 2026-11).
            if page["nextForwardToken"] == before or not (everything or len(page["events"]) >= LARGE_PAGE):
                return
