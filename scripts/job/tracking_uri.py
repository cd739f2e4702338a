"""Where MLflow keeps runs: what a tracking URI looks like, and whether its server answers.

| URI | what it is |
|---|---|
| none | a database among the job's own outputs, with the artifacts beside it |
| sqlite:///... | a database on this machine, which jobs of local mode share |
| http://..., https://... | an MLflow server |
| arn:...:mlflow-tracking-server/<name>, arn:...:mlflow-app/<id> | MLflow hosted by SageMaker, through sagemaker-mlflow |

Whoever talks to a server sets MLflow to its URI first (`mlflow.set_tracking_uri`): sagemaker-mlflow signs its requests
with what it finds there.
"""

import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

OWN_STORE = "mlflow.db"  # in a job's output folder
# As botocore 1.44 has them (MlflowAppArn, AIMlflowResourceArn); the partitions are those of sagemaker-mlflow 0.5.0.
_ARN = re.compile(
    r"arn:(aws|aws-us-gov):sagemaker:[a-z0-9-]+:\d{12}:mlflow-(tracking-server|app)/[A-Za-z0-9][A-Za-z0-9-]*"
)
# The first call, instead of MLflow's 7 retries of up to 120 s each: a refused connection is told after 15 s, a silent
# one after about a minute.
_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3", "MLFLOW_HTTP_REQUEST_TIMEOUT": "12"}
_QUIET = (
    "mlflow.tracking.request_header.registry",  # sagemaker-mlflow expects an ARN and finds another URI: harmless
    "urllib3.connectionpool",  # each retry
)


def own_store(folder: Path) -> str:
    """URI of the database that a job without a tracking URI keeps in its output folder."""
    return f"sqlite:///{folder / OWN_STORE}"


def is_arn(uri: str) -> bool:
    """True for MLflow hosted by SageMaker."""
    return uri.startswith("arn:")


def is_server(uri: str) -> bool:
    """True for what is reached over the network."""
    return is_arn(uri) or uri.startswith(("http://", "https://"))


def uri_problem(uri: str) -> str | None:
    """What is wrong with the form of a tracking URI; None: nothing."""
    if is_arn(uri) and not _ARN.fullmatch(uri):
        return (
            f"{uri} is not the ARN of an MLflow tracking server or MLflow App. One looks like "
            "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-ABC123 or "
            "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/name; `aws sagemaker list-mlflow-apps` and "
            "`aws sagemaker list-mlflow-tracking-servers` show yours."
        )
    if not is_arn(uri) and "://" not in uri:
        return f"{uri!r} is not a tracking URI: it starts with arn:, https://, http:// or sqlite:///."
    return None


def contact_problem(uri: str) -> str | None:
    """Why the server at `uri`, which MLflow is set to, does not answer; None: it does, or there is no server."""
    from mlflow import MlflowClient

    if not is_server(uri):
        return None
    quiet_plugin(uri)
    try:
        with _little_patience():
            MlflowClient().search_experiments(max_results=1)
    except Exception as error:  # of MLflow, botocore, or the plugin: they have no common base
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        return f"MLflow at {uri} cannot be used: {reason[:400]}\n{_what_to_do(uri)}"
    return None


def quiet_plugin(uri: str) -> None:
    """Keeps sagemaker-mlflow from warning at each request to a server that SageMaker does not host."""
    logging.getLogger(_QUIET[0]).setLevel(logging.NOTSET if is_arn(uri) else logging.ERROR)


def _what_to_do(uri: str) -> str:
    if is_arn(uri):
        # The tracking server's actions: Service Authorization Reference, "Amazon SageMaker with MLflow" (2026-11).
        return (
            "Is the ARN right, and the tracking server not stopped? May the role that runs this use it (sagemaker-mlflow:* "
            "on a tracking server, sagemaker:CallMlflowAppApi on an App), and does the network lead there? "
            "Without a tracking_uri the run is kept in the job's own output."
        )
    return (
        "Does the server run, and can it be reached from this machine? In a job, 127.0.0.1 is the job's own. "
        "Without a tracking_uri the run is kept in the job's own output."
    )


@contextmanager
def _little_patience() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _PATIENCE}
    levels = {name: logging.getLogger(name).level for name in _QUIET}
    os.environ.update({name: value for name, value in _PATIENCE.items() if before[name] is None})
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
