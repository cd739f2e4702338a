"""Training jobs from request to artifacts, through the SDK's own ModelTrainer, run for real."""

import os
import subprocess
import sys
import time
from datetime import datetime, timedelta

import boto3
import pytest
from endpoint_fixtures import describe, extract, launch, phases, reported, s3_keys, wait_end

pytestmark = pytest.mark.endpoint


def test_success_with_wait_and_logs(endpoint, make_trainer, tmp_path, caplog):
    from sagemaker.core.resources import TrainingJob
    from sagemaker.core.training.configs import InputData, MetricDefinition, Tag

    data = tmp_path / "data"
    data.mkdir()
    (data / "a.jsonl").write_text('{"x": 1}\n')
    trainer = make_trainer(
        """
    report("argv", sys.argv[1:])
    report("channel", pathlib.Path(os.environ["SM_CHANNEL_TRAIN"], "a.jsonl").read_text())
    report("same-file", os.path.samefile(os.environ["SM_CHANNEL_TRAIN"], "/opt/ml/input/data/train"))
    report("host", os.uname().nodename)
    variables = ("MY_VAR", "SM_CURRENT_HOST", "AWS_REGION", "AWS_DEFAULT_REGION", "SM_CHECKPOINT_DIR")
    report("environment", {k: os.environ.get(k) for k in variables})
    report("secrets", [k for k in os.environ if "WANDB" in k or os.environ[k] == "a-secret-of-the-learner"])
    for step in range(3):
        print(f"loss={1 / (step + 1):.4f} reward=nothing")
    pathlib.Path(os.environ["SM_MODEL_DIR"], "sub").mkdir()
    pathlib.Path(os.environ["SM_MODEL_DIR"], "sub", "weights.txt").write_text("w")
    pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"], "history.txt").write_text("h")
    """,
        hyperparameters={"steps": 3, "rewards": ["accuracy", "format"]},
        environment={"MY_VAR": "1"},
        tags=[Tag(key="module", value="02")],
    ).with_metric_definitions(
        [
            MetricDefinition(name="loss", regex=r"loss=([-+0-9.eE]+)"),
            MetricDefinition(name="reward", regex=r"reward=(\S+)"),
        ]
    )
    with caplog.at_level("INFO"):
        trainer.train(input_data_config=[InputData(channel_name="train", data_source=str(data))], wait=True)
    job = trainer._latest_training_job
    assert (job.training_job_status, job.secondary_status) == ("Completed", "Completed")
    assert any("loss=0.3333" in record.getMessage() for record in caplog.records), "the SDK showed no logs"
    seen = reported(job.training_job_name)
    assert seen["argv"] == ["--steps", "3", "--rewards", '["accuracy", "format"]']
    assert seen["channel"] == '{"x": 1}\n' and seen["same-file"] and seen["host"] == "algo-1"
    assert seen["environment"] == {
        "MY_VAR": "1",
        "SM_CURRENT_HOST": "algo-1",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": None,  # these two are not set on AWS either
        "SM_CHECKPOINT_DIR": None,
    }
    assert seen["secrets"] == []
    metrics = {metric.metric_name: metric.value for metric in job.final_metric_data_list}
    assert metrics == {"loss": pytest.approx(0.3333)}
    model = job.model_artifacts.s3_model_artifacts
    assert extract(model, tmp_path) == {"sub/weights.txt": "w"}
    assert trainer.output_data.replace("output.tar.gz", "model.tar.gz") == model
    assert extract(trainer.output_data, tmp_path) == {"history.txt": "h"}
    description = describe(job.training_job_name)
    assert phases(description) == ["Starting", "Downloading", "Training", "Uploading", "Completed"]
    assert all("EndTime" in transition for transition in description["SecondaryStatusTransitions"])
    assert 0 < description["BillableTimeInSeconds"] <= description["TrainingTimeInSeconds"] < 60
    assert description["Environment"] == {"MY_VAR": "1"}
    tags = boto3.client("sagemaker").list_tags(ResourceArn=description["TrainingJobArn"])["Tags"]
    assert {"Key": "module", "Value": "02"} in tags
    assert job.training_job_name in [
        j.training_job_name for j in TrainingJob.get_all(status_equals="Completed")
    ]
    folder = endpoint.job_folder(job.training_job_name)
    assert (folder / "artifacts" / "model.tar.gz").exists() and "loss=0.5" in (
        folder / "logs/algo-1.log"
    ).read_text()


