"""The CloudFormation template: sound as cfn-lint reads it, with the same policies as the files beside it."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import aws_policies
import cfnlint.decode
import pytest
from workshop.session.account import read_account

TEMPLATE = aws_policies.FOLDER / "workshop.yaml"
REGIONS = ("us-east-1", "us-west-2", "eu-west-1", "eu-central-1")  # all of these have MLflow Apps
POLICIES = {
    "JobRolePolicy": "job-role-policy.json",
    "AttendeePolicy": "attendee-policy.json",
    "StudioPolicy": "studio-policy.json",
    "KeyPolicy": "key-policy.json",
}


@pytest.fixture(scope="module")
def template() -> dict[str, Any]:
    content, problems = cfnlint.decode.decode(str(TEMPLATE))
    assert problems == []
    return content


@pytest.fixture(scope="module")
def resources(template) -> dict[str, Any]:
    """All but the profiles, which Fn::ForEach makes."""
    return {name: item for name, item in template["Resources"].items() if not name.startswith("Fn::ForEach")}


def cfn_lint(file: Path, *regions: str) -> subprocess.CompletedProcess:
    command = Path(sys.executable).with_name("cfn-lint")
    return subprocess.run([command, file, "--regions", *regions], capture_output=True, text=True, timeout=120)


def plain(node: Any) -> Any:
    """The node with its !Sub texts as they are written."""
    if isinstance(node, dict):
        return (
            node["Fn::Sub"]
            if set(node) == {"Fn::Sub"}
            else {key: plain(value) for key, value in node.items()}
        )
    return [plain(item) for item in node] if isinstance(node, list) else node


def test_cfn_lint_finds_nothing():
    result = cfn_lint(TEMPLATE, *REGIONS)
    assert (result.stdout, result.returncode) == ("", 0), result.stdout + result.stderr


def test_cfn_lint_would_find_a_mistake(tmp_path):
    wrong = tmp_path / "wrong.yaml"
    text = TEMPLATE.read_text()
    wrong.write_text(
        text.replace("sagemaker:StopTrainingJob", "sagemaker:HaltTrainingJob").replace(
            "ArtifactStoreUri", "StoreUri", 1
        )
    )
    found = cfn_lint(wrong, "us-east-1").stdout
    assert "halttrainingjob" in found
    assert "StoreUri" in found


@pytest.mark.parametrize(("resource", "name"), POLICIES.items())
def test_the_policies_are_those_of_the_files(resources, resource, name):
    assert plain(resources[resource]["Properties"]["PolicyDocument"]) == aws_policies.read_policy(name)


def test_each_policy_file_is_in_the_template():
    assert sorted(POLICIES.values()) == sorted(
        path.name for path in aws_policies.FOLDER.glob("*-policy.json")
    )


def test_roles_have_their_policies_and_only_sagemaker_takes_them(resources):
    roles = {name: resources[name]["Properties"]["Roles"] for name in POLICIES}
    assert roles["JobRolePolicy"] == [{"Ref": "JobRole"}]
    assert roles["AttendeePolicy"] == roles["StudioPolicy"] == [{"Ref": "AttendeeRole"}]
    for name, resource in resources.items():
        if resource["Type"] == "AWS::IAM::Role":
            [statement] = resource["Properties"]["AssumeRolePolicyDocument"]["Statement"]
            assert statement["Principal"] == {"Service": "sagemaker.amazonaws.com"}, name


def test_the_bucket_is_closed_and_its_content_ends(resources):
    bucket = resources["Bucket"]["Properties"]
    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert bucket["LifecycleConfiguration"]["Rules"][0]["ExpirationInDays"] == {"Ref": "KeepDays"}
    [encryption] = bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert encryption["ServerSideEncryptionByDefault"]["SSEAlgorithm"] == {
        "Fn::If": ["HasKey", "aws:kms", "AES256"]
    }


def test_secrets_are_made_without_values(resources):
    secrets = [
        item["Properties"] for item in resources.values() if item["Type"] == "AWS::SecretsManager::Secret"
    ]
    assert {secret["Name"] for secret in secrets} == {"rl-workshop/huggingface", "rl-workshop/wandb"}
    assert all(set(secret) == {"Name", "Description"} for secret in secrets)
    [allowed] = [
        statement["Resource"]
        for statement in aws_policies.read_policy("job-role-policy.json")["Statement"]
        if statement["Sid"] == "Secrets"
    ]
    assert allowed.endswith(":secret:rl-workshop/*")


def test_an_idle_notebook_is_shut_down(resources):
    settings = resources["Domain"]["Properties"]["DefaultUserSettings"]["JupyterLabAppSettings"]
    assert settings["AppLifecycleManagement"]["IdleSettings"]["LifecycleManagement"] == "ENABLED"


def test_nothing_is_paid_by_the_hour_by_default(template, resources):
    assert template["Parameters"]["Tracking"]["Default"] == "mlflow-app"
    assert resources["TrackingServer"]["Condition"] == "HasTrackingServer"
    hourly = {"AWS::SageMaker::MlflowTrackingServer", "AWS::EC2::NatGateway", "AWS::EC2::VPCEndpoint"}
    assert [name for name, item in resources.items() if item["Type"] in hourly] == ["TrackingServer"]


def test_the_stack_shows_an_aws_yaml_that_can_be_read(template, tmp_path):
    text, values = template["Outputs"]["AwsYaml"]["Value"]["Fn::Sub"]
    tracking = values["Tracking"]["Fn::If"][1]["Fn::Sub"]
    stack = {
        "Tracking": tracking,
        "JobRole.Arn": "arn:aws:iam::123456789012:role/s-JobRole-1A",
        "Bucket": "rl-workshop-123456789012-us-east-1",
        "MlflowApp.Arn": "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-X",
        "Key": values["Key"]["Fn::If"][1]["Fn::Sub"],
        "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    }
    for name, value in stack.items():
        text = text.replace(f"${{{name}}}", value)
    (tmp_path / "aws.yaml").write_text(text)
    account = read_account(tmp_path / "aws.yaml")
    assert (account.role, account.bucket) == (stack["JobRole.Arn"], stack["Bucket"])
    assert account.tracking_uri == stack["MlflowApp.Arn"]
    assert account.kms_key == stack["KmsKeyArn"] and values["Key"]["Fn::If"][::2] == ["HasKey", ""]


def holds(node: Any, values: dict[str, Any]) -> Any:
    """What a rule's node comes to with these parameters, by the functions that the rules here use."""
    if isinstance(node, list):
        return [holds(item, values) for item in node]
    if not isinstance(node, dict):
        return node
    [(function, given)] = node.items()
    given = holds(given, values)
    return {
        "Ref": lambda: values[given],
        "Fn::Not": lambda: not given[0],
        "Fn::Equals": lambda: given[0] == given[1],
        "Fn::EachMemberEquals": lambda: all(item == given[1] for item in given[0]),
    }[function]()


