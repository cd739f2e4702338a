"""The policies under aws/: sound as IAM reads them, enough for what a rehearsal called, and no more than that."""

import importlib.resources
import json
import re

import aws_policies
import pytest
from sagemaker.core.helper.iam_role_resolver import _get_smoke_test_actions

POLICIES = sorted(path.name for path in aws_policies.FOLDER.glob("*-policy.json"))
# Actions that a rehearsal may not call, each with the reason why a policy has it.
ONLY_ON_AWS = {
    "attendee-policy.json": {
        "s3:ListBucket": "the SDK looks for the bucket with HeadBucket where s3:ListAllMyBuckets is refused",
        "s3:AbortMultipartUpload": "boto3, when an upload in parts breaks off",
        "sagemaker:AddTags": "a job with the tags of aws.yaml",
        "sagemaker:StopTrainingJob": "the way out of a job that is a mistake",
        "sagemaker:UpdateTrainingJob": "with KeepAlivePeriodInSeconds=0 it ends a warm pool, which is billed while it waits",
        "sagemaker:CallMlflowAppApi": "runs in an MLflow App",
        "sagemaker-mlflow:GetExperiment*": "runs on a tracking server",
        "sagemaker-mlflow:GetMetricHistory": "runs on a tracking server",
        "sagemaker-mlflow:GetRun": "runs on a tracking server",
        "sagemaker-mlflow:ListArtifacts": "runs on a tracking server",
        "sagemaker-mlflow:SearchExperiments": "runs on a tracking server",
        "sagemaker-mlflow:SearchRuns": "runs on a tracking server",
    },
    "job-role-policy.json": {
        "s3:DeleteObject": "checkpoints that save_total_limit removes; the smallest recipes keep all",
        "secretsmanager:GetSecretValue": "HF_SECRET_NAME and WANDB_SECRET_NAME, where aws.yaml names secrets",
        "s3:GetBucketLocation": "SageMaker (the SDK's policy for training, sagemaker.core.helper.iam_policies)",
        "s3:AbortMultipartUpload": "an upload in parts that breaks off",
        "logs:DescribeLogStreams": "SageMaker (the SDK's policy for training)",
        "cloudwatch:PutMetricData": "a job's metrics, by SageMaker",
        "ecr:GetAuthorizationToken": "the image is pulled with the job's role",
        "ecr:BatchCheckLayerAvailability": "the image is pulled with the job's role",
        "ecr:BatchGetImage": "the image is pulled with the job's role",
        "ecr:GetDownloadUrlForLayer": "the image is pulled with the job's role",
        **dict.fromkeys(
            (
                "ec2:CreateNetworkInterface",
                "ec2:CreateNetworkInterfacePermission",
                "ec2:DeleteNetworkInterface",
                "ec2:DeleteNetworkInterfacePermission",
                "ec2:DescribeDhcpOptions",
                "ec2:DescribeNetworkInterfaces",
                "ec2:DescribeSecurityGroups",
                "ec2:DescribeSubnets",
                "ec2:DescribeVpcs",
            ),
            "a job in a VPC; the SDK refuses a role without them, VPC or not",
        ),
        "sagemaker:CallMlflowAppApi": "runs in an MLflow App",
        **dict.fromkeys(
            (
                "sagemaker-mlflow:CreateExperiment",
                "sagemaker-mlflow:CreateRun",
                "sagemaker-mlflow:GetExperiment*",
                "sagemaker-mlflow:GetRun",
                "sagemaker-mlflow:LogBatch",
                "sagemaker-mlflow:LogInputs",
                "sagemaker-mlflow:LogMetric",
                "sagemaker-mlflow:LogParam",
                "sagemaker-mlflow:SearchExperiments",
                "sagemaker-mlflow:SetTag",
                "sagemaker-mlflow:UpdateRun",
            ),
            "runs on a tracking server",
        ),
    },
    "studio-policy.json": {
        **dict.fromkeys(
            (
                "sagemaker:DescribeApp",
                "sagemaker:DescribeDomain",
                "sagemaker:DescribeSpace",
                "sagemaker:DescribeUserProfile",
                "sagemaker:ListApps",
                "sagemaker:ListDomains",
                "sagemaker:ListSpaces",
                "sagemaker:ListUserProfiles",
            ),
            "Studio's pages show what there is",
        ),
        **dict.fromkeys(
            (
                "sagemaker:CreateSpace",
                "sagemaker:DeleteSpace",
                "sagemaker:UpdateSpace",
                "sagemaker:CreateApp",
                "sagemaker:DeleteApp",
            ),
            "a private space and its JupyterLab",
        ),
        "sagemaker:AddTags": "Studio tags what it creates",
        "sagemaker:CreatePresignedDomainUrl": "opens Studio",
        "sagemaker:ListMlflowApps": "Studio's page of MLflow Apps",
        "sagemaker:DescribeMlflowApp": "Studio's page of an MLflow App",
        "sagemaker:CreatePresignedMlflowAppUrl": "opens the pages of an MLflow App",
        "sagemaker:ListMlflowTrackingServers": "Studio's page of tracking servers",
        "sagemaker:DescribeMlflowTrackingServer": "Studio's page of a tracking server",
        "sagemaker:CreatePresignedMlflowTrackingServerUrl": "opens the pages of a tracking server",
        "sagemaker-mlflow:AccessUI": "the pages of a tracking server",
    },
}
# Statements that cannot name what they are about: AWS takes no resource for these actions, or the SDK asks IAM without one.
ANY_RESOURCE = {"Quotas", "Metrics", "SignInToRegistries", "JoinAVpc", "LookAround"}


