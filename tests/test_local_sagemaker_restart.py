"""An endpoint that is killed (kill -9), and the next one in its home: buckets, jobs and logs are there again."""

import json
import os
import signal
import subprocess
import sys

import boto3
import pytest
from endpoint_fixtures import (
    end_endpoint,
    endpoint_environment,
    launch,
    log_lines,
    make_trainer,
    phases,
    s3_keys,
    start_endpoint,
    wait_end,
    wait_for_exit,
    wait_line,
    wait_until,
)
from local_sagemaker import client
from local_sagemaker.api.earlier_jobs import take_over
from workshop.jobs.live import JobFailed, watch
from workshop.session import connection

pytestmark = [pytest.mark.endpoint, pytest.mark.timeout(180)]
TRAINS = """
import subprocess, time
checkpoints = pathlib.Path(os.environ.get("SM_CHECKPOINT_DIR", "/opt/ml/checkpoints"))
done = sorted(path.name for path in checkpoints.iterdir())
print("found", done, flush=True)
(checkpoints / "step-1").write_text("state")
print('{"loss": 0.5}', flush=True)
while not done:
    time.sleep(0.1)
pathlib.Path(os.environ["SM_MODEL_DIR"], "weights").write_bytes(bytes(3_000_000))
"""


@pytest.fixture
def homes(tmp_path, monkeypatch):
    """start(): an endpoint of one home, this process connected to it; kill it with its `process`."""
    started, restores = [], []
    monkeypatch.setenv("LOCAL_SAGEMAKER_HOME", str(tmp_path / "home"))

    def start():
        started.append(start_endpoint(tmp_path / "home"))
        restores.append(client.connect(started[-1].url))
        return started[-1]

    yield start
    for restore in reversed(restores):
        restore()
    for running in started:
        end_endpoint(running)


