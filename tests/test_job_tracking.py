"""Secrets for trackers, and the log lines of a trainer; runs that are really recorded are in test_job_training."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import boto3
import pytest
from job.arguments import RunArguments
from job.history import MetricLines
from job.tracking import TrackingError, finish_tracking, read_secret, start_tracking
from moto import mock_aws
from transformers import TrainerControl, TrainerState, TrainingArguments

SCRIPTS = Path(__file__).parents[1] / "scripts"
KEY = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def secrets(monkeypatch):
    """A client of moto's Secrets Manager in this process."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    with mock_aws():
        yield boto3.client("secretsmanager")


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", json.dumps({"WANDB_API_KEY": KEY, "other": "x"})])
def test_secret_as_text_or_as_one_key_of_an_object(secrets, text):
    secrets.create_secret(Name="wandb", SecretString=text)
    assert read_secret("wandb", "WANDB_API_KEY") == KEY


def test_unusable_secrets_are_named_and_their_values_are_not_shown(secrets):
    with pytest.raises(TrackingError, match="'nosuch' could not be read.*GetSecretValue"):
        read_secret("nosuch", "WANDB_API_KEY")
    secrets.create_secret(Name="binary", SecretBinary=b"abc")
    with pytest.raises(TrackingError, match="'binary' could not be read"):
        read_secret("binary", "WANDB_API_KEY")
    secrets.create_secret(Name="other", SecretString=json.dumps({"token": KEY}))
    with pytest.raises(TrackingError, match="without the key WANDB_API_KEY") as refused:
        read_secret("other", "WANDB_API_KEY")
    assert KEY not in str(refused.value)


@pytest.fixture
def output(tmp_path, monkeypatch):
    monkeypatch.setenv("SM_OUTPUT_DATA_DIR", str(tmp_path / "output"))
    return tmp_path / "output"


def arguments(tmp_path, report_to):
    return TrainingArguments(output_dir=str(tmp_path), report_to=report_to, use_cpu=True)


def test_a_tracker_that_is_not_installed_is_named(tmp_path, output, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(
        TrackingError, match="names wandb, which is not installed: add it to requirements.txt"
    ):
        start_tracking(RunArguments(), arguments(tmp_path, ["wandb"]), data_fingerprint="0")


def test_nothing_is_opened_for_none_or_beside_the_main_process(tmp_path, output, monkeypatch):
    start_tracking(RunArguments(), arguments(tmp_path, "none"), data_fingerprint="0")
    monkeypatch.setenv("RANK", "1")
    start_tracking(RunArguments(), arguments(tmp_path, ["mlflow", "wandb"]), data_fingerprint="0")
    assert not output.exists()


def log(callback, state, step, **logs):
    state.global_step = step
    state.log_history.append({**logs, "step": step})
    callback.on_log(None, state, TrainerControl(), logs=logs)


def test_lines_show_what_there_is_and_the_history_all(output, capsys):
    state, callback = TrainerState(max_steps=80, is_world_process_zero=True), MetricLines()
    callback.on_train_begin(None, state, TrainerControl())
    log(
        callback,
        state,
        12,
        **{"loss": -0.002, "reward": 0.53125, "rewards/format/mean": 1.0, "kl": 1e-7, "x": 3},
    )
    log(callback, state, 13, **{"eval_runtime": 0.5, "learning_rate": None})  # nothing of it is shown
    log(callback, state, 80, train_runtime=7.0, train_loss=0.1)  # the sum at the end belongs to no step
    lines = capsys.readouterr().out.splitlines()
    assert lines == ["[metrics] step=12/80 reward=0.5312 loss=-0.002 kl=1e-07 rewards/format/mean=1"]
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [logs["step"] for logs in history] == [12, 13]
    assert history[0]["x"] == 3


def test_history_is_made_again_from_what_a_checkpoint_remembers(output):
    state, callback = TrainerState(max_steps=9, is_world_process_zero=True), MetricLines()
    callback.on_train_begin(None, state, TrainerControl())
    for step in (1, 2, 3):
        log(callback, state, step, reward=step / 10)
    resumed = TrainerState(max_steps=9, is_world_process_zero=True, log_history=state.log_history[:2])
    callback.on_train_begin(None, resumed, TrainerControl())
    log(callback, resumed, 3, reward=0.35)
    history = [json.loads(line) for line in (output / "history.jsonl").read_text().splitlines()]
    assert [(logs["step"], logs["reward"]) for logs in history] == [(1, 0.1), (2, 0.2), (3, 0.35)]


def test_other_processes_write_nothing(output, capsys):
    state, callback = TrainerState(max_steps=9, is_world_process_zero=False), MetricLines()
    callback.on_train_begin(None, state, TrainerControl())
    log(callback, state, 1, reward=1.0)
    assert not output.exists()
    assert capsys.readouterr().out == ""


def test_mlflow_samples_the_machine(tmp_path, output, monkeypatch):
    from job import tracking
    from mlflow import MlflowClient

    monkeypatch.setattr(tracking, "SYSTEM_METRICS_SECONDS", 0.2)
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store)
    start_tracking(RunArguments(), arguments(tmp_path, ["mlflow"]), data_fingerprint="0")
    time.sleep(2)
    finish_tracking()
    client = MlflowClient(store)
    (run,) = client.search_runs([client.get_experiment_by_name(RunArguments().experiment).experiment_id])
    assert 0 < run.data.metrics["system/system_memory_usage_percentage"] < 100
    assert "system/cpu_utilization_percentage" in run.data.metrics


@pytest.mark.job
def test_two_jobs_may_make_the_same_mlflow_store_at_once(tmp_path):
    """Each job has temporary files of its own, where MLflow keeps the lock that should prevent this."""
    code = "from job.tracking import _start_mlflow; from job.arguments import RunArguments; import sys\n"
    code += "print('ready', flush=True); sys.stdin.readline(); _start_mlflow(RunArguments(), 'run', {'git_revision': '1'})"
    store = f"sqlite:///{tmp_path / 'mlflow.db'}"
    jobs = []
    for name in "ab":
        (tmp_path / name).mkdir()
        settings = {"PYTHONPATH": str(SCRIPTS), "MLFLOW_TRACKING_URI": store, "TMPDIR": str(tmp_path / name)}
        jobs.append(
            subprocess.Popen(
                [sys.executable, "-c", code],
                env=os.environ | settings,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    for job in jobs:
        assert job.stdout.readline() == "ready\n"
    for job in jobs:
        job.stdin.write("go\n")
        job.stdin.flush()
    for job in jobs:
        _, errors = job.communicate(timeout=120)
        assert job.returncode == 0, errors[-3000:]
