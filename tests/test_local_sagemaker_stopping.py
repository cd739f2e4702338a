"""Jobs that do not end by themselves: stop, time limits, spot interruptions, a host that fails."""

import time

import boto3
import pytest
from endpoint_fixtures import (
    REPORT,
    describe,
    extract,
    launch,
    log_lines,
    phases,
    put_text,
    reported,
    s3_keys,
    wait_end,
    wait_line,
)
from local_sagemaker import client

pytestmark = pytest.mark.endpoint

# A script that works until it is ended, and would say so if SIGTERM reached it.
ENDLESS = """
import signal, time
def terminated(number, frame):
    pathlib.Path("/opt/ml/model/terminated").write_text("")
    sys.exit(0)
signal.signal(signal.SIGTERM, terminated)
pathlib.Path("/opt/ml/model/partial.txt").write_text("half a model")
print("working", flush=True)
while True:
    time.sleep(0.1)
"""


def stop(name: str) -> None:
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)


def limits(run: int, wait: int | None = None):
    from sagemaker.core.training.configs import StoppingCondition

    return StoppingCondition(max_runtime_in_seconds=run, max_wait_time_in_seconds=wait)


def test_stop_keeps_the_partial_model(endpoint, make_trainer, tmp_path):
    trainer = make_trainer(ENDLESS)
    name = launch(trainer)
    wait_line(name, "working")
    trainer._latest_training_job.stop()
    assert describe(name)["TrainingJobStatus"] == "Stopping"
    ended = wait_end(name)
    assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert phases(ended) == ["Starting", "Downloading", "Training", "Stopping", "Stopped"]
    # Without "terminated": as on the service, the SDK's bash does not hand SIGTERM on to the script.
    assert extract(ended["ModelArtifacts"]["S3ModelArtifacts"], tmp_path) == {"partial.txt": "half a model"}
    with pytest.raises(boto3.client("sagemaker").exceptions.ClientError, match="is in status Stopped"):
        stop(name)


def test_an_entry_point_with_a_handler_gets_sigterm(endpoint, tmp_path):
    boto3.client("s3").create_bucket(Bucket="raw")
    put_text("s3://raw/program/main.py", REPORT + ENDLESS)
    name = f"handler-{time.time_ns()}"
    boto3.client("sagemaker").create_training_job(
        TrainingJobName=name,
        AlgorithmSpecification={
            "TrainingImage": "any",
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "/opt/ml/input/data/program/main.py"],
        },
        InputDataConfig=[
            {
                "ChannelName": "program",
                "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": "s3://raw/program"}},
            }
        ],
        RoleArn="arn:aws:iam::123456789012:role/any",
        OutputDataConfig={"S3OutputPath": "s3://raw/out"},
        ResourceConfig={"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        StoppingCondition={"MaxRuntimeInSeconds": 60},
    )
    wait_line(name, "working")
    stop(name)
    files = extract(wait_end(name)["ModelArtifacts"]["S3ModelArtifacts"], tmp_path)
    assert sorted(files) == ["partial.txt", "terminated"]