def test_only_what_the_endpoint_left_of_a_request_is_deleted(tmp_path, capsys):
    """A folder without request.json may be anybody's."""
    for name in ("broken-off/room", "broken-off/job.json", "mine/thesis.tex", "both/room", "both/notes/a"):
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")
    (tmp_path / "empty").mkdir()
    take_over(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["both", "mine"]
    assert (tmp_path / "mine" / "thesis.tex").exists() and (tmp_path / "both" / "notes" / "a").exists()
    assert "mine is left as it is" in capsys.readouterr().err


def kill(running) -> None:
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()


def test_a_kill_in_a_job_and_after_one(homes, tmp_path):
    from sagemaker.core.training.configs import CheckpointConfig

    first = homes()
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="kept")
    s3.put_object(Bucket="kept", Key="data/a", Body=b"1", Metadata={"made": "by hand"})
    s3.put_object(Bucket="kept", Key="data/a", Body=b"22", Metadata={"made": "again"})
    s3.put_object(Bucket="kept", Key="data/deleted", Body=b"3")
    s3.delete_object(Bucket="kept", Key="data/deleted")
    big = tmp_path / "big"
    big.write_bytes(os.urandom(20_000_000))  # in parts of 8 MB
    s3.upload_file(str(big), "kept", "data/big")

    checkpoints = CheckpointConfig(s3_uri="s3://kept/run")
    make = make_trainer.__wrapped__(first, tmp_path)
    cut = launch(make(TRAINS, checkpoint_config=checkpoints))
    wait_line(cut, "found []")
    wait_until(cut, lambda _: s3_keys("s3://kept/run") == ["run/step-1"])
    watching = watch_in_a_process(cut, first)
    kill(first)
    said = watching.communicate(timeout=60)[0]
    assert "EndpointEnded" in said and "The local endpoint has ended: it was killed" in said, said

    second = homes()
    ended = wait_end(cut)
    assert ended["TrainingJobStatus"] == "Failed"
    assert ended["FailureReason"] == (
        "The endpoint ended while the job ran: it was killed, or the machine stopped. Send the job again, under a new "
        "name: with the same checkpoint address, s3://kept/run, it goes on from the checkpoints that are there."
    )
    assert phases(ended)[:3] == ["Starting", "Downloading", "Training"] and phases(ended)[-1] == "Failed"
    assert ended["TrainingTimeInSeconds"] >= 1
    assert '{"loss": 0.5}' in log_lines(cut)
    with pytest.raises(JobFailed, match="The endpoint ended while the job ran"):
        watch(cut)
    again = launch(make_trainer.__wrapped__(second, tmp_path)(TRAINS, checkpoint_config=checkpoints))
    before = wait_end(again)
    assert before["TrainingJobStatus"] == "Completed" and "found ['step-1']" in log_lines(again)
    lines = log_lines(again)
    kill(second)

    third = homes()
    s3 = boto3.client("s3")  # of the third
    after = boto3.client("sagemaker").describe_training_job(TrainingJobName=again)
    for description in (before, after):
        del description["ResponseMetadata"]
    assert after == before
    assert log_lines(again) == lines
    listed = boto3.client("sagemaker").list_training_jobs(SortBy="CreationTime")["TrainingJobSummaries"]
    assert [job["TrainingJobName"] for job in listed] == [cut, again]
    found = s3.get_object(Bucket="kept", Key="data/a")
    assert (found["Body"].read(), found["Metadata"]) == (b"22", {"made": "again"})
    assert s3_keys("s3://kept/data") == ["data/a", "data/big"]
    s3.download_file("kept", "data/big", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    bucket, _, key = after["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    assert s3.head_object(Bucket=bucket, Key=key)["ContentLength"] > 1000
    assert "Failed" in third.command("jobs").stdout and "Lost" not in third.command("jobs").stdout


def watch_in_a_process(name: str, running) -> subprocess.Popen:
    """`watch` as a notebook's kernel runs it; returns once it has seen the job train."""
    code = (
        f"from local_sagemaker import client; client.connect({running.url!r})\n"
        f"from workshop.jobs.live import watch; watch({name!r}, refresh=0.2)"
    )
    watcher = subprocess.Popen(
        [sys.executable, "-c", code],
        env=endpoint_environment(running.home),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while "Training" not in (line := watcher.stdout.readline()):
        assert line, "watch ended before it had seen anything"
    return watcher


def test_what_a_container_takes_with_it_goes_though_the_endpoint_was_killed(homes, tmp_path):
    """Among it is the file with pip's passwords."""
    first = homes()
    name = launch(make_trainer.__wrapped__(first, tmp_path)("import time\nprint('here')\ntime.sleep(600)"))
    wait_line(name, "here")
    kill(first)
    folder = first.job_folder(name)
    host, scratch = folder / "attempt-1" / "algo-1", (folder / "scratch").readlink()
    assert (host / "home" / ".config" / "pip" / "pip.conf").exists() and any(scratch.iterdir())
    assert folder.stat().st_mode & 0o777 == 0o700

    homes()
    assert sorted(path.name for path in host.iterdir()) == ["ml"]
    assert not scratch.exists() and not (folder / "scratch").is_symlink()
    assert wait_end(name)["TrainingJobStatus"] == "Failed"


@pytest.mark.skipif(
    not hasattr(os, "pidfd_open"), reason="processes are ended by their descriptors, on Linux"
)
def test_processes_that_outlived_even_their_supervisor_are_ended(homes, tmp_path):
    """As `--isolation rewrite` may leave them when everything of the endpoint is killed at once."""
    first = homes()
    name = launch(make_trainer.__wrapped__(first, tmp_path)("import time\ntime.sleep(600)"))
    folder = first.job_folder(name)
    ours = {"TRAINING_JOB_NAME": name, "HOME": f"{folder}/attempt-1/algo-1/home"}
    left = subprocess.Popen(["sleep", "601"], env=os.environ | ours)
    # Somebody's shell in the job's folder, and a process of another endpoint's job of the same name.
    others = [
        subprocess.Popen(["sleep", "602"], env=os.environ | {"PWD": str(folder)}),
        subprocess.Popen(
            ["sleep", "603"], env=os.environ | ours | {"HOME": "/elsewhere/attempt-1/algo-1/home"}
        ),
    ]
    try:
        kill(first)
        homes()
        assert left.wait(20) == -signal.SIGKILL
        assert [process.poll() for process in others] == [None, None]
        assert wait_end(name)["TrainingJobStatus"] == "Failed"
    finally:
        for process in (left, *others):
            process.kill()
            process.wait()


def test_a_home_has_one_endpoint_even_before_it_answers(homes):
    """The lock is there before endpoint.json is, and goes with the process."""
    running = homes()
    (running.home / "endpoint.json").unlink()
    refused = running.command("serve")
    assert refused.returncode == 1 and "An endpoint already runs" in refused.stderr
    kill(running)
    assert homes().url


def test_close_gives_the_settings_back_from_a_dead_endpoint_and_only_once(homes, capsys):
    before = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    session = connection.open_session("local")
    endpoint = client.find_endpoint()
    os.kill(endpoint.pid, signal.SIGKILL)
    wait_for_exit(endpoint.pid)
    session.close()
    said = capsys.readouterr().out
    assert "The local endpoint had ended before: it was killed" in said
    assert {name: value for name, value in os.environ.items() if name.startswith("AWS_")} == before

    other = connection.open_session("local")
    inside = dict(os.environ)
    session.close()
    assert "closed already" in capsys.readouterr().out and dict(os.environ) == inside
    other.close()
    assert {name: value for name, value in os.environ.items() if name.startswith("AWS_")} == before
    assert "is stopped" in capsys.readouterr().out
    ended = json.loads((client.home_folder() / "ended.json").read_text())
    assert (ended["url"], ended["why"]) == (other.endpoint_url, "it was stopped")
    assert client.end_of(other.endpoint_url).startswith("it was stopped (")
