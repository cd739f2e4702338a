"""An endpoint whose disk really is full: jobs end and say why, are stopped, and refused ones leave nothing behind."""

import copy
import json
import time

import boto3
import pytest
from botocore.exceptions import ClientError
from endpoint_fixtures import connected_endpoint, launch, log_lines, s3_keys, wait_end, wait_line
from small_disks import fill, small_disk
from workshop.jobs.status import training_job

pytestmark = [pytest.mark.endpoint, pytest.mark.timeout(180)]
CHECKPOINTS = "s3://kept/run/"
# The second checkpoint does not fit; the first has reached S3 by then.
SAVES = """
import time
checkpoints = pathlib.Path(os.environ.get("SM_CHECKPOINT_DIR", "/opt/ml/checkpoints"))
print("found", sorted(path.name for path in checkpoints.iterdir()), flush=True)
(checkpoints / "step-1").write_bytes(bytes(500_000))
time.sleep(2)
with open(checkpoints / "step-2", "wb") as file:
    (checkpoints / "step-1").unlink()  # as a trainer does that keeps one
    for _ in range(100):
        file.write(bytes(1_000_000))
"""
WAITS = 'import time\nprint("waits", flush=True)\ntime.sleep(600)\n'


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory):
    with (
        small_disk(tmp_path_factory.mktemp("disk") / "home", 24) as home,
        connected_endpoint(home) as running,
    ):
        boto3.client("s3").create_bucket(Bucket="kept")
        yield running


def checkpointed():
    from sagemaker.core.training.configs import CheckpointConfig

    return CheckpointConfig(s3_uri=CHECKPOINTS)


def test_a_checkpoint_that_does_not_fit(endpoint, make_trainer):
    name = launch(make_trainer(SAVES, checkpoint_config=checkpointed()))
    ended = wait_end(name)
    reason = ended["FailureReason"]
    assert ended["TrainingJobStatus"] == "Failed", ended
    assert reason.startswith(f"AlgorithmError: No space left on {endpoint.job_folder(name)}"), reason
    assert "Delete what is no longer needed" in reason and "OSError: [Errno 28]" in reason
    assert s3_keys(CHECKPOINTS) == ["run/step-1"], "the last whole checkpoint is there"
    assert json.loads((endpoint.job_folder(name) / "job.json").read_text())["failure_reason"] == reason

    refused = boto3.client("sagemaker").describe_training_job(TrainingJobName=name)
    for leftover in endpoint.job_folder(name).rglob("step-2"):
        leftover.unlink()
    fill(endpoint.home / "rest")
    check_refusal(endpoint, refused)
    again = launch(make_trainer(SAVES, checkpoint_config=checkpointed()))
    wait_line(again, "found ['step-1']")
    assert wait_end(again)["TrainingJobStatus"] == "Failed"
    for leftover in endpoint.job_folder(again).rglob("step-2"):
        leftover.unlink()


def check_refusal(endpoint, description: dict) -> None:
    """A request that there is no space for is refused, and can be sent again under its name."""
    members = boto3.client("sagemaker").meta.service_model.operation_model(
        "CreateTrainingJob"
    ).input_shape.members  # fmt: skip
    body = {key: copy.deepcopy(value) for key, value in description.items() if key in members}
    body["TrainingJobName"] = "refused"
    with pytest.raises(ClientError, match=f"No space left on {endpoint.home}.*Delete what") as refusal:
        boto3.client("sagemaker").create_training_job(**body)
    assert refusal.value.response["Error"]["Code"] == "LocalModeNoSpace"
    assert not endpoint.job_folder("refused").exists()
    with pytest.raises(ClientError, match="not find training job"):
        training_job_description("refused")
    with pytest.raises(ClientError, match="No space left on"):
        boto3.client("s3").put_object(Bucket="kept", Key="data", Body=bytes(100_000))
    assert s3_keys("s3://kept/data") == []
    (endpoint.home / "rest").unlink()
    boto3.client("sagemaker").create_training_job(**body)
    boto3.client("sagemaker").stop_training_job(TrainingJobName="refused")
    assert wait_end("refused")["TrainingJobStatus"] == "Stopped"


def training_job_description(name: str) -> dict:
    return boto3.client("sagemaker").describe_training_job(TrainingJobName=name)


def test_a_job_is_stopped_on_a_full_disk_and_its_end_is_written_later(endpoint, make_trainer):
    name = launch(make_trainer(WAITS))
    wait_line(name, "waits")
    fill(endpoint.home / "rest")
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    assert wait_end(name)["TrainingJobStatus"] == "Stopped"
    assert "waits" in log_lines(name)
    assert training_job(name).training_job_status == "Stopped", "and others can be asked for"
    (endpoint.home / "rest").unlink()
    file, deadline = endpoint.job_folder(name) / "job.json", time.monotonic() + 20
    while json.loads(file.read_text())["status"] != "Stopped":
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_results_that_do_not_fit(endpoint, make_trainer):
    script = """
    import random
    pathlib.Path(os.environ["SM_MODEL_DIR"], "weights").write_bytes(random.randbytes(9_000_000))
    """
    name = launch(make_trainer(script))
    ended = wait_end(name)
    assert ended["TrainingJobStatus"] == "Failed" and "ModelArtifacts" not in ended, ended
    assert ended["FailureReason"].startswith(f"No space left on {endpoint.home}"), ended["FailureReason"]
