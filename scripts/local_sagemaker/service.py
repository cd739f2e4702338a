"""The SageMaker operations that really do something: they replace moto's, which only pretend.

moto keeps the state (S3, IAM, Logs, the description of each job); what it answers for training jobs comes
from here. moto is pinned, and every method that is replaced or relied on is checked at the start.
"""

import copy
import importlib.metadata
import json
from collections.abc import Callable
from datetime import UTC, datetime

from botocore.client import BaseClient
from moto.core.responses import ActionResult, EmptyResult
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend
from moto.iam.responses import IamResponse
from moto.sagemaker.exceptions import ResourceInUseException, ValidationError
from moto.sagemaker.models import FakeTrainingJob, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse
from moto.sts.models import STSBackend

from local_sagemaker.attempt import Order, Settings
from local_sagemaker.channels import ChannelError, find_objects
from local_sagemaker.client import ROLE_NAME
from local_sagemaker.job import Job
from local_sagemaker.job_queue import JobQueue
from local_sagemaker.record import JobRecord
from local_sagemaker.storage import client, split_uri
from local_sagemaker.training_request import RequestRefused, TrainingRequest, check_request

MOTO_VERSION = "5.2.5"
ROLE_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
PAGE = 100


class UnknownMoto(RuntimeError):
    """The installed moto is not the one whose methods are replaced here."""


class TrainingService:
    """All training jobs of one endpoint, and the moto methods that lead to them."""

    def __init__(self, settings: Settings, queue: JobQueue):
        self._settings, self._queue = settings, queue
        self._jobs: dict[str, Job] = {}  # by ARN

    def install(self) -> None:
        """Replace moto's methods, for this process. Raises UnknownMoto if moto is not as expected."""
        installed = importlib.metadata.version("moto")
        if installed != MOTO_VERSION:
            raise UnknownMoto(
                f"moto {installed} is installed, but this endpoint is made for moto {MOTO_VERSION}"
            )
        existing = [
            (SageMakerResponse, "create_training_job"),
            (SageMakerResponse, "list_training_jobs"),
            (SageMakerResponse, "sagemaker_backend"),
            (SageMakerModelBackend, "describe_training_job"),
            (FakeTrainingJob, "response_object"),
            (IamResponse, "_get_params"),
            (IamResponse, "get_role"),
            (IAMBackend, "create_role"),
            (STSBackend, "get_caller_identity"),
        ]
        missing = [f"{owner.__name__}.{name}" for owner, name in existing if not hasattr(owner, name)]
        if missing:
            raise UnknownMoto(f"This moto lacks {', '.join(missing)}")
        create, identity = SageMakerResponse.create_training_job, STSBackend.get_caller_identity
        SageMakerResponse.create_training_job = lambda response: self._create(response, create)
        SageMakerResponse.stop_training_job = lambda response: self._stop(response)
        SageMakerResponse.list_training_jobs = lambda response: self._list(response)
        for name in ("update_training_job", "delete_training_job"):
            setattr(SageMakerResponse, name, lambda response, name=name: _refuse(name))
        get_role = IamResponse.get_role
        IamResponse.get_role = lambda response: _get_role(response, get_role)
        IamResponse.simulate_principal_policy = _simulate_principal_policy
        STSBackend.get_caller_identity = lambda *arguments: _as_role(identity(*arguments))

    def interrupt(self, name: str) -> None:
        """Take the machines of a spot job away, as AWS may. Raises ValueError if that cannot be done."""
        job = next((job for job in self._jobs.values() if job.request.name == name), None)
        if job is None:
            raise ValueError(f"There is no training job named {name}")
        if not job.interruptible:
            raise ValueError(f"{name} is not a spot job that is running now; only such jobs are interrupted")
        job.order(Order.INTERRUPT)

    def _create(self, response: SageMakerResponse, create: Callable) -> ActionResult:
        body = json.loads(response.body)
        try:
            request = check_request(copy.deepcopy(body))
            s3 = client("s3", self._settings.url, response.region)
            _check_buckets(s3, request)
            for channel in request.channels:
                find_objects(s3, channel)
        except (RequestRefused, ChannelError) as error:
            raise ValidationError(str(error)) from error
        folder = self._settings.jobs_folder / request.name
        try:
            folder.mkdir(parents=True)  # the one step that two requests at once cannot both take
        except FileExistsError as error:
            raise ResourceInUseException(
                f"Training job names must be unique within an AWS account and region: {request.name} exists"
                f" (its files are in {folder})"
            ) from error
        try:
            answer = create(response)
        except BaseException:
            folder.rmdir()  # so that the name can be used once the request is right
            raise
        fake = response.sagemaker_backend.training_jobs[request.name]
        record = JobRecord(fake, request, folder)
        job = self._jobs[fake.arn] = Job(request, record, self._settings, response.region)
        self._queue.submit(job)
        return answer

    def _stop(self, response: SageMakerResponse) -> EmptyResult:
        name = response._get_param("TrainingJobName")
        response.sagemaker_backend.describe_training_job(name)  # raises if there is no such job
        job = self._jobs[response.sagemaker_backend.training_jobs[name].arn]
        if job.record.done:
            raise ValidationError(
                "The request was rejected because the training job is in status " + job.record.status
            )
        self._queue.stop(job)
        return EmptyResult()

    def _list(self, response: SageMakerResponse) -> ActionResult:
        """ListTrainingJobs: filtered, then sorted, then paged (moto pages first and never sorts)."""
        get = response._get_param
        found = [
            fake
            for fake in list(response.sagemaker_backend.training_jobs.values())
            if (get("NameContains") or "").lower() in fake.training_job_name.lower()
            and get("StatusEquals") in (None, fake.training_job_status)
            and _between(fake.creation_time, get("CreationTimeAfter"), get("CreationTimeBefore"))
            and _between(fake.last_modified_time, get("LastModifiedTimeAfter"), get("LastModifiedTimeBefore"))
        ]
        sort_by = {"Name": "training_job_name", "Status": "training_job_status"}
        attribute = sort_by.get(get("SortBy"), "creation_time")
        found.sort(key=lambda fake: getattr(fake, attribute), reverse=get("SortOrder") == "Descending")
        start = int(get("NextToken") or 0)
        end = start + int(get("MaxResults") or PAGE)
        page = {"TrainingJobSummaries": [_summary(fake) for fake in found[start:end]]}
        return ActionResult(page | ({"NextToken": str(end)} if end < len(found) else {}))


