"""All training jobs of one endpoint: created from requests, listed, stopped, interrupted.

`operations.py` calls it with what moto knows of a request. moto's backend of the request's region holds the
descriptions (`backend.training_jobs`, by name); this file holds the jobs that make them true.
"""

import copy
import math
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from botocore.client import BaseClient
from botocore.exceptions import ClientError
from moto.core.responses import ActionResult
from moto.sagemaker.exceptions import ResourceInUseException, SagemakerClientError, ValidationError
from moto.sagemaker.models import FakeTrainingJob, SageMakerModelBackend

from local_sagemaker.api.pages import page
from local_sagemaker.api.record import TERMINAL, JobRecord
from local_sagemaker.api.service_limits import exceeded_quota
from local_sagemaker.api.training_request import RequestRefused, TrainingRequest, check_request
from local_sagemaker.compat.mpi_without_ssh import TRAIN_SCRIPT, starts_mpi
from local_sagemaker.jobs.attempt import Order, Settings
from local_sagemaker.jobs.channels import ChannelError, find_objects
from local_sagemaker.jobs.job import Job
from local_sagemaker.jobs.job_queue import JobQueue
from local_sagemaker.jobs.storage import aws_client, split_uri

_SORT_BY = {
    "CreationTime": "creation_time",
    "Name": "training_job_name",
    "Status": "training_job_status",
}


class ResourceLimitExceeded(SagemakerClientError):
    """More is asked for than a quota allows."""

    code = "ResourceLimitExceeded"


class TrainingService:
    """Takes requests for training jobs and keeps the jobs."""

    def __init__(self, settings: Settings, queue: JobQueue):
        self._settings, self._queue = settings, queue
        self._jobs: dict[str, Job] = {}  # by ARN

    def create(
        self,
        body: dict,
        region: str,
        backend: SageMakerModelBackend,
        describe: Callable[[], ActionResult],
    ) -> ActionResult:
        """Create a job from the request `body` and queue it; returns CreateTrainingJob's answer.

        `describe` is moto's own CreateTrainingJob, which enters the description into `backend`. Raises
        ValidationError with every reason why the job cannot be run, ResourceLimitExceeded if it asks for more
        instances than the quota, ResourceInUseException if its name is taken. Whatever is raised, OSError for a full
        disk included, nothing of the request is left, so that its name can be used once it can be carried out.
        """
        try:
            request = check_request(copy.deepcopy(body))
            over = exceeded_quota(request.instance_type, len(request.hosts), request.spot)
            if over:
                raise ResourceLimitExceeded(over)
            s3 = aws_client("s3", self._settings.url, region)
            _check_buckets(s3, request)
            for channel in request.channels:
                find_objects(s3, channel)
            if not self._settings.isolation.names_hosts:
                _check_no_mpi(s3, request)
        except (RequestRefused, ChannelError) as error:
            raise ValidationError(str(error)) from error
        folder = self._settings.jobs_folder / request.name
        try:
            # The one step that two requests at once cannot both take. For this user alone, in whatever home.
            folder.mkdir(mode=0o700, parents=True)
        except FileExistsError as error:
            raise ResourceInUseException(
                f"Training job names must be unique within an AWS account and region: {request.name} exists"
                f" (its files are in {folder})"
            ) from error
        try:
            answer = describe()
            record = JobRecord(backend.training_jobs[request.name], request, folder)
            job = Job(request, record, self._settings, region)
        except BaseException:
            backend.training_jobs.pop(request.name, None)
            shutil.rmtree(folder, ignore_errors=True)
            raise
        self._jobs[record.arn] = job
        self._queue.submit(job)
        return answer

    def save_again(self) -> None:
        """Write the descriptions that could not be written when they changed."""
        for job in tuple(self._jobs.values()):
            job.record.save_again()

    def stop(self, name: str, backend: SageMakerModelBackend) -> None:
        """Stop a job. Raises ValidationError if there is none of this name, or it has ended already."""
        backend.describe_training_job(name)  # raises if there is no such job
        fake = backend.training_jobs[name]
        if fake.training_job_status in TERMINAL:  # as all jobs of earlier endpoints are
            raise ValidationError(
                "The request was rejected because the training job is in status " + fake.training_job_status
            )
        self._queue.stop(self._jobs[fake.arn])

    def interrupt(self, name: str) -> None:
        """Interrupt a spot job, as AWS does when it needs the machines. Raises ValueError if that cannot be done."""
        job = next((job for job in self._jobs.values() if job.request.name == name), None)
        if job is None:
            raise ValueError(f"There is no training job named {name}")
        if not job.interruptible:
            raise ValueError(f"{name} is not a spot job that is running now; only such jobs are interrupted")
        job.order(Order.INTERRUPT)

    def list_jobs(self, request: dict[str, Any], backend: SageMakerModelBackend) -> dict:
        """The answer to ListTrainingJobs: filtered, sorted, paged, and then filtered by status.

        In this order a page may be shorter than MaxResults, and empty, while others follow
        (https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_ListTrainingJobs.html). That page says it of
        StatusEquals alone. Raises ValidationError for a NextToken that is none.
        """
        found = [fake for fake in tuple(backend.training_jobs.values()) if _is_asked_for(fake, request)]
        attribute = _SORT_BY[request.get("SortBy", "CreationTime")]
        found.sort(
            key=lambda fake: getattr(fake, attribute), reverse=request.get("SortOrder") == "Descending"
        )
        jobs, following = page(found, request)
        status = request.get("StatusEquals")
        asked_for = [_summary(fake) for fake in jobs if status in (None, fake.training_job_status)]
        return {"TrainingJobSummaries": asked_for} | following


