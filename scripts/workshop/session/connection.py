"""Open a session: the SDK session, role and bucket for AWS ("sagemaker") or for this machine ("local").

    ws = open_session(mode)
    trainer = ModelTrainer(sagemaker_session=ws.session, role=ws.role, environment=ws.environment, ...)

Local mode starts the local endpoint if none is running and points this kernel, and nothing else, at it.
"""

import getpass
import json
import os
import re
import secrets
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from job.tracking_uri import is_arn
from local_sagemaker import client
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.core.shapes import Tag
from sagemaker.core.training.configs import Networking

from workshop.checks.machine_checks import LONGEST_BASE_NAME
from workshop.errors import WorkshopError
from workshop.folders import BUILD, REPOSITORY, check_writable
from workshop.session.account import AccountSettings, read_account
from workshop.session.credentials import stay_signed_in
from workshop.session.telemetry import NO_TELEMETRY

MODES = ("local", "sagemaker")
_leave_session: Callable[[], None] | None = None
_session: "WorkshopSession | None" = None  # the one that is open
# In Studio and on notebook instances this file says who is working.
STUDIO_METADATA = Path("/opt/ml/metadata/resource-metadata.json")


class SessionError(WorkshopError):
    """No session could be opened: an unknown mode, or missing credentials, region, role or bucket."""


@dataclass
class WorkshopSession:
    """What a notebook needs to create training jobs, the same in both modes."""

    mode: str
    session: Session = field(repr=False)
    role: str
    bucket: str
    region: str
    tracking_uri: str | None = field(repr=False)  # holds a path of this machine in local mode
    endpoint_url: str | None
    user: str = ""  # part of each name, so that people who share an account do not meet; empty in local mode
    account: AccountSettings = field(default_factory=AccountSettings, repr=False)  # aws.yaml

    @property
    def networking(self) -> Networking | None:
        """VPC and network isolation, for ModelTrainer(networking=...); None where the account asks for neither."""
        return self.account.networking()

    @property
    def tags(self) -> list[Tag] | None:
        """For ModelTrainer(tags=...)."""
        return self.account.sdk_tags()

    @property
    def kms_key(self) -> str | None:
        """The key that a job's output is encrypted with, for OutputDataConfig(kms_key_id=...)."""
        return self.account.kms_key

    def volume_kms_key(self, instance_type: str) -> str | None:
        """The key for a job's disk, for Compute(volume_kms_key_id=...); None where the instance takes none."""
        return self.account.volume_kms_key(instance_type)

    def unique(self, name: str) -> str:
        """A name that no one else uses, for a job, its data and its checkpoints: "grpo" -> "grpo-ana-3f9c2a".

        Raises SessionError when it would be too long for a training job.
        """
        made = "-".join(filter(None, [name, self.user, secrets.token_hex(3)]))
        if len(made) > LONGEST_BASE_NAME:
            raise SessionError(
                f"The name {made!r} has {len(made)} characters, {LONGEST_BASE_NAME} are allowed: shorten {name!r}."
            )
        return made

    @property
    def environment(self) -> dict[str, str]:
        """Environment of a job: where to track its run, names of secrets, and which revision of the workshop it is."""
        variables = {"WORKSHOP_GIT_REVISION": git_revision(), **self.account.job_environment()}
        if self.tracking_uri:
            variables["MLFLOW_TRACKING_URI"] = self.tracking_uri
        return variables

    def close(self) -> None:
        """Leave local mode: give this kernel its own AWS settings back and stop the idle endpoint.

        With a job still running, another notebook at work, or in "sagemaker" mode, nothing is stopped. The settings are given
        back whatever happens, also if the endpoint has ended; closed again, or after another session was opened, this one
        changes nothing.
        """
        if _session is not self:
            print("This session is closed already: nothing to do.")
            return
        if self.endpoint_url is None:
            _restore_kernel()
            return
        try:
            ended = client.end_of(self.endpoint_url)
            running = [] if ended else _running_jobs(self.session)
        except (BotoCoreError, ClientError) as error:
            # It may have been about to end.
            ended, running = client.end_of(self.endpoint_url) or f"it does not answer ({error})", []
        finally:
            _restore_kernel()
        if ended:
            print(f"The local endpoint had ended before: {ended}. This kernel has its own settings back.")
            print("open_session starts it again, with all its jobs, logs and files.")
        elif running:
            print(f"The local endpoint keeps running: {', '.join(running)} not finished.")
            print("Stop it, jobs included, with: python -m local_sagemaker shutdown")
        elif client.shutdown_if_unused():
            print("The local endpoint is stopped; results stay under build/.")
        else:
            print("The local endpoint keeps running: another notebook uses it.")