@pytest.fixture(scope="module")
def iam_actions() -> dict[str, set[str]]:
    """IAM's actions by service, lower case, as cfn-lint knows them."""
    text = importlib.resources.files("cfnlint.data.AdditionalSpecs").joinpath("Policies.json").read_text()
    return {service: set(known["Actions"]) for service, known in json.loads(text).items()}


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_is_sound(name, iam_actions):
    policy = aws_policies.read_policy(name)
    assert set(policy) == {"Version", "Statement"}
    assert policy["Version"] == "2012-10-17"
    sids = [statement["Sid"] for statement in policy["Statement"]]
    assert len(set(sids)) == len(sids)
    for statement in policy["Statement"]:
        assert set(statement) <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow"
        assert re.fullmatch(r"[A-Za-z0-9]+", statement["Sid"])
        for action in statement["Action"]:
            service, _, operation = action.lower().partition(":")
            pattern = re.compile(operation.replace("*", ".*"))
            assert any(pattern.fullmatch(known) for known in iam_actions[service]), action
            assert operation != "*", f"{action} is everything"
        resources = statement["Resource"]
        for resource in [resources] if isinstance(resources, str) else resources:
            if resource == "*":
                assert statement["Sid"] in ANY_RESOURCE
            elif resource != "${KmsKeyArn}":
                assert re.fullmatch(r"arn:\$\{AWS::Partition\}:[a-z0-9-]+:[^:]*:[^:]*:.+", resource), resource


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_fits_into_a_managed_one(name):
    """IAM counts characters without white space, 6,144 at most."""
    values = dict.fromkeys(("Bucket", "JobRole", "KmsKeyArn"), "x" * 60)
    text = (aws_policies.FOLDER / name).read_text()
    for key, value in {**values, "AWS::Partition": "aws-us-gov", "AWS::Region": "x" * 14}.items():
        text = text.replace(f"${{{key}}}", value)
    assert len(re.sub(r"\s", "", text)) <= 6144


def test_each_recorded_call_is_allowed():
    recorded = aws_policies.recorded_actions(aws_policies.RECORD)
    assert {caller for callers in recorded.values() for caller in callers} == set(aws_policies.POLICY_OF)
    assert "sagemaker:CreateTrainingJob" in recorded
    assert aws_policies.missing_from_policies(recorded) == []


def test_nothing_is_allowed_that_no_call_needs():
    unused = aws_policies.unused_in_policies(aws_policies.recorded_actions(aws_policies.RECORD))
    for name, actions in unused.items():
        assert set(actions) <= set(ONLY_ON_AWS[name])
        assert set(ONLY_ON_AWS[name]) <= set(aws_policies.actions_of(aws_policies.read_policy(name)))


def test_each_action_of_studio_has_its_reason():
    """No rehearsal is in Studio, so no call of it is recorded."""
    allowed = aws_policies.actions_of(aws_policies.read_policy("studio-policy.json"))
    assert sorted(allowed) == sorted(ONLY_ON_AWS["studio-policy.json"])


def test_the_sdk_accepts_the_job_role():
    """The SDK asks IAM whether the role may do these, on no resource and with no condition's values, and refuses it if not."""
    free = [
        action
        for statement in aws_policies.read_policy("job-role-policy.json")["Statement"]
        if statement["Resource"] == "*" and "Condition" not in statement
        for action in statement["Action"]
    ]
    assert set(_get_smoke_test_actions("training")) <= set(free)


