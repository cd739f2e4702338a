"""Builds the GPU image where there is no Docker, such as in Studio: AWS CodeBuild runs build_and_push.sh on its own machine.

    python build_with_codebuild.py us-east-1

Makes what is missing (a role for CodeBuild and a project), sends this folder's files, follows the build and prints the
image's URI, which goes into the notebook's `image_uri`. The tag is build_and_push.sh's: an image that is there already is
not built again. Once is enough for everybody who uses the account.

The identity that runs this may use CodeBuild and the bucket, and, unless it is given a role with --role, IAM:
iam:GetRole, CreateRole, PutRolePolicy and PassRole.
"""

import argparse
import io
import json
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import boto3
from botocore.exceptions import ClientError
from sagemaker.core import image_uris

HERE = Path(__file__).resolve().parent
FILES = ("Dockerfile", "requirements.txt", "build_and_push.sh")
NAME = "rl-workshop-image"  # of project and role
BUILDSPEC = """\
version: 0.2
env:
  exported-variables:
    - IMAGE
phases:
  build:
    commands:
      - IMAGE=$(bash build_and_push.sh "$AWS_REGION" "$REPOSITORY")
      - export IMAGE
"""
# 8 vCPU, 15 GB of memory, 128 GB of disk (CodeBuild user guide, build-env-ref-compute-types, 2026): base image, packages and
# Docker's layers of them take some tens of gigabytes. Privileged, or there is no Docker in it.
MACHINE = {
    "type": "LINUX_CONTAINER",
    "image": "aws/codebuild/amazonlinux-x86_64-standard:5.0",
    "computeType": "BUILD_GENERAL1_LARGE",
    "privilegedMode": True,
}
MINUTES = 120  # at most
POLL_SECONDS = 15


class BuildError(RuntimeError):
    """The image cannot be built, or its build failed."""


def base_registry(region: str) -> str:
    """The registry of AWS's training images in the region, from the SDK's table."""
    found = image_uris.retrieve(
        "pytorch",
        region,
        version="2.10.0",
        py_version="py313",
        instance_type="ml.g6.xlarge",
        image_scope="training",
    )
    return found.partition("/")[0]


def send_source(session: boto3.Session, bucket: str) -> str:
    """The folder's files as a zip in the bucket; returns its place, as CodeBuild names it. Raises BuildError."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in FILES:
            archive.write(HERE / name, name)
    key = f"{NAME}/source.zip"
    try:
        session.client("s3").put_object(Bucket=bucket, Key=key, Body=packed.getvalue())
    except ClientError as error:
        raise BuildError(
            f"The bucket {bucket} cannot be written to ({error}): name another with --bucket."
        ) from error
    return f"{bucket}/{key}"


def role_policy(partition: str, region: str, account: str, bucket: str, repository: str) -> dict[str, Any]:
    """What the build does: read its source, write its log, pull AWS's image, make a repository and push to it."""
    pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"]
    push = ["InitiateLayerUpload", "UploadLayerPart", "CompleteLayerUpload", "PutImage", "CreateRepository"]
    push += ["DescribeImages", "DescribeRepositories"]
    ecr, logs = (
        f"arn:{partition}:ecr:{region}",
        f"arn:{partition}:logs:{region}:{account}:log-group:/aws/codebuild/{NAME}",
    )
    base_account = base_registry(region).partition(".")[0]
    statements = [
        (["s3:GetObject", "s3:GetObjectVersion"], f"arn:{partition}:s3:::{bucket}/{NAME}/*"),
        (["logs:CreateLogGroup", "logs:CreateLogStream", "logs:PutLogEvents"], f"{logs}*"),
        (["ecr:GetAuthorizationToken"], "*"),
        (pull, f"{ecr}:{base_account}:repository/pytorch"),
        ([*pull, *(f"ecr:{action}" for action in push)], f"{ecr}:{account}:repository/{repository}"),
    ]
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Effect": "Allow", "Action": actions, "Resource": what} for actions, what in statements
        ],
    }