def open_session(
    mode: str = "local",
    *,
    region: str | None = None,
    role: str | None = None,
    bucket: str | None = None,
    tracking_uri: str | None = None,
) -> WorkshopSession:
    """Open a session in `mode`: "local" (no account, GPU or Docker) or "sagemaker" (your AWS account).

    What is not passed in "sagemaker" mode is taken from the file aws.yaml, if there is one (workshop.session.account).

    Args:
        region: AWS region; default: your AWS settings, us-east-1 in local mode.
        role: the role a job runs with, as ARN or name; default: the role of the Studio space or notebook.
        bucket: where data, code and results go; default: the SDK's own `sagemaker-<region>-<account>`.
        tracking_uri: MLflow store for jobs (an ARN on AWS); default: a database under build/ in local mode,
            inside the job's own output otherwise.

    Raises FolderError when build/ cannot be written, SessionError when the mode is unknown, or credentials, region, role or
    bucket cannot be had; AccountError when aws.yaml is not right.
    """
    if mode not in MODES:
        raise SessionError(f"mode={mode!r} is unknown: use one of {', '.join(map(repr, MODES))}.")
    global _session
    check_writable(BUILD)
    _restore_kernel()
    try:
        if mode == "local":
            _session = _open_local(region or client.REGION, role, bucket, tracking_uri)
        else:
            account = read_account()
            role, bucket = role or account.role, bucket or account.bucket
            _session = _open_aws(region, role, bucket, tracking_uri or account.tracking_uri, account)
    except BaseException:
        _restore_kernel()  # nothing of a session that was not opened
        raise
    return _session


