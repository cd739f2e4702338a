"""Sessions: local mode changes this process only, and gives everything back."""

import os
import re
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import boto3
import botocore.exceptions
import pytest
from endpoint_fixtures import IMAGE, SMALL_BASE
from job_variables import SHARED
from local_sagemaker import client
from sagemaker.train.utils import _get_unique_name
from workshop.session import connection
from workshop.session.connection import SessionError, git_revision, open_session


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    """An endpoint home of this test's own; whatever is started there is stopped."""
    folder = tmp_path / "home"
    monkeypatch.setenv("LOCAL_SAGEMAKER_HOME", str(folder))
    base = tmp_path / "base.txt"
    base.write_text(SMALL_BASE)
    monkeypatch.setenv("LOCAL_SAGEMAKER_BASE_REQUIREMENTS", str(base))
    yield folder
    connection._restore_kernel()
    client.shutdown(folder)


@pytest.fixture
def own_settings(monkeypatch, tmp_path) -> dict[str, str]:
    """The AWS settings of somebody who has an account."""
    credentials = tmp_path / "credentials"
    credentials.write_text("[work]\naws_access_key_id = mine\naws_secret_access_key = mine\n")
    settings = {
        "AWS_PROFILE": "work",
        "AWS_SHARED_CREDENTIALS_FILE": str(credentials),
        "AWS_SESSION_TOKEN": "mine",
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ENDPOINT_URL_S3": "https://s3.example.com",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    return settings


def aws_variables() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


@pytest.mark.endpoint
def test_local_mode_opens_restores_and_reopens(home, own_settings, capsys):
    from sagemaker.core.helper import session_helper

    before, sts = aws_variables(), session_helper.sts_regional_endpoint
    ws = open_session("local")
    assert ws.endpoint_url.startswith("http://127.0.0.1:") and ws.endpoint_url in capsys.readouterr().out
    assert boto3.client("s3").meta.endpoint_url == ws.endpoint_url
    assert boto3.Session().get_credentials().access_key != "mine"
    assert ws.bucket in [bucket["Name"] for bucket in boto3.client("s3").list_buckets()["Buckets"]]
    assert ws.session.account_id() == "123456789012"  # through the SDK's own, explicit STS address
    assert ws.environment["MLFLOW_TRACKING_URI"].startswith("sqlite:///")
    assert Path(ws.environment["MLFLOW_TRACKING_URI"].removeprefix("sqlite:///")).parent.is_dir()

    again = open_session("local", bucket="my-bucket", tracking_uri="sqlite:////tmp/mine.db")
    assert (again.endpoint_url, again.bucket) == (ws.endpoint_url, "my-bucket")
    assert again.environment["MLFLOW_TRACKING_URI"] == "sqlite:////tmp/mine.db"

    again.close()
    assert aws_variables() == before
    assert session_helper.sts_regional_endpoint is sts
    assert client.find_endpoint(home) is None


@pytest.mark.endpoint
def test_a_switch_to_aws_uses_the_own_settings_again(home, monkeypatch, tmp_path, own_settings):
    before = aws_variables()
    ws = open_session("local")
    # An AWS that refuses the credentials: nothing of AWS is reached, and nothing of local mode is left.
    monkeypatch.setattr(connection.boto3, "Session", _refused)
    with pytest.raises(SessionError, match="ExpiredToken"):
        open_session("sagemaker")
    assert aws_variables() == before
    assert client.find_endpoint(home).url == ws.endpoint_url  # other notebooks may use it


def _refused(region_name=None):
    from botocore.exceptions import ClientError

    raise ClientError({"Error": {"Code": "ExpiredToken", "Message": "expired"}}, "GetCallerIdentity")


NO_ACCOUNT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


def run_python(code: str, **environment) -> subprocess.CompletedProcess:
    """Run code in a process of its own without any AWS settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    clean |= NO_ACCOUNT | {"PYTHONPATH": str(SHARED)}
    return subprocess.run(
        [sys.executable, "-c", code], env=clean | environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.parametrize(
    ("region", "profile", "message"),
    [
        (None, None, "No AWS region is set"),
        ("us-east-1", None, "Unable to locate credentials"),
        (None, "none", "profile (none) could not be found"),
    ],
)
def test_without_an_account_the_error_says_what_to_do(region, profile, message, monkeypatch):
    for name in aws_variables():
        monkeypatch.delenv(name)
    for name, value in (NO_ACCOUNT | ({"AWS_PROFILE": profile} if profile else {})).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SessionError) as refused:
        open_session("sagemaker", region=region)
    said = str(refused.value)
    assert message in said and "aws configure" in said and 'mode = "local"' in said


@pytest.mark.endpoint
def test_an_identity_that_is_no_role_is_told_to_pass_one(home):
    """sts:GetCallerIdentity of the endpoint under another name stands for an IAM user's."""
    code = (
        "from local_sagemaker import client\n"
        "import workshop.session.connection as s\n"
        "client.connect(client.ensure_endpoint())\n"
        "def no_role(session): raise ValueError('The current AWS identity is not a role')\n"
        "s.get_execution_role = no_role\n"
        "s.open_session('sagemaker')\n"
    )
    done = run_python(code, LOCAL_SAGEMAKER_HOME=str(home))
    assert "is not a role that SageMaker can run a job with" in done.stderr, done.stderr
    assert "role='arn:aws:iam::123456789012:role/<name>'" in done.stderr


@pytest.mark.endpoint
def test_a_bucket_of_another_region_is_refused(home):
    code = (
        "import boto3\n"
        "from local_sagemaker import client\n"
        "import workshop.session.connection as s\n"
        "client.connect(client.ensure_endpoint())\n"
        "there = {'LocationConstraint': 'eu-west-1'}\n"
        "boto3.client('s3').create_bucket(Bucket='elsewhere', CreateBucketConfiguration=there)\n"
        "print(s.open_session('sagemaker', region='eu-west-1', bucket='elsewhere').bucket)\n"
        "s.open_session('sagemaker', region='us-east-1', bucket='elsewhere')\n"
    )
    done = run_python(code, LOCAL_SAGEMAKER_HOME=str(home))
    assert done.stdout.endswith("elsewhere\n"), done.stderr
    assert "SessionError: The bucket elsewhere is in eu-west-1, and this session in us-east-1" in done.stderr
    assert "Pass region='eu-west-1', or a bucket that is in us-east-1." in done.stderr


def test_a_bucket_that_may_not_be_asked_stops_no_session():
    denied = botocore.exceptions.ClientError({"Error": {"Code": "403"}}, "HeadBucket")
    asked = MagicMock(boto_region_name="us-east-1")
    asked.boto_session.client.return_value.head_bucket.side_effect = denied
    connection._check_region(asked, "theirs")
    asked.boto_session.client.return_value.head_bucket.assert_called_once_with(Bucket="theirs")


def test_no_run_of_a_local_job_goes_to_aws(home):
    arn = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/mine"
    with pytest.raises(SessionError, match="in local mode nothing goes there: leave tracking_uri empty"):
        open_session("local", tracking_uri=arn)


def test_an_unknown_mode(home):
    with pytest.raises(SessionError, match="mode='Local' is unknown: use one of 'local', 'sagemaker'"):
        open_session("Local")


@pytest.mark.endpoint
def test_the_endpoint_stays_while_a_job_runs(home, tmp_path, capsys):
    from sagemaker.core.training.configs import Compute, SourceCode
    from sagemaker.train import ModelTrainer

    ws = open_session("local")
    (tmp_path / "train.py").write_text("import time; time.sleep(300)")
    trainer = ModelTrainer(
        sagemaker_session=ws.session,
        role=ws.role,
        training_image=IMAGE,
        source_code=SourceCode(source_dir=str(tmp_path), entry_script="train.py"),
        compute=Compute(instance_type="ml.m5.xlarge", instance_count=1),
        environment=ws.environment,
    )
    trainer.train(wait=False)
    ws.close()
    name = trainer._latest_training_job.training_job_name
    assert f"{name} not finished" in capsys.readouterr().out
    assert client.find_endpoint(home) is not None


@pytest.mark.endpoint
def test_the_endpoint_stays_while_another_notebook_uses_it(home, capsys):
    other = subprocess.Popen(
        [
            sys.executable,
            "-c",
            "from workshop.session.connection import open_session; open_session('local'); input()",
        ],
        env=os.environ | {"PYTHONPATH": str(SHARED)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert "Local mode" in other.stdout.readline()
        open_session("local").close()
        assert "another notebook uses it" in capsys.readouterr().out
        assert client.find_endpoint(home) is not None
    finally:
        other.kill()  # as a kernel that is shut down without close()
        other.communicate()
    open_session("local").close()
    assert "is stopped" in capsys.readouterr().out
    assert client.find_endpoint(home) is None


def test_the_revision_is_that_of_this_checkout(monkeypatch, tmp_path):
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b.c"]
    monkeypatch.setattr(connection, "REPOSITORY", tmp_path)
    assert git_revision() == "unknown"
    subprocess.run([*git, "init", "-q"], cwd=tmp_path, check=True)
    (tmp_path / "a").write_text("1")
    subprocess.run(["git", "add", "a"], cwd=tmp_path, check=True)
    subprocess.run([*git, "commit", "-q", "-m", "a"], cwd=tmp_path, check=True)
    clean = git_revision()
    (tmp_path / "a").write_text("2")
    assert len(clean) == 40 and git_revision() == f"{clean}-dirty"


def session(**changes) -> connection.WorkshopSession:
    plain = {
        "mode": "sagemaker",
        "session": None,
        "role": "role",
        "bucket": "bucket",
        "region": "us-east-1",
        "tracking_uri": None,
        "endpoint_url": None,
    }
    return connection.WorkshopSession(**(plain | changes))


def test_names_are_their_users_and_no_two_are_the_same():
    names = {session(user="ana").unique("grpo-fsdp") for _ in range(50)}
    assert len(names) == 50
    assert all(re.fullmatch(r"grpo-fsdp-ana-[0-9a-f]{6}", name) for name in names)
    assert re.fullmatch(r"dpo-[0-9a-f]{6}", session().unique("dpo"))


def test_the_time_stamp_of_a_job_is_never_cut_off():
    longest = session(user="twelvelong12").unique("x" * 28)
    assert len(longest) == 48 and _get_unique_name(longest).startswith(longest)
    assert len(_get_unique_name(longest)) == 63  # the SDK cuts here
    with pytest.raises(SessionError, match="49 characters, 48 are allowed: shorten"):
        session(user="twelvelong12").unique("x" * 29)


@pytest.mark.parametrize(
    "metadata, login, name",
    [
        ('{"UserProfileName": "Ana-Maria.Gomez"}', "sagemaker-user", "ana-maria-go"),
        ('{"ResourceName": "a notebook instance"}', "ec2-user", "ec2-user"),
        ("damaged", "Jörg", "j-rg"),
        (None, "ana", "ana"),
        (None, "___", "user"),
    ],
)
def test_the_user_is_that_of_studio_or_of_the_machine(monkeypatch, tmp_path, metadata, login, name):
    monkeypatch.setattr(connection, "STUDIO_METADATA", tmp_path / "resource-metadata.json")
    monkeypatch.setenv("LOGNAME", login)
    if metadata is not None:
        connection.STUDIO_METADATA.write_text(metadata)
    assert connection.user_name() == name


@pytest.mark.endpoint
def test_what_the_account_asks_for_reaches_the_session(home, tmp_path):
    account = tmp_path / "aws.yaml"
    account.write_text(
        "role: arn:aws:iam::123456789012:role/attendee\nbucket: our-bucket\ntags: {team: rl}\n"
        "tracking_uri: https://mlflow.example.com\nhf_secret_name: hub\nnetwork_isolation: true\n"
    )
    code = (
        "import functools\n"
        "from local_sagemaker import client\n"
        "import workshop.session.connection as s\n"
        "client.connect(client.ensure_endpoint())\n"
        f"s.read_account = functools.partial(s.read_account, __import__('pathlib').Path({str(account)!r}))\n"
        "ws = s.open_session('sagemaker')\n"
        "print(ws.role, ws.bucket, ws.tracking_uri, ws.environment['HF_SECRET_NAME'], ws.tags[0].value)\n"
        "print(ws.networking.enable_network_isolation, ws.kms_key, ws.volume_kms_key('ml.m5.xlarge'))\n"
        "print(s.open_session('sagemaker', bucket='mine').bucket)\n"
    )
    done = run_python(code, LOCAL_SAGEMAKER_HOME=str(home))
    lines = [line for line in done.stdout.splitlines() if "mode" not in line and "Jobs" not in line]
    assert lines == [
        "arn:aws:iam::123456789012:role/attendee our-bucket https://mlflow.example.com hub rl",
        "True None None",
        "mine",
    ], done.stdout + done.stderr


def test_what_a_session_set_is_undone_before_the_next(monkeypatch):
    monkeypatch.setenv("SAGEMAKER_VALIDATE_ROLE", "true")
    monkeypatch.delenv("AWS_ENDPOINT_URL_IAM", raising=False)
    connection._set_for_this_session({"SAGEMAKER_VALIDATE_ROLE": "false", "AWS_ENDPOINT_URL_IAM": "http://x"})
    assert os.environ["AWS_ENDPOINT_URL_IAM"] == "http://x"
    opened = session()
    monkeypatch.setattr(connection, "_session", opened)
    opened.close()
    assert os.environ["SAGEMAKER_VALIDATE_ROLE"] == "true" and "AWS_ENDPOINT_URL_IAM" not in os.environ