def test_a_role_is_passed_to_sagemaker_alone():
    [statement] = [
        statement
        for name in POLICIES
        for statement in aws_policies.read_policy(name)["Statement"]
        if "iam:PassRole" in statement["Action"]
    ]
    assert statement["Resource"].endswith(":role/${JobRole}")
    assert statement["Condition"] == {"StringEquals": {"iam:PassedToService": "sagemaker.amazonaws.com"}}


def test_an_unknown_call_is_named_with_its_caller():
    recorded = {"s3:DeleteBucket": {"notebook"}, "s3:GetObject": {"job"}, "sts:GetCallerIdentity": {"job"}}
    assert aws_policies.missing_from_policies(recorded) == [
        "s3:DeleteBucket by the notebook: attendee-policy.json does not allow it"
    ]


def test_calls_are_read_from_an_endpoints_record(tmp_path, capsys):
    lines = [
        {"time": "t", "caller": "notebook", "action": "s3:PutObject", "resource": "arn:aws:s3:::b/k"},
        {"time": "t", "caller": "service", "action": "s3:PutObject", "resource": "arn:aws:s3:::b/k"},
        {"time": "t", "caller": "job", "action": "iam:CreateUser", "resource": None},
    ]
    calls = tmp_path / "calls.jsonl"
    calls.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert aws_policies.recorded_actions(calls) == {
        "s3:PutObject": {"notebook", "service"},
        "iam:CreateUser": {"job"},
    }
    assert aws_policies.main(["check", str(calls)]) == 1
    assert "iam:CreateUser by the job" in capsys.readouterr().out
    calls.write_text(json.dumps(lines[0]) + "\n")
    assert aws_policies.main(["check", str(calls)]) == 0


def test_the_record_is_written_as_it_is_read(tmp_path, monkeypatch):
    recorded = aws_policies.recorded_actions(aws_policies.RECORD)
    monkeypatch.setattr(aws_policies, "RECORD", tmp_path / "calls.json")
    assert aws_policies.main(["record", str(aws_policies.FOLDER / "calls.json")]) == 0
    assert aws_policies.recorded_actions(tmp_path / "calls.json") == recorded


def test_a_policy_is_filled_in_for_an_account():
    values = {"AWS::Region": "eu-west-1", "AWS::AccountId": "123456789012", "Bucket": "b", "JobRole": "r"}
    policy = json.loads(aws_policies.fill("attendee-policy.json", values))
    resources = {statement["Sid"]: statement["Resource"] for statement in policy["Statement"]}
    assert resources["Objects"] == "arn:aws:s3:::b/*"
    assert resources["GiveJobsTheirRole"] == "arn:aws:iam::123456789012:role/r"
    studio = aws_policies.fill(
        "studio-policy.json", {"AWS::Region": "eu-west-1", "AWS::AccountId": "123456789012"}
    )
    assert "user-profile/${sagemaker:DomainId}/${sagemaker:UserProfileName}" in studio


@pytest.mark.parametrize(
    ("region", "more", "partition"),
    [
        ("us-gov-west-1", {}, "aws-us-gov"),
        ("cn-north-1", {}, "aws-cn"),
        ("eu-west-1", {"AWS::Partition": "aws-eusc"}, "aws-eusc"),
    ],
)
def test_arns_are_of_the_regions_partition(region, more, partition):
    values = {"AWS::Region": region, "AWS::AccountId": "123456789012", "Bucket": "b", "JobRole": "r", **more}
    text = aws_policies.fill("attendee-policy.json", values)
    assert f'"arn:{partition}:s3:::b/*"' in text and "arn:aws:" not in text


def test_a_region_that_is_none_is_said(capsys):
    values = ["AWS::AccountId=1", "AWS::Region=nowhere", "Bucket=b", "JobRole=r"]
    assert aws_policies.main(["fill", "attendee-policy.json", *values]) == 1
    assert "AWS::Region=nowhere" in capsys.readouterr().err


def test_a_job_may_run_in_a_training_plan():
    """AWS, "IAM for SageMaker training plans": who uses a plan may create jobs on all three."""
    created = [
        resource.rpartition(":")[2]
        for statement in aws_policies.read_policy("attendee-policy.json")["Statement"]
        if "sagemaker:CreateTrainingJob" in statement["Action"]
        for resource in (
            [statement["Resource"]] if isinstance(statement["Resource"], str) else statement["Resource"]
        )
    ]
    assert created == ["training-job/*", "training-plan/*", "reserved-capacity/*"]


def test_a_missing_value_is_asked_for(capsys):
    assert aws_policies.main(["fill", "key-policy.json", "Bucket=b"]) == 1
    assert "missing: KmsKeyArn; not asked for: Bucket" in capsys.readouterr().err