def git_revision() -> str:
    """Commit of this checkout, with "-dirty" after it when files were changed; "unknown" without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            cwd=REPOSITORY,
            check=False,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return described.stdout.strip() or "unknown"


def user_name() -> str:
    """Who is working, as it may stand in a job's name: the Studio user profile, else this machine's user."""
    try:
        name = json.loads(STUDIO_METADATA.read_text(encoding="utf-8")).get("UserProfileName") or ""
    except (OSError, ValueError, AttributeError):
        name = ""
    if not name:
        try:
            name = getpass.getuser()
        except (OSError, KeyError):  # a container whose user id has no name
            name = "user"
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:12].strip("-") or "user"


def _open_local(
    region: str, role: str | None, bucket: str | None, tracking_uri: str | None
) -> WorkshopSession:
    global _leave_session
    if tracking_uri and is_arn(tracking_uri):
        raise SessionError(
            f"{tracking_uri} is an MLflow of AWS's, and in local mode nothing goes there: leave tracking_uri empty, or name a "
            "server (http://...)."
        )
    in_use = client.use()  # first, so that no other notebook's close() stops what is found here
    endpoint = client.ensure_endpoint()
    disconnect = client.connect(endpoint, region)

    def leave() -> None:
        disconnect()
        in_use.close()

    _leave_session = leave
    # A run without an account or a network reaches no one.
    session = Session(boto3.Session(), default_bucket=bucket, sagemaker_config=NO_TELEMETRY)
    if tracking_uri is None:
        database = BUILD / "mlflow" / "mlflow.db"
        database.parent.mkdir(parents=True, exist_ok=True)
        tracking_uri = f"sqlite:///{database}"
    opened = WorkshopSession(
        mode="local",
        session=session,
        role=role or client.ROLE_ARN,
        bucket=session.default_bucket(),
        region=region,
        tracking_uri=tracking_uri,
        endpoint_url=endpoint.url,
    )
    print(f"Local mode: AWS calls of this kernel go to {endpoint.url} with dummy credentials; none leaves")
    print("this machine. Jobs run here as processes, on the same requests that AWS would get.")
    return opened


def _open_aws(
    region: str | None,
    role: str | None,
    bucket: str | None,
    tracking_uri: str | None,
    account: AccountSettings,
) -> WorkshopSession:
    account_help = (
        "Run `aws configure` (or `aws sso login`), or open this notebook in SageMaker Studio. Without an AWS "
        'account, use mode = "local".'
    )
    _set_for_this_session(account.kernel_environment())
    try:
        boto_session = stay_signed_in(boto3.Session(region_name=region))
        if boto_session.region_name is None:
            raise SessionError(f"No AWS region is set. Pass region='us-east-1' or the like. {account_help}")
        identity = boto_session.client("sts").get_caller_identity()
        session = Session(boto_session, default_bucket=bucket)
        role = role or _own_role(session, identity)
        bucket = session.default_bucket()
        _check_region(session, bucket)
    except (BotoCoreError, ClientError) as error:
        raise SessionError(f"AWS cannot be used from here: {error}\n{account_help}") from error
    boto3.DEFAULT_SESSION = boto_session  # for boto3.client(...) in the notebook
    print(f"SageMaker mode: account {identity['Account']}, region {session.boto_region_name}.")
    print(f"Jobs are created in this account and cost money. Role: {role}. Bucket: {bucket}.")
    return WorkshopSession(
        mode="sagemaker",
        session=session,
        role=role,
        bucket=bucket,
        region=session.boto_region_name,
        tracking_uri=tracking_uri,
        endpoint_url=None,
        user=user_name(),
        account=account,
    )


def _set_for_this_session(variables: dict[str, str]) -> None:
    """Set environment variables until the next session is opened."""
    global _leave_session
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)

    def leave() -> None:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value

    _leave_session = leave


def _check_region(session: Session, bucket: str) -> None:
    """Raises SessionError for a bucket of another region: a job reads its channels in its own region alone.

    Where the bucket may not be asked, nothing is said: what needs it will.
    """
    try:
        found = session.boto_session.client("s3").head_bucket(Bucket=bucket).get("BucketRegion")
    except ClientError:
        return
    if found and found != session.boto_region_name:
        raise SessionError(
            f"The bucket {bucket} is in {found}, and this session in {session.boto_region_name}: SageMaker takes a job's data "
            f"from its own region. Pass region={found!r}, or a bucket that is in {session.boto_region_name}."
        )


def _own_role(session: Session, identity: dict) -> str:
    """The role of the Studio space or notebook instance this runs in."""
    try:
        return get_execution_role(session)
    except ValueError as error:
        raise SessionError(
            f"You are {identity['Arn']}, which is not a role that SageMaker can run a job with. Pass the name or "
            f"ARN of one: open_session('sagemaker', role='arn:aws:iam::{identity['Account']}:role/<name>')."
        ) from error


def _restore_kernel() -> None:
    """Undo what the last session changed in this process, so that the next one starts from the real settings."""
    global _leave_session, _session
    _session = None
    leave, _leave_session = _leave_session, None
    if leave is not None:
        leave()


def _running_jobs(session: Session) -> list[str]:
    jobs = []
    for status in ("InProgress", "Stopping"):
        pages = session.sagemaker_client.get_paginator("list_training_jobs").paginate(StatusEquals=status)
        jobs += [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
    return jobs
