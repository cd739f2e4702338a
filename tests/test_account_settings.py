"""aws.yaml: what an account asks reaches a real request, and what cannot be right is refused with its line."""

import boto3
import botocore.validate
import pytest
from local_sagemaker import client
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training.configs import Compute, OutputDataConfig, SourceCode
from sagemaker.train import ModelTrainer
from workshop.folders import REPOSITORY
from workshop.session.account import AccountError, AccountSettings, read_account

EXAMPLE = REPOSITORY / "aws" / "aws.example.yaml"
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10.0-cpu-py312"


def read(tmp_path, text: str) -> AccountSettings:
    (tmp_path / "aws.yaml").write_text(text)
    return read_account(tmp_path / "aws.yaml")


def request_with(account: AccountSettings, tmp_path, instance_type: str = "ml.m5.xlarge") -> dict:
    """The CreateTrainingJob request of a trainer that is built as a notebook builds it."""
    (tmp_path / "train.py").write_text("")
    trainer = ModelTrainer(
        sagemaker_session=Session(),
        role=client.ROLE_ARN,
        base_job_name="t",
        training_image=IMAGE,
        source_code=SourceCode(source_dir=str(tmp_path), entry_script="train.py"),
        compute=Compute(
            instance_type=instance_type,
            instance_count=1,
            volume_kms_key_id=account.volume_kms_key(instance_type),
        ),
        output_data_config=OutputDataConfig(s3_output_path="s3://b/jobs", kms_key_id=account.kms_key),
        networking=account.networking(),
        tags=account.sdk_tags(),
        environment=account.job_environment(),
    )
    request = trainer._create_training_job_args(boto3=True)
    shape = boto3.client("sagemaker").meta.service_model.operation_model("CreateTrainingJob").input_shape
    given = {key: value for key, value in request.items() if value is not None}
    problems = botocore.validate.ParamValidator().validate(given, shape)
    assert not problems.has_errors(), problems.generate_report()
    return given


def test_the_example_has_every_key_and_is_read():
    account = read_account(EXAMPLE)
    assert account.role == "arn:aws:iam::123456789012:role/rl-workshop-job"
    assert account.subnets == ("subnet-0123456789abcdef0", "subnet-0fedcba9876543210")
    assert account.tags == {"project": "rl-workshop", "cost-center": "1234"}
    text = EXAMPLE.read_text()
    assert [name for name in AccountSettings.__dataclass_fields__ if f"\n{name}:" not in text] == []


def test_without_a_file_nothing_is_asked(tmp_path):
    assert read_account(tmp_path / "aws.yaml") == AccountSettings()
    assert read(tmp_path, "# nothing yet\n") == AccountSettings()


def test_git_ignores_the_file():
    assert "/aws.yaml" in (REPOSITORY / ".gitignore").read_text().splitlines()


def test_what_the_account_asks_is_in_the_request(endpoint, tmp_path):
    account = read_account(EXAMPLE)
    request = request_with(account, tmp_path)
    assert request["VpcConfig"] == {
        "Subnets": list(account.subnets),
        "SecurityGroupIds": list(account.security_group_ids),
    }
    assert request["OutputDataConfig"]["KmsKeyId"] == account.kms_key
    assert request["ResourceConfig"]["VolumeKmsKeyId"] == account.kms_key
    assert request["Tags"] == [
        {"Key": "project", "Value": "rl-workshop"},
        {"Key": "cost-center", "Value": "1234"},
    ]
    assert request["Environment"]["HF_SECRET_NAME"] == "rl-workshop/huggingface"
    assert request["Environment"]["WANDB_SECRET_NAME"] == "rl-workshop/wandb"
    assert not request.get("EnableNetworkIsolation")


def test_network_isolation_is_in_the_request_with_and_without_a_vpc(endpoint, tmp_path):
    alone = request_with(read(tmp_path, "network_isolation: true\n"), tmp_path)
    assert alone["EnableNetworkIsolation"] is True
    assert not alone.get("VpcConfig")
    vpc = "subnets: [subnet-01234567]\nsecurity_group_ids: [sg-01234567]\nnetwork_isolation: true\n"
    both = request_with(read(tmp_path, vpc), tmp_path)
    assert both["EnableNetworkIsolation"] is True
    assert both["VpcConfig"] == {"Subnets": ["subnet-01234567"], "SecurityGroupIds": ["sg-01234567"]}


def test_without_settings_the_request_has_none_of_it(endpoint, tmp_path):
    request = request_with(AccountSettings(), tmp_path)
    assert not {"VpcConfig", "Tags"} & {key for key, value in request.items() if value}
    assert not request.get("EnableNetworkIsolation")
    assert "KmsKeyId" not in request["OutputDataConfig"]
    assert "VolumeKmsKeyId" not in request["ResourceConfig"]