def test_max_runtime(endpoint, make_trainer):
    ended = wait_end(launch(make_trainer(ENDLESS, stopping_condition=limits(2))))
    assert (ended["TrainingJobStatus"], ended["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert ended["ModelArtifacts"]["S3ModelArtifacts"].endswith("/output/model.tar.gz")
    assert 2 <= ended["TrainingTimeInSeconds"] < 30


def test_one_failing_host_ends_the_others_and_is_the_reason(endpoint, make_trainer):
    script = """
    import time
    if os.environ["SM_CURRENT_HOST"] == "algo-2":
        pathlib.Path("/opt/ml/output/failure").write_text("RuntimeError: disk full on algo-2")
        sys.exit(4)
    time.sleep(600)
    """
    ended = wait_end(launch(make_trainer(script, hosts=2)))
    assert ended["FailureReason"] == "AlgorithmError: RuntimeError: disk full on algo-2, exit code: 4"


# Counts up, one file a step, keeps the last three files, and goes on from the newest.
COUNTING = """
import time
folder = pathlib.Path(os.environ.get("SM_CHECKPOINT_DIR", "/opt/ml/checkpoints"))
steps = sorted(int(p.stem) for p in folder.glob("*.txt"))
report("start", {"restored": steps, "others": sorted(os.listdir("/opt/ml/model"))})
pathlib.Path("/opt/ml/model/seen.txt").write_text("")
for step in range(max(steps, default=0) + 1, LAST + 1):
    (folder / f"{step}.txt").write_text(str(step))
    (folder / f"{step - 3}.txt").unlink(missing_ok=True)
    print(f"step={step}", flush=True)
    time.sleep(0.7)
"""


def test_spot_interruption_and_resume_in_fresh_containers(endpoint, make_trainer):
    from sagemaker.core.training.configs import CheckpointConfig

    uri = "s3://sagemaker-us-east-1-123456789012/checkpoints/spot"
    trainer = make_trainer(
        COUNTING.replace("LAST", "14"),
        spot=True,
        stopping_condition=limits(60, 120),
        checkpoint_config=CheckpointConfig(s3_uri=uri),
    )
    name = launch(trainer)
    wait_line(name, "step=6")
    client.call(endpoint.url, "interrupt", name=name)  # at once: the command would first start Python
    ended = wait_end(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    attempt = ["Starting", "Downloading", "Training"]
    assert phases(ended) == [*attempt, "Interrupted", *attempt, "Uploading", "Completed"]
    starts = [line for line in log_lines(name) if line.startswith("REPORT start")]
    assert len(starts) == 2
    second = reported(name)["start"]
    first_attempt = log_lines(name)[: log_lines(name).index(starts[1])]
    reached = max(int(line.removeprefix("step=")) for line in first_attempt if line.startswith("step="))
    restored = max(second["restored"])
    # S3 may be behind by what was not yet uploaded, or ahead by a step that was not yet printed.
    assert 4 <= restored <= reached + 1, "it went on from what S3 had"
    assert [line for line in log_lines(name) if line.startswith("step=")][-(14 - restored) :] == [
        f"step={step}" for step in range(restored + 1, 15)
    ]
    assert second["others"] == [], "the second container is a fresh one"
    assert sorted(key.rsplit("/")[-1] for key in s3_keys(uri)) == ["12.txt", "13.txt", "14.txt"], (
        "deletions are synced"
    )
    assert any(line.startswith("Restored ") for line in log_lines(name))


def test_only_a_running_spot_job_is_interrupted(endpoint, make_trainer):
    name = launch(make_trainer(ENDLESS))
    wait_line(name, "working")
    refused = endpoint.command("interrupt", name)
    assert refused.returncode == 1 and "only such jobs are interrupted" in refused.stderr
    assert "no training job named nobody" in endpoint.command("interrupt", "nobody").stderr
    stopped = endpoint.command("stop", name)
    assert stopped.returncode == 0, stopped.stderr
    assert wait_end(name)["TrainingJobStatus"] == "Stopped"
    assert "is in status Stopped" in endpoint.command("stop", name).stderr


def test_max_wait_time(endpoint, make_trainer):
    """It counts from the creation on, so an interruption does not start it again."""
    name = launch(make_trainer(ENDLESS, spot=True, stopping_condition=limits(15, 15)))
    wait_line(name, "working")
    client.call(endpoint.url, "interrupt", name=name)
    ended = wait_end(name)
    assert ended["TrainingJobStatus"] == "Stopped" and "Interrupted" in phases(ended)
    assert ended["SecondaryStatus"] == "MaxWaitTimeExceeded"


def test_checkpoints_of_an_earlier_job_are_restored_on_every_host(endpoint, make_trainer):
    from sagemaker.core.training.configs import CheckpointConfig

    uri = "s3://sagemaker-us-east-1-123456789012/checkpoints/earlier"
    put_text(f"{uri}/7.txt", "7")
    put_text(f"{uri}/deep/state.bin", "x")
    trainer = make_trainer(
        """
        folder = pathlib.Path("/opt/ml/checkpoints/mine")
        report("files", sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()))
        report("config", json.loads(pathlib.Path("/opt/ml/input/config/checkpointconfig.json").read_text()))
        if os.environ["SM_CURRENT_HOST"] == "algo-1":
            (folder / "7.txt").unlink()
            (folder / "8.txt").write_text("8")
        """,
        hosts=2,
        checkpoint_config=CheckpointConfig(s3_uri=uri, local_path="/opt/ml/checkpoints/mine"),
    )
    name = launch(trainer)
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    for host in ("algo-1", "algo-2"):
        seen = reported(name, host)
        folder = "/opt/ml/checkpoints/mine"
        config = {"S3Uri": uri, "LocalPath": folder}
        assert seen == {"files": ["7.txt", "deep/state.bin"], "config": config}
    assert [key.rsplit("earlier/")[-1] for key in s3_keys(uri)] == ["8.txt", "deep/state.bin"]
