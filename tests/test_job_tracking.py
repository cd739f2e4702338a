"""The log lines of a trainer, and what trackers need; runs that are really recorded are in test_job_training."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from job.arguments import RunArguments
from job.history import MetricLines
from job.tracking import TrackingError, finish_tracking, log_evaluation, start_tracking
from job.zero_rewards import FIRST_STEPS, ZeroRewardWarnings
from rl.evaluation import score_completions
from rl.verifiers import get_verifier
from transformers import TrainerControl, TrainerState, TrainingArguments

SCRIPTS = Path(__file__).parents[1] / "scripts"


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


def test_mlflow_by_arn_needs_its_plugin(tmp_path, output, monkeypatch):
    arn = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-A"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", arn)
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name: None if name == "sagemaker_mlflow" else "installed"
    )
    with pytest.raises(
        TrackingError, match=f"{arn} needs sagemaker-mlflow: add it to the job's requirements.txt"
    ):
        start_tracking(RunArguments(), arguments(tmp_path, ["mlflow"]), data_fingerprint="0")


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


def evaluation(*cut_off: bool):
    """Of one problem: a greedy completion and samples, each wrong or, if it was cut off, nothing."""
    items = [
        {
            "index": 0,
            "question": "4 + 5",
            "answer": "9",
            "decoding": "sampled" if place else "greedy",
            "sample": max(0, place - 1),
            "completion": "<think>4 +" if cut else "<think></think><answer>8</answer>",
            "tokens": 16 if cut else 9,
            "cut_off": cut,
        }
        for place, cut in enumerate(cut_off)
    ]
    return score_completions(items, get_verifier("number"))


@pytest.mark.parametrize(
    ("cut_off", "said"),
    [
        ([True, False, True], "1 of 1 greedy and 1 of 2 sampled"),
        ([False, True, True], "2 of 2 sampled"),
        ([False, False, False], None),
    ],
)
def test_completions_that_were_cut_off_are_said_in_one_line(cut_off, said, capsys):
    log_evaluation("before", evaluation(*cut_off))
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("[evaluation] before: pass@1 0.000")
    expected = f"[evaluation] before: {said} completions were cut off at eval_max_new_tokens, before they could answer"
    assert lines[1:] == ([expected] if said else [])


def warnings_of(capsys, rows, *, before=None, is_main=True, remembered=()):
    """The steps at which each warning came, when the trainer logs these rewards one step after the other."""
    state = TrainerState(max_steps=80, is_world_process_zero=is_main, log_history=list(remembered))
    callback, found = ZeroRewardWarnings(before), []
    callback.on_train_begin(None, state, TrainerControl())
    for step, logs in enumerate(rows, start=len(remembered) + 1):
        log(callback, state, step, **logs)
        lines = capsys.readouterr().out.splitlines()
        assert all(line.startswith("[warning] ") for line in lines)
        found += [(step, line) for line in lines]
    return found


def rewards(accuracy: float, equal: float = 0.0, **others: float) -> dict[str, float]:
    """What TRL logs of a step; the standard deviation is that of rewards of 0 and 1."""
    means = {"accuracy": accuracy, "format": 0.5, **others}
    logs = {f"rewards/{name}/mean": mean for name, mean in means.items()}
    logs |= {f"rewards/{name}/std": (mean * (1 - mean)) ** 0.5 for name, mean in means.items()}
    return {**logs, "frac_reward_zero_std": equal, "loss": 0.0}


def test_a_reward_that_is_0_throughout_is_said_after_five_steps_and_then_seldom(capsys):
    found = warnings_of(capsys, [rewards(0.0)] * 45, before=evaluation(False, True))
    assert [step for step, _ in found] == [5, 5, 10, 10, 20, 20, 40, 40]
    assert found[0][1].startswith(
        "[warning] The reward accuracy was 0 for every completion of the first 5 steps: it has taught nothing. "
    )
    assert "verifier" in found[0][1]
    assert found[1][1].endswith(
        "to a problem with the known answer '9' it wrote '<think></think><answer>8</answer>'; its answer '8' is wrong."
    )


def test_one_completion_that_earned_something_is_enough(capsys):
    assert warnings_of(capsys, [rewards(0.0)] * 4 + [rewards(0.01)] + [rewards(0.0)] * 40) == []
    assert warnings_of(capsys, [rewards(0.5)] * 5) == []
    # +1 and -1 are 0 on average.
    balanced = rewards(0.5) | {"rewards/accuracy/mean": 0.0, "rewards/accuracy/std": 1.0}
    assert warnings_of(capsys, [balanced] * 5) == []
    # A reward without an opinion has no mean.
    without = rewards(0.5) | {"rewards/accuracy/mean": float("nan"), "rewards/accuracy/std": float("nan")}
    assert warnings_of(capsys, [without] * 5) == []


def test_groups_of_equal_rewards_are_said_too(capsys):
    ((step, line),) = warnings_of(capsys, [rewards(1.0, equal=1.0)] * 5)
    assert step == 5 and "All completions of a group had the same reward in each of the first 5 steps" in line
    assert warnings_of(capsys, [rewards(1.0, equal=1.0)] * 4 + [rewards(1.0, equal=0.5)] * 9) == []


def test_a_resumed_job_remembers_what_was_earned_before(capsys):
    earned = [{**rewards(0.2), "step": 1}] + [{**rewards(0.0), "step": step} for step in (2, 3, 4, 5)]
    assert warnings_of(capsys, [rewards(0.0)] * 5, remembered=earned) == []
    nothing = [{**rewards(0.0), "step": step} for step in range(1, 8)]
    assert [step for step, _ in warnings_of(capsys, [rewards(0.0)], remembered=nothing)] == [8]


def test_logs_without_rewards_and_other_processes_say_nothing(capsys):
    assert warnings_of(capsys, [{"loss": 0.5, "rewards/margins": 0.0}] * (FIRST_STEPS + 1)) == []
    assert warnings_of(capsys, [rewards(0.0)] * 6, is_main=False) == []


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
    code += "print('ready', flush=True); sys.stdin.readline(); _start_mlflow(RunArguments(), 'run', {'git_revision': '1'})\n"
    code += "from job.tracking import trackers; assert trackers['mlflow'].trouble is None, trackers['mlflow'].trouble"
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
