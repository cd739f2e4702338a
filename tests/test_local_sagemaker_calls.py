"""calls.jsonl: which IAM actions a notebook, a job and SageMaker itself need, written down as they ask."""

import json
import urllib.error
import urllib.request

import boto3
import pytest
from boto3.s3.transfer import TransferConfig
from endpoint_fixtures import launch, wait_end
from local_sagemaker import client
from sagemaker.core.training.configs import InputData, Tag

pytestmark = pytest.mark.endpoint
ACCOUNT_BUCKET = "sagemaker-us-east-1-123456789012"
# A job's call, without boto3, which the tests' small image lacks: nobody checks signatures here.
ASK = """
import urllib.request
credential = os.environ["AWS_ACCESS_KEY_ID"] + "/20260101/us-east-1/secretsmanager/aws4_request"
request = urllib.request.Request(
    os.environ["AWS_ENDPOINT_URL"],
    data=json.dumps({"SecretId": "wandb-key"}).encode(),
    headers={
        "Authorization": f"AWS4-HMAC-SHA256 Credential={credential}, SignedHeaders=host, Signature=0",
        "X-Amz-Target": "secretsmanager.GetSecretValue",
        "Content-Type": "application/x-amz-json-1.1",
    },
)
report("secret", json.load(urllib.request.urlopen(request))["SecretString"])
pathlib.Path(os.environ["SM_MODEL_DIR"], "weights.txt").write_text("w")
"""


@pytest.fixture
def calls(endpoint):
    """calls(): the lines that were added since the test began."""
    file = endpoint.home / "calls.jsonl"
    before = len(file.read_text().splitlines())
    return lambda: [json.loads(line) for line in file.read_text().splitlines()[before:]]


def by(caller: str, lines: list[dict]) -> set[tuple[str, str | None]]:
    return {(line["action"], line["resource"]) for line in lines if line["caller"] == caller}


def test_a_training_job_from_the_first_call_to_the_last(calls, make_trainer, tmp_path):
    boto3.client("secretsmanager").create_secret(Name="wandb-key", SecretString="k")
    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text("{}\n")
    trainer = make_trainer(ASK, tags=[Tag(key="module", value="02")])
    name = launch(trainer, input_data_config=[InputData(channel_name="train", data_source=str(data))])
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    lines = calls()

    notebook = by("notebook", lines)
    assert {
        ("sagemaker:CreateTrainingJob", name),
        ("sagemaker:AddTags", name),
        ("sagemaker:DescribeTrainingJob", name),
        ("iam:PassRole", client.ROLE_ARN),
        ("secretsmanager:CreateSecret", None),
        ("sts:GetCallerIdentity", None),
    } <= notebook
    uploads = [resource for action, resource in notebook if action == "s3:PutObject"]
    assert any(resource.endswith("/a.jsonl") for resource in uploads)

    assert by("job", lines) == {("secretsmanager:GetSecretValue", "wandb-key")}

    service = by("service", lines)
    assert (
        "s3:PutObject",
        f"arn:aws:s3:::{ACCOUNT_BUCKET}/{trainer.base_job_name}/{name}/output/model.tar.gz",
    ) in service
    assert {action for action, _ in service} == {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:PutObject",
        "logs:CreateLogGroup",
        "logs:CreateLogStream",
        "logs:PutLogEvents",
    }, "a policy for the job's role is made of these"
    assert list(lines[0]) == ["time", "caller", "action", "resource"]


def test_the_actions_of_s3_are_those_of_a_policy(calls, tmp_path):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="some-bucket")
    large = tmp_path / "large"
    large.write_bytes(b"x" * (6 << 20))
    parts = TransferConfig(multipart_threshold=5 << 20, multipart_chunksize=5 << 20)
    s3.upload_file(str(large), "some-bucket", "a b/large", Config=parts)
    s3.download_file("some-bucket", "a b/large", str(tmp_path / "back"), Config=parts)
    assert (tmp_path / "back").read_bytes() == large.read_bytes(), "a recorded request is answered as before"
    s3.copy_object(Bucket="some-bucket", Key="copy", CopySource="some-bucket/a b/large")
    s3.list_objects_v2(Bucket="some-bucket", Prefix="location")
    s3.get_bucket_location(Bucket="some-bucket")
    s3.delete_objects(Bucket="some-bucket", Delete={"Objects": [{"Key": "copy"}]})
    with pytest.raises(s3.exceptions.ClientError):
        s3.head_bucket(Bucket="no-such-bucket")
    bucket = "arn:aws:s3:::some-bucket"
    assert by("notebook", calls()) == {
        ("s3:CreateBucket", bucket),
        ("s3:PutObject", f"{bucket}/a b/large"),
        ("s3:GetObject", f"{bucket}/a b/large"),
        ("s3:PutObject", f"{bucket}/copy"),
        ("s3:ListBucket", bucket),
        ("s3:GetBucketLocation", bucket),
        ("s3:DeleteObject", bucket),
        ("s3:ListBucket", "arn:aws:s3:::no-such-bucket"),
    }


def test_an_operation_without_a_name_here_shows_as_it_is(calls):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="tagged")
    s3.put_bucket_tagging(Bucket="tagged", Tagging={"TagSet": []})
    assert ("s3:PUT tagging", "arn:aws:s3:::tagged") in by("notebook", calls())


def test_queries_of_other_services(calls):
    boto3.client("iam").simulate_principal_policy(
        PolicySourceArn=client.ROLE_ARN, ActionNames=["sagemaker:CreateTrainingJob"]
    )
    url = boto3.client("s3").generate_presigned_url("get_object", Params={"Bucket": "b", "Key": "k"})
    with pytest.raises(urllib.error.HTTPError):
        urllib.request.urlopen(url, timeout=10)
    assert by("notebook", calls()) == {
        ("iam:SimulatePrincipalPolicy", client.ROLE_ARN),
        ("s3:GetObject", "arn:aws:s3:::b/k"),
    }


def test_the_command_line_asks_as_a_notebook_does(calls, endpoint):
    assert endpoint.command("stop", "nobody").returncode == 1
    assert by("notebook", calls()) == {("sagemaker:StopTrainingJob", "nobody")}