def ensure_role(session: boto3.Session, policy: dict[str, Any]) -> str:
    """ARN of the role that CodeBuild works as, made if there is none; `policy` is what it may do."""
    iam = session.client("iam")
    trust = {
        "Effect": "Allow",
        "Principal": {"Service": "codebuild.amazonaws.com"},
        "Action": "sts:AssumeRole",
    }
    try:
        role = iam.get_role(RoleName=NAME)["Role"]
    except iam.exceptions.NoSuchEntityException:
        document = json.dumps({"Version": "2012-10-17", "Statement": [trust]})
        role = iam.create_role(RoleName=NAME, AssumeRolePolicyDocument=document)["Role"]
    iam.put_role_policy(RoleName=NAME, PolicyName="build", PolicyDocument=json.dumps(policy))
    return role["Arn"]


def ensure_project(session: boto3.Session, source: str, role: str) -> None:
    """The CodeBuild project, made if there is none."""
    codebuild = session.client("codebuild")
    if codebuild.batch_get_projects(names=[NAME])["projects"]:
        return
    for left in reversed(range(12)):
        try:
            codebuild.create_project(
                name=NAME,
                source={"type": "S3", "location": source, "buildspec": BUILDSPEC},
                artifacts={"type": "NO_ARTIFACTS"},
                environment=MACHINE,
                serviceRole=role,
                timeoutInMinutes=MINUTES,
            )
            return
        except codebuild.exceptions.InvalidInputException as error:
            if (
                "AssumeRole" not in str(error) or not left
            ):  # a new role is known everywhere after some seconds
                raise
            time.sleep(5)


def build(session: boto3.Session, source: str, repository: str, role: str) -> str:
    """Starts a build and follows it; returns the image's URI. Raises BuildError."""
    codebuild = session.client("codebuild")
    given = {"REPOSITORY": repository, "BASE_REGISTRY": base_registry(session.region_name)}
    started = codebuild.start_build(
        projectName=NAME,
        sourceLocationOverride=source,
        buildspecOverride=BUILDSPEC,
        serviceRoleOverride=role,  # a project that was there may have another
        environmentVariablesOverride=[{"name": name, "value": value} for name, value in given.items()],
    )["build"]
    print(f"Build {started['id']} has started; it goes on if you leave this.", file=sys.stderr)
    phase = None
    while True:
        found = codebuild.batch_get_builds(ids=[started["id"]])["builds"][0]
        if found.get("currentPhase") != phase:
            phase = found.get("currentPhase")
            print(f"{time.strftime('%H:%M:%S')} {phase}", file=sys.stderr, flush=True)
        if found["buildStatus"] != "IN_PROGRESS":
            return image_of(found)
        time.sleep(POLL_SECONDS)


def image_of(found: dict[str, Any]) -> str:
    """The URI that an ended build exports. Raises BuildError with the reason, if it failed."""
    if found["buildStatus"] != "SUCCEEDED":
        reasons = [
            context["message"]
            for phase in found.get("phases", [])
            for context in phase.get("contexts", [])
            if context.get("message")
        ]
        log = found.get("logs", {}).get("deepLink", "the CodeBuild console")
        raise BuildError(
            f"The build {found['buildStatus']}: {'; '.join(reasons) or 'no reason given'}. Log: {log}"
        )
    return {one["name"]: one["value"] for one in found["exportedEnvironmentVariables"]}["IMAGE"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Builds the GPU image with AWS CodeBuild and prints its URI."
    )
    parser.add_argument("region", help="such as us-east-1")
    parser.add_argument("--repository", default="rl-workshop-verl", help="of ECR; made if there is none")
    parser.add_argument("--bucket", help="for the source; default: the SDK's, sagemaker-REGION-ACCOUNT")
    parser.add_argument("--role", help="ARN of a role for CodeBuild; default: one that is made here")
    asked = parser.parse_args()
    session = boto3.Session(region_name=asked.region)
    caller = session.client("sts").get_caller_identity()
    partition, account = caller["Arn"].split(":")[1], caller["Account"]
    bucket = asked.bucket or f"sagemaker-{asked.region}-{account}"
    try:
        source = send_source(session, bucket)
        policy = role_policy(partition, asked.region, account, bucket, asked.repository)
        role = asked.role or ensure_role(session, policy)
        ensure_project(session, source, role)
        print(build(session, source, asked.repository, role))
    except BuildError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
