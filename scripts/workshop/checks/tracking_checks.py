"""Preflight of where a job keeps its MLflow run: the tracking URI, before the job meets it."""

from collections.abc import Iterator
from urllib.parse import urlsplit

from job.tracking_uri import is_arn, uri_problem

from workshop.checks.request import OK, PROBLEM, WARNING, Check, JobRequest
from workshop.checks.request_checks import installed_packages

_LOOPBACK = ("127.0.0.1", "localhost", "::1", "0.0.0.0")
_KEPT = "sqlite:////opt/ml/"  # of a container's folders, those that SageMaker keeps


def check_tracking(request: JobRequest) -> Iterator[Check]:
    """Nothing for a job without MLFLOW_TRACKING_URI, which keeps its run among its outputs."""
    uri = request.environment.get("MLFLOW_TRACKING_URI")
    if not uri:
        return
    problems = list(_problems(request, uri))
    yield from (Check("tracking", PROBLEM, problem) for problem in problems)
    if problems:
        return
    if is_arn(uri) and uri.split(":")[3] != request.region:
        yield Check(
            "tracking", WARNING, f"the job runs in {request.region}, its MLflow is in {uri.split(':')[3]}"
        )
    else:
        yield Check("tracking", OK, f"MLflow: {uri.rpartition(':')[2] if is_arn(uri) else uri}")


def _problems(request: JobRequest, uri: str) -> Iterator[str]:
    if problem := uri_problem(uri):
        yield f"tracking_uri: {problem}"
        return
    if is_arn(uri) and "sagemaker-mlflow" not in (installed_packages(request) or {"sagemaker-mlflow"}):
        yield f"MLflow by ARN needs sagemaker-mlflow, which {request.requirements} does not install: add it there"
    if request.local:
        return
    if urlsplit(uri).hostname in _LOOPBACK:
        yield f"in a job {uri} is the job's own machine: name a server that AWS can reach, or an MLflow ARN"
    if uri.startswith(("sqlite:", "file:")) and not uri.startswith(_KEPT):
        yield (
            f"{uri} is a file of this machine, which the job has not: leave tracking_uri out (the run is kept in the "
            "job's output), or name an MLflow server or ARN"
        )
