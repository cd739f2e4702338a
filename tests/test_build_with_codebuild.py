"""05's image built by CodeBuild: what is asked of AWS, against moto; the build's commands, in a shell; how it ends.

Nothing is built here: moto has projects and builds, and no machines.
"""

import importlib.util
import io
import subprocess
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace

import boto3
import pytest
import yaml
from botocore.stub import Stubber
from moto import mock_aws

CONTAINER = Path(__file__).resolve().parents[1] / "05_grpo_verl" / "container"
REGION, BUCKET = "eu-south-1", "sagemaker-eu-south-1-123456789012"
IMAGE = "123456789012.dkr.ecr.eu-south-1.amazonaws.com/rl-workshop-verl:verl-0.9.1-0123456789ab"


@pytest.fixture(scope="module")
def codebuild():
    """The script, as a module."""
    spec = importlib.util.spec_from_file_location(
        "build_with_codebuild", CONTAINER / "build_with_codebuild.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def aws(monkeypatch):
    """An account with the SDK's bucket, and moto in the place of AWS."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    for name in ("AWS_PROFILE", "AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with mock_aws():
        session = boto3.Session(region_name=REGION)
        session.client("s3").create_bucket(
            Bucket=BUCKET, CreateBucketConfiguration={"LocationConstraint": REGION}
        )
        yield session


@pytest.fixture
def run(codebuild, aws, monkeypatch):
    """run(arguments...): the script as a user starts it; moto's builds do not export, so their URI is put in."""
    monkeypatch.setattr(codebuild, "image_of", lambda found: IMAGE)
    monkeypatch.setattr(codebuild, "POLL_SECONDS", 0)

    def run(*arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["build_with_codebuild.py", REGION, *arguments])
        codebuild.main()

    return run


def test_a_first_run_makes_role_and_project_and_prints_the_uri(run, aws, capsys):
    run()
    assert capsys.readouterr().out.strip() == IMAGE
    (project,) = aws.client("codebuild").batch_get_projects(names=["rl-workshop-image"])["projects"]
    assert project["environment"]["privilegedMode"] is True, "or there is no Docker in it"
    assert project["source"]["location"] == f"{BUCKET}/rl-workshop-image/source.zip"
    role = aws.client("iam").get_role(RoleName="rl-workshop-image")["Role"]
    assert project["serviceRole"] == role["Arn"]
    trusted = [one["Principal"] for one in role["AssumeRolePolicyDocument"]["Statement"]]
    assert trusted == [{"Service": "codebuild.amazonaws.com"}]


def test_the_source_is_what_the_tag_is_made_of(run, aws):
    run()
    body = aws.client("s3").get_object(Bucket=BUCKET, Key="rl-workshop-image/source.zip")["Body"].read()
    with zipfile.ZipFile(io.BytesIO(body)) as archive:
        sent = {name: archive.read(name) for name in archive.namelist()}
    assert sent == {
        name: (CONTAINER / name).read_bytes()
        for name in ("Dockerfile", "requirements.txt", "build_and_push.sh")
    }


def test_a_second_run_makes_nothing_anew(run, aws):
    run()
    role = aws.client("iam").get_role(RoleName="rl-workshop-image")["Role"]
    run()
    assert aws.client("iam").get_role(RoleName="rl-workshop-image")["Role"] == role
    assert aws.client("codebuild").list_projects()["projects"] == ["rl-workshop-image"]


def test_a_given_role_is_taken_and_iam_left_alone(run, aws):
    run("--role", "arn:aws:iam::123456789012:role/given")
    assert aws.client("iam").list_roles()["Roles"] == []
    (project,) = aws.client("codebuild").batch_get_projects(names=["rl-workshop-image"])["projects"]
    assert project["serviceRole"] == "arn:aws:iam::123456789012:role/given"


def test_a_role_that_is_given_later_is_the_builds_too(run, codebuild, aws, monkeypatch):
    given, started = "arn:aws:iam::123456789012:role/given", []
    aws.events.register(
        "before-parameter-build.codebuild.StartBuild", lambda params, **_: started.append(dict(params))
    )
    monkeypatch.setattr(codebuild, "boto3", SimpleNamespace(Session=lambda **_: aws))
    run()
    run("--role", given)
    own = aws.client("iam").get_role(RoleName="rl-workshop-image")["Role"]["Arn"]
    assert [one["serviceRoleOverride"] for one in started] == [own, given]


def test_a_bucket_that_is_not_there_is_named(run):
    with pytest.raises(SystemExit, match="nobody-has-this.*--bucket"):
        run("--bucket", "nobody-has-this")


def test_the_role_may_do_what_the_build_does_and_no_more(codebuild):
    policy = codebuild.role_policy("aws", REGION, "123456789012", BUCKET, "rl-workshop-verl")
    allowed = {action: one["Resource"] for one in policy["Statement"] for action in one["Action"]}
    assert allowed["ecr:PutImage"] == f"arn:aws:ecr:{REGION}:123456789012:repository/rl-workshop-verl"
    assert allowed["s3:GetObject"] == f"arn:aws:s3:::{BUCKET}/rl-workshop-image/*"
    assert [action for action, what in allowed.items() if what == "*"] == ["ecr:GetAuthorizationToken"]
    # The registry of the base is another account's, and not the same in every region.
    assert f"arn:aws:ecr:{REGION}:692866216735:repository/pytorch" in [
        one["Resource"] for one in policy["Statement"]
    ]
    script = (CONTAINER / "build_and_push.sh").read_text()
    # Elsewhere partition and account are others.
    china = codebuild.role_policy("aws-cn", "cn-north-1", "123456789012", BUCKET, "r")
    assert china["Statement"][3]["Resource"] == "arn:aws-cn:ecr:cn-north-1:727897471807:repository/pytorch"
    for command, action in {
        "describe-images": "DescribeImages", "describe-repositories": "DescribeRepositories",
        "create-repository": "CreateRepository", "get-login-password": "GetAuthorizationToken",
    }.items():  # fmt: skip
        assert f"aws ecr {command}" in script and f"ecr:{action}" in allowed
    assert script.count("aws ecr ") == 4, "a new call needs its action"


@pytest.mark.parametrize(("ends", "exported"), [(0, IMAGE), (1, None)])
def test_the_builds_commands_export_the_uri_or_fail(codebuild, tmp_path, ends, exported):
    buildspec = yaml.safe_load(codebuild.BUILDSPEC)
    assert buildspec["version"] == 0.2  # all commands in one shell
    (tmp_path / "build_and_push.sh").write_text(f'[ "$*" = "{REGION} mine" ] && echo {IMAGE}; exit {ends}\n')
    (name,) = buildspec["env"]["exported-variables"]
    commands = [*buildspec["phases"]["build"]["commands"], f"printenv {name}"]
    done = subprocess.run(
        ["bash", "-e", "-c", "\n".join(commands)], cwd=tmp_path, capture_output=True, text=True, timeout=30,
        env={"PATH": "/usr/bin:/bin", "AWS_REGION": REGION, "REPOSITORY": "mine"},
    )  # fmt: skip
    assert (done.stdout.strip() or None) == exported and bool(done.returncode) == bool(ends)


def test_a_build_that_succeeds_says_what_it_exported(codebuild):
    """botocore checks request and answer against the service's description."""
    client = boto3.client("codebuild", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    exported = [{"name": "IMAGE", "value": IMAGE}]
    answers = [
        {"id": "p:1", "buildStatus": "IN_PROGRESS", "currentPhase": "BUILD"},
        {
            "id": "p:1",
            "buildStatus": "SUCCEEDED",
            "currentPhase": "COMPLETED",
            "exportedEnvironmentVariables": exported,
        },
    ]
    session = type("Session", (), {"region_name": REGION, "client": lambda self, name: client})()
    with Stubber(client) as stub:
        stub.add_response("start_build", {"build": {"id": "p:1"}})
        for answer in answers:
            stub.add_response("batch_get_builds", {"builds": [answer]}, {"ids": ["p:1"]})
        codebuild.POLL_SECONDS = 0
        assert codebuild.build(session, f"{BUCKET}/source.zip", "mine", "arn:aws:iam::1:role/r") == IMAGE
        stub.assert_no_pending_responses()


def test_a_build_that_fails_says_why_and_where_its_log_is(codebuild):
    failed = {
        "buildStatus": "FAILED",
        "phases": [
            {"phaseType": "BUILD", "contexts": [{"message": "Error while executing command: IMAGE=$(bash"}]}
        ],
        "logs": {"deepLink": "https://console.aws.amazon.com/log"},
    }
    with pytest.raises(
        codebuild.BuildError, match=r"FAILED: Error while executing.*console\.aws\.amazon\.com/log"
    ):
        codebuild.image_of(failed)


def test_a_role_that_is_not_known_everywhere_yet_is_waited_for(codebuild, monkeypatch):
    client = boto3.client("codebuild", region_name=REGION, aws_access_key_id="x", aws_secret_access_key="x")
    session = type("Session", (), {"client": lambda self, name: client})()
    waits = []
    monkeypatch.setattr(codebuild.time, "sleep", waits.append)
    message = "CodeBuild is not authorized to perform: sts:AssumeRole on service role."
    with Stubber(client) as stub:
        stub.add_response("batch_get_projects", {"projects": []})
        stub.add_client_error("create_project", "InvalidInputException", message)
        stub.add_response("create_project", {"project": {"name": "rl-workshop-image"}})
        codebuild.ensure_project(session, f"{BUCKET}/source.zip", "arn:aws:iam::123456789012:role/new")
    assert waits == [5]
    with Stubber(client) as stub, pytest.raises(client.exceptions.InvalidInputException):
        stub.add_response("batch_get_projects", {"projects": []})
        stub.add_client_error("create_project", "InvalidInputException", "Invalid project source")
        codebuild.ensure_project(session, f"{BUCKET}/source.zip", "arn:aws:iam::123456789012:role/new")