def test_own_poller_with_an_image_from_the_sdk(endpoint, make_trainer):
    from sagemaker.core import image_uris

    image = image_uris.retrieve(
        "pytorch",
        "us-east-1",
        version="2.10.0",
        instance_type="ml.g5.2xlarge",
        image_scope="training",
        py_version="py313",
    )
    trainer = make_trainer("import time; time.sleep(1)", training_image=image)
    name = launch(trainer)
    job = trainer._latest_training_job
    seen = []
    deadline = time.monotonic() + 60
    while job.refresh().training_job_status not in ("Completed", "Failed", "Stopped"):
        seen.append((job.training_job_status, job.secondary_status))
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert ("InProgress", "Training") in seen
    assert describe(name)["AlgorithmSpecification"]["TrainingImage"] == image


def test_role_and_bucket_are_found_by_the_sdk(endpoint):
    from sagemaker.core.helper.session_helper import Session, get_execution_role

    assert get_execution_role(Session()).endswith(":role/service-role/AmazonSageMaker-ExecutionRole")
    assert Session().default_bucket() == "sagemaker-us-east-1-123456789012"


def test_failure_shows_what_the_script_wrote(endpoint, make_trainer):
    from sagemaker.core.utils.exceptions import FailedStatusError

    trainer = make_trainer("""
        import pathlib
        pathlib.Path("/opt/ml/model/half").write_text("x")
        pathlib.Path("/opt/ml/output/data/last.txt").write_text("x")
        pathlib.Path("/opt/ml/output/failure").write_text("ValueError: reward is NaN\\n" + "frame " * 1000)
        raise SystemExit(3)
    """)
    with pytest.raises(FailedStatusError, match="AlgorithmError: ValueError: reward is NaN"):
        trainer.train(wait=True, logs=False)
    description = describe(trainer._latest_training_job.training_job_name)
    assert len(description["FailureReason"]) == 1024 and description["FailureReason"].endswith(
        ", exit code: 3"
    )
    keys = s3_keys(trainer.output_data.removesuffix("output.tar.gz"))
    assert [key.rsplit("/")[-1] for key in keys] == ["output.tar.gz"], "a failed job uploads no model"


def test_failure_without_a_message_shows_the_last_lines(endpoint):
    description = wait_end(create_raw(["bash", "-c", "echo this is the cause; exit 9"]))
    assert "this is the cause" in description["FailureReason"]
    assert description["FailureReason"].endswith("exit code: 9")


def test_the_host_that_failed_first_is_the_reason(endpoint):
    """Not the one that had to be killed then."""
    command = ["bash", "-c", "[ $(hostname) = algo-1 ] && sleep 600; echo algo-2 gives up; exit 9"]
    resources = {"InstanceType": "ml.m5.large", "InstanceCount": 2, "VolumeSizeInGB": 1}
    reason = wait_end(create_raw(command, ResourceConfig=resources))["FailureReason"]
    assert "algo-2 gives up" in reason and reason.endswith("exit code: 9")


def create_raw(command: list[str], name: str | None = None, **arguments) -> str:
    """A job as boto3 alone would create it."""
    name = name or f"raw-{time.time_ns()}"
    boto3.client("s3").create_bucket(Bucket="raw")
    boto3.client("sagemaker").create_training_job(
        **{
            "TrainingJobName": name,
            "AlgorithmSpecification": {
                "TrainingImage": "any",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": command,
            },
            "RoleArn": "arn:aws:iam::123456789012:role/any",
            "OutputDataConfig": {"S3OutputPath": "s3://raw/out"},
            "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
            "StoppingCondition": {"MaxRuntimeInSeconds": 60},
            **arguments,
        }
    )
    return name


def test_models_of_two_hosts_are_merged(endpoint, make_trainer, tmp_path):
    trainer = make_trainer(
        """
        import os, pathlib
        host = os.environ["SM_CURRENT_HOST"]
        pathlib.Path("/opt/ml/model", host).write_text(host)
        pathlib.Path("/opt/ml/model/config").write_text(host)
        """,
        hosts=2,
    )
    description = wait_end(launch(trainer))
    files = extract(description["ModelArtifacts"]["S3ModelArtifacts"], tmp_path)
    assert files == {"algo-1": "algo-1", "algo-2": "algo-2", "config": "algo-1"}