def _check_buckets(s3: BaseClient, request: TrainingRequest) -> None:
    """Raise RequestRefused if what the job is to write has no bucket to go to."""
    uris = {
        "OutputDataConfig.S3OutputPath": request.output_uri,
        "CheckpointConfig.S3Uri": request.checkpoint_uri,
    }
    existing = {bucket["Name"] for bucket in s3.list_buckets()["Buckets"]}
    for parameter, uri in uris.items():
        if uri and split_uri(uri)[0] not in existing:
            raise RequestRefused(f"{parameter}={uri}: this bucket does not exist; create it first")


def _summary(fake: FakeTrainingJob) -> dict:
    return {
        "TrainingJobName": fake.training_job_name,
        "TrainingJobArn": fake.arn,
        "CreationTime": fake.creation_time,
        "TrainingEndTime": fake.training_end_time,
        "LastModifiedTime": fake.last_modified_time,
        "TrainingJobStatus": fake.training_job_status,
        "SecondaryStatus": fake.secondary_status,
    }


def _between(time: datetime, after: float | None, before: float | None) -> bool:
    seconds = time.replace(tzinfo=UTC).timestamp()  # moto's times are UTC without saying so
    return (after is None or seconds > float(after)) and (before is None or seconds < float(before))


def _refuse(operation: str) -> None:
    raise ValidationError(f"local_sagemaker does not support the operation {operation}")


def _simulate_principal_policy(response: IamResponse) -> ActionResult:
    """The SDK asks whether the role may do what training needs; here it may."""
    parameters = response._get_params()
    resources = parameters.get("ResourceArns") or ["*"]
    results = [
        {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"}
        for action in parameters.get("ActionNames") or []
        for resource in resources
    ]
    return ActionResult({"EvaluationResults": results, "IsTruncated": False})


def _get_role(response: IamResponse, get_role: Callable) -> ActionResult:
    """Any role that a script names is there: the SDK looks it up, and IAM is not enforced here."""
    try:
        return get_role(response)
    except NotFoundException:
        name = response._get_param("RoleName")
        response.backend.create_role(name, json.dumps(ROLE_TRUST), "/", None, "", [], None)
        return get_role(response)


def _as_role(identity: tuple[str, str, str]) -> tuple[str, str, str]:
    """Dummy credentials belong to the execution role, as in Studio, so that get_execution_role() works."""
    user, arn, account = identity
    if arn.endswith(":user/moto"):
        arn = f"arn:aws:sts::{account}:assumed-role/{ROLE_NAME}/SageMaker"
    return user, arn, account