def _check_buckets(s3: BaseClient, request: TrainingRequest) -> None:
    """Raise RequestRefused if a bucket that the job is to write to does not exist."""
    uris = {
        "OutputDataConfig.S3OutputPath": request.output_uri,
        "CheckpointConfig.S3Uri": request.checkpoint_uri,
    }
    for parameter, uri in uris.items():
        if uri:
            try:
                s3.head_bucket(Bucket=split_uri(uri)[0])
            except ClientError as error:
                raise RequestRefused(
                    f"{parameter}={uri}: this bucket does not exist; create it first"
                ) from error


def _check_no_mpi(s3: BaseClient, request: TrainingRequest) -> None:
    """Raise RequestRefused for a job of the SDK's MPI driver: mpirun goes by the hosts' names, which they have not got."""
    drivers = [channel for channel in request.channels if channel.name == "sm_drivers"]
    for bucket, key, path in find_objects(s3, drivers[0]) if drivers else []:
        if path == TRAIN_SCRIPT and starts_mpi(s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode()):
            raise RequestRefused(
                "distributed=MPI() needs hosts with names of their own, for which this machine lacks Linux namespaces; use"
                " Torchrun(), or run the job on AWS (see 'What isolation cannot stop' in local_sagemaker's README)"
            )


def _is_asked_for(fake: FakeTrainingJob, request: dict[str, Any]) -> bool:
    """Whether a job passes all filters but that of its status; the request's times are seconds since the epoch."""

    def between(time: datetime, name: str) -> bool:
        seconds = time.replace(tzinfo=UTC).timestamp()  # moto's times are UTC without saying so
        return request.get(f"{name}After", -math.inf) < seconds < request.get(f"{name}Before", math.inf)

    summary = _summary(fake)
    return (
        request.get("NameContains", "").lower() in fake.training_job_name.lower()
        and between(fake.creation_time, "CreationTime")
        and between(fake.last_modified_time, "LastModifiedTime")
        and request.get("WarmPoolStatusEquals") in (None, (summary["WarmPoolStatus"] or {}).get("Status"))
        and request.get("TrainingPlanArnEquals") in (None, summary["TrainingPlanArn"])
    )


def _summary(fake: FakeTrainingJob) -> dict:
    return {
        "TrainingJobName": fake.training_job_name,
        "TrainingJobArn": fake.arn,
        "CreationTime": fake.creation_time,
        "TrainingEndTime": fake.training_end_time,
        "LastModifiedTime": fake.last_modified_time,
        "TrainingJobStatus": fake.training_job_status,
        "SecondaryStatus": fake.secondary_status,
        "WarmPoolStatus": fake.warm_pool_status,
        "TrainingPlanArn": fake.resource_config.get("TrainingPlanArn"),
    }