@pytest.mark.parametrize(
    ("instance_type", "takes_a_key"),
    [
        ("ml.c5.xlarge", True),
        ("ml.m5.xlarge", True),
        ("ml.g5.2xlarge", False),
        ("ml.g6.xlarge", False),
        ("ml.g6e.12xlarge", False),
        ("ml.p4d.24xlarge", False),
        ("ml.p5.48xlarge", False),
    ],
)
def test_the_disk_takes_a_key_only_where_there_is_no_local_storage(instance_type, takes_a_key):
    key = "mrk-0123456789abcdef0123456789abcdef"
    assert AccountSettings(kms_key=key).volume_kms_key(instance_type) == (key if takes_a_key else None)


@pytest.mark.parametrize("key", ["alias/workshop", "arn:aws:kms:us-east-1:123456789012:alias/workshop"])
def test_an_alias_is_refused_where_it_would_be_the_key_of_a_disk(key):
    account = AccountSettings(kms_key=key)
    assert account.volume_kms_key("ml.g6.xlarge") is None
    with pytest.raises(
        AccountError, match="takes no alias for the disk of ml.m5.xlarge. Write the key's own id"
    ):
        account.volume_kms_key("ml.m5.xlarge")


def test_a_kernel_without_a_route_to_iam_asks_it_nothing(endpoint, tmp_path, monkeypatch):
    """The trainer is made, and the source uploaded, while nothing answers at IAM's address."""
    account = read(tmp_path, "validate_role: false\n")
    monkeypatch.setenv("AWS_ENDPOINT_URL_IAM", "http://127.0.0.1:9")
    with pytest.raises(Exception, match="Could not connect to the endpoint"):
        request_with(AccountSettings(), tmp_path)
    for name, value in account.kernel_environment().items():
        monkeypatch.setenv(name, value)
    assert request_with(account, tmp_path)["RoleArn"] == client.ROLE_ARN
    assert AccountSettings().kernel_environment() == {}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("bucket: b-1\nbuckets: x\n", "line 2: there is no key 'buckets'"),
        ("role: a\n\nrole: b\n", "line 3: role is there twice"),
        (
            "role: arn:aws:iam::12345:role/x\n",
            "line 1: role is 'arn:aws:iam::12345:role/x'. Write the role's name",
        ),
        ("role: 7\n", "line 1: role is 7"),
        ("bucket: s3://b/x\n", "without s3://"),
        ("bucket: My_Bucket\n", "Write the bucket's name alone"),
        ("tracking_uri: arn:aws:sagemaker:us-east-1:123456789012:training-job/x\n", "ARN of an MLflow App"),
        ("kms_key: mykey\n", "Write the key's id"),
        ("kms_key: key/1234abcd-12ab-34cd-56ef-1234567890ab\n", "Write the key's id"),
        ("subnets: subnet-01234567\n", "Write a list of 1 to 16 ids: [subnet-"),
        ("security_group_ids: [subnet-01234567]\n", "Write a list of 1 to 5 ids: [sg-"),
        ("subnets: [subnet-01234567]\n", "both subnets and security_group_ids"),
        ("network_isolation: maybe\n", "Write true or false"),
        ("tags: {cost: 12}\n", "numbers in quotes"),
        ("tags: {'aws:x': a}\n", "not begin with aws:"),
        ("tags: {'a;b': a}\n", "The tag 'a;b'"),
        ("hf_secret_name: hf_abcdefghijklmnopqrstuvwxyz\n", "looks like the token itself"),
        ("wandb_secret_name: " + "0a" * 20 + "\n", "looks like the token itself"),
        ("validate_role: 'no'\n", "Write true or false"),
        ("role: x\nvalidate_role: false\n", "role must be the ARN"),
        ("- role\n", "lines of the form key: value"),
        ("role: [\n", "is no YAML"),
    ],
)
def test_what_cannot_be_right_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(AccountError) as refused:
        read(tmp_path, text)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "text",
    [
        "role: AmazonSageMaker-ExecutionRole-1\n",
        "role: arn:aws-us-gov:iam::123456789012:role/service-role/AmazonSageMaker-ExecutionRole-1\n",
        "kms_key: alias/workshop\n",
        "kms_key: 1234abcd-12ab-34cd-56ef-1234567890ab\n",
        "tracking_uri: arn:aws:sagemaker:eu-west-1:123456789012:mlflow-tracking-server/w\n",
        "tracking_uri: https://mlflow.example.org\n",
        "hf_secret_name: arn:aws:secretsmanager:us-east-1:123456789012:secret:rl-workshop/hf-AbCdEf\n",
        "tags: {Team: R+D}\n",
    ],
)
def test_other_forms_are_taken(tmp_path, text):
    assert read(tmp_path, text) != AccountSettings()