def test_names_are_unique_and_a_job_can_be_found_by_list(endpoint):
    sagemaker = boto3.client("sagemaker")
    without_effect = {
        "RetryStrategy": {"MaximumRetryAttempts": 2},
        "RemoteDebugConfig": {"EnableRemoteDebug": True},
    }
    name = create_raw(["true"], name="only-once", **without_effect)
    assert without_effect.items() <= wait_end(name).items()
    with pytest.raises(sagemaker.exceptions.ResourceInUse, match="only-once"):
        create_raw(["true"], name="only-once")
    later = create_raw(["true"], name="only-twice")
    wait_end(later)
    found = sagemaker.list_training_jobs(
        NameContains="only", SortBy="Name", SortOrder="Descending", MaxResults=1
    )
    assert [job["TrainingJobName"] for job in found["TrainingJobSummaries"]] == ["only-twice"]
    rest = sagemaker.list_training_jobs(
        NameContains="only", SortBy="Name", SortOrder="Descending", NextToken=found["NextToken"]
    )
    assert [job["TrainingJobName"] for job in rest["TrainingJobSummaries"]] == ["only-once"]
    an_hour_ago = datetime.now() - timedelta(hours=1)

    def count(**limits: datetime) -> int:
        return len(sagemaker.list_training_jobs(NameContains="only", **limits)["TrainingJobSummaries"])

    assert count(CreationTimeAfter=an_hour_ago) == count(LastModifiedTimeAfter=an_hour_ago) == 2
    assert count(CreationTimeBefore=an_hour_ago) == count(LastModifiedTimeBefore=an_hour_ago) == 0
    with pytest.raises(sagemaker.exceptions.ClientError, match="Could not find training job"):
        describe("never-made")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://raw/nothing"}}}]}, "Channel 'train': no S3 objects found under s3://raw/nothing"),
        ({"OutputDataConfig": {"S3OutputPath": "s3://no-such-bucket/out"}}, "OutputDataConfig.S3OutputPath=s3://no-such-bucket/out: this bucket does not exist"),
        ({"CheckpointConfig": {"S3Uri": "s3://no-such-bucket/ck"}}, "CheckpointConfig.S3Uri=s3://no-such-bucket/ck"),
        ({"ProfilerConfig": {"S3OutputPath": "s3://raw/p"}}, "does not support ProfilerConfig"),
        ({"EnableManagedSpotTraining": True}, "MaxWaitTimeInSeconds"),
        ({"ResourceConfig": {"InstanceType": "ml.m9.huge", "InstanceCount": 1, "VolumeSizeInGB": 1}}, "ResourceConfig.InstanceType='ml.m9.huge'"),
    ],
)  # fmt: skip
def test_bad_requests_are_refused_before_a_job_exists(endpoint, change, words):
    sagemaker = boto3.client("sagemaker")
    with pytest.raises(sagemaker.exceptions.ClientError) as caught:
        create_raw(["true"], name="refused", **change)
    assert caught.value.response["Error"]["Code"] == "ValidationException" and words in str(caught.value)
    assert sagemaker.list_training_jobs(NameContains="refused")["TrainingJobSummaries"] == []
    assert not endpoint.job_folder("refused").exists()


def test_a_newcomers_plain_script_with_variables_role_and_bucket(endpoint, tmp_path):
    """No helper of ours: four variables in the shell, an own role (any: IAM is not enforced) and bucket in the script."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "train.py").write_text("print('hello')")
    (tmp_path / "script.py").write_text(
        "from sagemaker.core.helper.session_helper import Session\n"
        "from sagemaker.core.training.configs import Compute, OutputDataConfig, SourceCode\n"
        "from sagemaker.train import ModelTrainer\n"
        "import boto3\n"
        "boto3.client('s3').create_bucket(Bucket='mine')\n"
        "trainer = ModelTrainer(\n"
        "    sagemaker_session=Session(default_bucket='mine'),\n"
        "    role='arn:aws:iam::123456789012:role/service-role/MyRole',\n"
        "    training_image='pytorch', base_job_name='newcomer',\n"
        "    source_code=SourceCode(source_dir='code', entry_script='train.py'),\n"
        "    compute=Compute(instance_type='ml.g5.xlarge', instance_count=1))\n"
        "trainer.train(wait=True, logs=True)\n"
        "print(trainer._latest_training_job.training_job_status)\n"
    )
    variables = {
        "AWS_ENDPOINT_URL": endpoint.url,
        "AWS_ACCESS_KEY_ID": "x",
        "AWS_SECRET_ACCESS_KEY": "x",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    plain = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")}
    done = subprocess.run(
        [sys.executable, "script.py"],
        cwd=tmp_path,
        env=plain | variables,
        capture_output=True,
        text=True,
        timeout=90,
    )
    assert done.stdout.endswith("Completed\n"), done.stdout + done.stderr


def test_connect_is_undone_completely(endpoint, monkeypatch):
    from local_sagemaker import client
    from sagemaker.core import common_utils

    restore = client.connect("http://127.0.0.1:9", region="eu-west-1")
    assert common_utils.sts_regional_endpoint("eu-west-1") == "http://127.0.0.1:9"
    assert boto3.client("s3").meta.endpoint_url == "http://127.0.0.1:9"
    restore()
    assert boto3.client("s3").meta.endpoint_url == endpoint.url
    monkeypatch.setenv("AWS_PROFILE", "of-the-learner")
    before = dict(os.environ)
    restore = client.connect("http://127.0.0.1:9")
    assert "AWS_PROFILE" not in os.environ
    restore()
    assert dict(os.environ) == before
