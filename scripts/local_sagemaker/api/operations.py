"""The AWS operations that are answered differently from moto: subclasses, entered into moto's tables of URLs.

moto keeps the state (S3, IAM, Logs, the description of each job) and answers the other operations that are carried
out; allowed.py says which, and no others get here. None of its methods is replaced: its server looks up in
`moto.<service>.urls.url_paths` which class answers a service, and `install` puts the classes of this file there. The
rest of the endpoint relies on moto's internals in few places (here, api/service.py, api/record.py, api/buckets.py,
api/earlier_jobs.py, api/log_events.py), so moto is pinned and what they need is checked at the start.
"""

import importlib.metadata
import json

import moto.iam.urls
import moto.logs.urls
import moto.sagemaker.urls
import moto.servicequotas.urls
import moto.sts.urls
from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.responses import ActionResult, EmptyResult
from moto.iam.exceptions import NotFoundException
from moto.iam.models import IAMBackend, iam_backends
from moto.iam.responses import IamResponse
from moto.logs.models import LogStream
from moto.logs.responses import LogsResponse
from moto.s3.models import FakeKey, S3Backend
from moto.sagemaker.models import FakeTrainingJob, SageMakerModelBackend
from moto.sagemaker.responses import SageMakerResponse
from moto.servicequotas.responses import ServiceQuotasResponse
from moto.sts.responses import TokenResponse

from local_sagemaker.api.log_events import filter_log_events
from local_sagemaker.api.search import search
from local_sagemaker.api.service import TrainingService
from local_sagemaker.api.service_limits import service_quotas
from local_sagemaker.client import ROLE_NAME

MOTO_VERSION = "5.2.5"
ROLE_TRUST = {
    "Version": "2012-10-17",
    "Statement": [
        {"Effect": "Allow", "Principal": {"Service": "sagemaker.amazonaws.com"}, "Action": "sts:AssumeRole"}
    ],
}
ONLY_PATH = "{0}/$"  # these services have a single URL; the operation is in the request
_RELIED_ON = [
    (SageMakerResponse, "create_training_job"),
    (SageMakerResponse, "list_training_jobs"),
    (SageMakerResponse, "search"),
    (SageMakerResponse, "sagemaker_backend"),
    (SageMakerModelBackend, "describe_training_job"),
    (FakeTrainingJob, "response_object"),
    (LogsResponse, "filter_log_events"),
    (LogsResponse, "logs_backend"),
    (IamResponse, "_get_params"),
    (IamResponse, "get_role"),
    (IAMBackend, "create_role"),
    (TokenResponse, "get_caller_identity"),
    (S3Backend, "put_object"),
    (S3Backend, "put_object_tagging"),
    (S3Backend, "complete_multipart_upload"),
    (FakeKey, "dispose"),
    (LogStream, "put_log_events"),
]


class UnknownMoto(RuntimeError):
    """The installed moto is not the one that this endpoint extends."""


def install(service: TrainingService) -> None:
    """Make moto's server in this process answer with the classes below. Call it before the first request.

    Raises UnknownMoto if moto is not as expected.
    """
    _check_moto()

    class BoundSageMakerOperations(SageMakerOperations):  # moto makes one object for each request
        training_service = service

    moto.sagemaker.urls.url_paths = {ONLY_PATH: BoundSageMakerOperations.dispatch}
    moto.logs.urls.url_paths = {ONLY_PATH: LogsOperations.dispatch}
    moto.iam.urls.url_paths = {ONLY_PATH: IamOperations.dispatch}
    moto.sts.urls.url_paths = {ONLY_PATH: StsOperations.dispatch}
    moto.servicequotas.urls.url_paths = {ONLY_PATH: QuotaOperations.dispatch}
    _create_role(iam_backends[DEFAULT_ACCOUNT_ID]["aws"], ROLE_NAME, "/service-role/")


def _create_role(backend: IAMBackend, name: str, path: str) -> None:
    backend.create_role(name, json.dumps(ROLE_TRUST), path, None, "", [], None)