@pytest.mark.parametrize(
    ("values", "refused"),
    [
        ({"Studio": "new"}, {"Studio=new needs VpcId and SubnetIds."}),
        ({"Studio": "new", "VpcId": "vpc-1"}, {"Studio=new needs VpcId and SubnetIds."}),
        ({"Studio": "new", "SubnetIds": ["subnet-1"]}, {"Studio=new needs VpcId and SubnetIds."}),
        ({"Studio": "new", "VpcId": "vpc-1", "SubnetIds": ["subnet-1", "subnet-2"]}, set()),
        ({"Studio": "existing"}, {"Studio=existing needs DomainId."}),
        ({"Studio": "existing", "DomainId": "d-1"}, set()),
        ({"Studio": "none"}, set()),
    ],
)
def test_what_a_kind_of_studio_needs_is_asked_for(template, values, refused):
    values = {"VpcId": "", "SubnetIds": [""], "DomainId": "", **values}
    found = {
        assertion["AssertDescription"]
        for rule in template["Rules"].values()
        if holds(rule["RuleCondition"], values)
        for assertion in rule["Assertions"]
        if not holds(assertion["Assert"], values)
    }
    assert found == refused


def test_whoever_works_outside_studio_is_shown_both_policies(template):
    outputs = template["Outputs"]
    assert outputs["AttendeePolicy"]["Value"] == {"Ref": "AttendeePolicy"}
    assert (outputs["KeyPolicy"]["Value"], outputs["KeyPolicy"]["Condition"]) == (
        {"Ref": "KeyPolicy"},
        "HasKey",
    )
