"""What the endpoint was asked for, by whom: calls.jsonl in its home, one line for each IAM action that a request needs.

    {"time": "2026-11-26T10:00:00.123+00:00", "caller": "notebook", "action": "s3:PutObject",
     "resource": "arn:aws:s3:::bucket/data/train.jsonl"}

Actions have the names that an IAM policy gives them, which for S3 are not those of the operations
(https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazons3.html, read 2026-11). A request that
starts a job needs iam:PassRole for the job's role too, and sagemaker:AddTags when it has tags
(https://docs.aws.amazon.com/sagemaker/latest/dg/sagemaker-roles.html).
"""

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from local_sagemaker.api.asked import Asked
from local_sagemaker.home import note

# The access key says who asks. All others, those that client.connect() sets included, are a notebook's.
JOB_KEY = "local-job"  # a job's own calls, which the job's role allows on AWS
SERVICE_KEY = "local-service"  # the endpoint's, which stand for SageMaker's, with the job's role too
_CALLERS = {JOB_KEY: "job", SERVICE_KEY: "service"}
# The member of a request that says what it is about; a request has one of them at most.
_RESOURCES = (
    "TrainingJobName ResourceArn logGroupName SecretId RoleName PolicySourceArn RoleArn StatusEquals".split()
)
_BUCKET_ACTIONS = {
    "HEAD": "ListBucket",
    "GET": "ListBucket",
    "PUT": "CreateBucket",
    "DELETE": "DeleteBucket",
    "GET location": "GetBucketLocation",
    "GET uploads": "ListBucketMultipartUploads",
    "POST delete": "DeleteObject",
}
_OBJECT_ACTIONS = {
    "HEAD": "GetObject",
    "GET": "GetObject",
    "PUT": "PutObject",
    "DELETE": "DeleteObject",
    "POST uploads": "PutObject",
    "PUT uploadId": "PutObject",
    "POST uploadId": "PutObject",
    "GET uploadId": "ListMultipartUploadParts",
    "DELETE uploadId": "AbortMultipartUpload",
}
# Keys of a query that make another operation of a request, and so may need another action.
_SUBRESOURCES = re.compile(
    r"(acl|attributes|cors|delete|encryption|legal-hold|lifecycle|location|logging|notification|object-lock|"
    r"ownershipControls|policy|publicAccessBlock|replication|restore|retention|select|tagging|torrent|uploadId|"
    r"uploads|versionId|versioning|versions|website)(=|$)"
)


class Action(NamedTuple):
    """An IAM action and what it is done to: an ARN for S3, else the name in the request, None where it has none."""

    name: str
    resource: str | None


class CallLog:
    """Writes down the actions of requests; may be called from many threads."""

    def __init__(self, file: Path):
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(file, "a", encoding="utf-8", buffering=1)
        self._lock = threading.Lock()
        self._complete = True

    def add(self, environ: dict, asked: Asked) -> None:
        """Write down the request of this WSGI environment, whether it is carried out or refused."""
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        for action in _actions(environ, asked):
            line = {"time": time, "caller": _CALLERS.get(asked.key, "notebook"), "action": action.name}
            with self._lock:
                try:
                    self._file.write(json.dumps(line | {"resource": action.resource}) + "\n")
                    self._complete = True
                except OSError as error:  # the request itself, to stop a job for example, may need no space
                    if self._complete:
                        note(f"{self._file.name} lacks requests, since it cannot be written: {error}")
                    self._complete = False


def _actions(environ: dict, asked: Asked) -> list[Action]:
    if asked.service == "s3":
        return _s3_actions(environ)
    resource = next((str(asked.members[name]) for name in _RESOURCES if name in asked.members), None)
    actions = [Action(f"{asked.service}:{asked.operation}", resource)]
    if asked.operation == "CreateTrainingJob":
        actions.append(Action("iam:PassRole", asked.members.get("RoleArn")))
        actions += [Action("sagemaker:AddTags", resource)] if asked.members.get("Tags") else []
    return actions


def _s3_actions(environ: dict) -> list[Action]:
    """By method, path and query, as S3 itself tells its operations apart."""
    method = environ["REQUEST_METHOD"]
    bucket, _, key = environ.get("PATH_INFO", "").lstrip("/").partition("/")
    if not bucket:
        return [Action("s3:ListAllMyBuckets", None)]
    parts = environ.get("QUERY_STRING", "").split("&")
    subresources = [found.group(1) for part in parts if (found := _SUBRESOURCES.match(part))]
    operation = " ".join([method, *subresources])
    name = (_OBJECT_ACTIONS if key else _BUCKET_ACTIONS).get(operation)
    resource = f"arn:aws:s3:::{bucket}" + (f"/{key}" if key else "")
    actions = [Action(f"s3:{name or operation}", resource)]  # an operation without a name here shows as it is
    source = unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", "")).lstrip("/")
    return actions + ([Action("s3:GetObject", f"arn:aws:s3:::{source}")] if source else [])