def _check_moto() -> None:
    installed = importlib.metadata.version("moto")
    if installed != MOTO_VERSION:
        raise UnknownMoto(f"moto {installed} is installed, but this endpoint is made for moto {MOTO_VERSION}")
    missing = [f"{owner.__name__}.{name}" for owner, name in _RELIED_ON if not hasattr(owner, name)]
    for urls in (moto.sagemaker.urls, moto.logs.urls, moto.iam.urls, moto.sts.urls, moto.servicequotas.urls):
        if list(urls.url_paths) != [ONLY_PATH]:
            missing.append(f"{urls.__name__}.url_paths with {ONLY_PATH} alone")
    if missing:
        raise UnknownMoto(f"This moto lacks {', '.join(missing)}")


class SageMakerOperations(SageMakerResponse):
    """Training jobs that really run. DescribeTrainingJob and the tags stay moto's."""

    training_service: TrainingService

    def create_training_job(self) -> ActionResult:
        """CreateTrainingJob: checked as a whole, entered into moto's state, and queued."""
        return self.training_service.create(
            json.loads(self.body), self.region, self.sagemaker_backend, super().create_training_job
        )

    def stop_training_job(self) -> EmptyResult:
        """StopTrainingJob, which moto does not have."""
        self.training_service.stop(self._get_param("TrainingJobName"), self.sagemaker_backend)
        return EmptyResult()

    def list_training_jobs(self) -> ActionResult:
        """ListTrainingJobs: moto never sorts, and pages before all filters."""
        return ActionResult(self.training_service.list_jobs(json.loads(self.body), self.sagemaker_backend))

    def search(self) -> ActionResult:
        """Search: moto knows two of its ten operators, no order and no pages."""
        jobs = tuple(self.sagemaker_backend.training_jobs.values())
        descriptions = [{**job.response_object, "Tags": job.tags} for job in jobs]
        return ActionResult(search(json.loads(self.body), descriptions))


class LogsOperations(LogsResponse):
    """The logs of jobs."""

    def filter_log_events(self) -> str:
        """FilterLogEvents: moto ignores a prefix, and most patterns."""
        return json.dumps(filter_log_events(self.logs_backend, json.loads(self.body)))


class IamOperations(IamResponse):
    """IAM is not enforced: every role exists and may do what training needs."""

    def get_role(self) -> ActionResult:
        """GetRole: the SDK looks up whatever role a script names, so one that is missing is created."""
        try:
            return super().get_role()
        except NotFoundException:
            _create_role(self.backend, self._get_param("RoleName"), "/")
            return super().get_role()

    def simulate_principal_policy(self) -> ActionResult:
        """SimulatePrincipalPolicy, which moto does not have: the SDK's constructor asks, and all is allowed."""
        parameters = self._get_params()
        resources = parameters.get("ResourceArns") or ["*"]
        results = [
            {"EvalActionName": action, "EvalResourceName": resource, "EvalDecision": "allowed"}
            for action in parameters.get("ActionNames") or []
            for resource in resources
        ]
        return ActionResult({"EvaluationResults": results, "IsTruncated": False})


class StsOperations(TokenResponse):
    """Dummy credentials belong to the execution role, as in Studio, so that get_execution_role() works."""

    def get_caller_identity(self) -> ActionResult:
        """GetCallerIdentity: moto's default user becomes a session of the execution role."""
        identity = super().get_caller_identity().result
        if identity["Arn"].endswith(":user/moto"):
            arn = f"arn:aws:sts::{identity['Account']}:assumed-role/{ROLE_NAME}/SageMaker"
            identity = {**identity, "Arn": arn}
        return ActionResult(identity)


class QuotaOperations(ServiceQuotasResponse):
    """Every type has the same quota here, and it is never reached: what runs is bound by this machine alone."""

    def list_service_quotas(self) -> str:
        """ListServiceQuotas, which moto does not have, of SageMaker's training jobs; no other service has any."""
        if json.loads(self.body).get("ServiceCode") != "sagemaker":
            return json.dumps({"Quotas": []})
        return json.dumps({"Quotas": service_quotas()})
