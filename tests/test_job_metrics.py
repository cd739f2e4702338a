"""The log line of a step: what writes it and what reads it agree, and the history has the same names."""

import json
import math
import re

import pytest
from job.metrics import HISTORY, SHOWN, add_metrics, last_step, metric_regex, metrics_line, parse_metrics

LOGS = {
    "reward": 0.53125,
    "loss": -1.5e-05,
    "completions/mean_length": 31.5,
    "frac_reward_zero_std": 0.0,
    "rewards/accuracy/mean": 0.25,
    "rewards/soft_overlong/mean": 1.0,
    "rewards/accuracy/std": 0.1,
    "learning_rate": 1.5e-4,
    "num_tokens": 123456,
    "run": "a text",
    "nothing": None,
}


def test_what_is_written_is_read_again():
    line = metrics_line(LOGS, 12, 80)
    assert line and line.startswith(
        "[metrics] step=12/80 reward=0.5312 loss=-1.5e-05 completions/mean_length=31.5 "
    )
    read = parse_metrics(f"[algo-1] {line}\r")
    assert read and list(read)[0] == "step"
    shown = {name: value for name, value in LOGS.items() if name in SHOWN or name.endswith("/mean")}
    assert read == {"step": 12} | {name: pytest.approx(value, rel=1e-3) for name, value in shown.items()}
    assert last_step(line) == 80


@pytest.mark.parametrize("name", [*SHOWN, "rewards/my_own-reward.v2/mean"])
@pytest.mark.parametrize("value", [0, 1, -3, 0.1, 1e-9, -2.5e12, 123456789.0])
def test_every_name_and_number_comes_back(name, value):
    read = parse_metrics(metrics_line({name: value}, 1, 2))
    assert read == {"step": 1, name: pytest.approx(value, rel=1e-3)}


@pytest.mark.parametrize("name", SHOWN)
def test_sagemaker_finds_each_metric_and_no_other(name):
    line = metrics_line({shown: 1000.0 + number for number, shown in enumerate(SHOWN)}, 1, 2)
    assert [float(found) for found in re.findall(metric_regex(name), line)] == [1000 + SHOWN.index(name)]


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_what_a_diverging_run_logs_comes_back(value):
    read = parse_metrics(metrics_line({"loss": value}, 1, 2))
    assert read and (read["loss"] == value or math.isnan(value) and math.isnan(read["loss"]))


def test_a_log_with_nothing_to_watch_gives_no_line():
    assert metrics_line({"num_tokens": 5, "epoch": 0.1}, 1, 2) is None
    assert metrics_line({"reward": "high", "loss": True}, 1, 2) is None


@pytest.mark.parametrize(
    "line", ["", "reward=1", "[metrics] reward=1", "[metrics] step= reward=1", "[metrics] step=x"]
)
def test_other_lines_are_none(line):
    assert parse_metrics(line) is None
    assert last_step(line) is None


def test_steps_are_joined_and_those_trained_again_replaced():
    history = []
    for metrics in (
        {"step": 1, "loss": 3},
        {"step": 2, "loss": 2},
        {"step": 2, "eval_loss": 9},
        {"step": 3, "loss": 1},
    ):
        add_metrics(history, metrics)
    add_metrics(history, {"step": 2, "loss": 5})
    assert history == [{"step": 1, "loss": 3}, {"step": 2, "loss": 5, "eval_loss": 9}]


def test_the_line_and_the_history_of_a_trainer_have_one_name_for_each_metric(tmp_path, monkeypatch, capsys):
    """What watch() reads off the log, and what fetch_output() reads from the job's outputs, by the callback that writes both."""
    from job.history import MetricLines
    from transformers import TrainerControl, TrainerState, TrainingArguments

    monkeypatch.setenv("SM_OUTPUT_DATA_DIR", str(tmp_path))
    arguments = TrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    state, control = TrainerState(max_steps=2, is_world_process_zero=True), TrainerControl()
    callback = MetricLines()
    callback.on_train_begin(arguments, state, control)
    for step in (1, 2):
        state.global_step = step
        callback.on_log(arguments, state, control, {**LOGS, "reward": step / 3})
    watched = []
    for line in capsys.readouterr().out.splitlines():
        add_metrics(watched, parse_metrics(line))
    fetched = []
    for line in (tmp_path / HISTORY).read_text().splitlines():
        add_metrics(fetched, json.loads(line))
    assert [entry["step"] for entry in watched] == [entry["step"] for entry in fetched] == [1, 2]
    for seen, kept in zip(watched, fetched, strict=True):
        assert {"reward", "completions/mean_length", "rewards/accuracy/mean"} <= seen.keys() <= kept.keys()
        assert seen == {name: pytest.approx(kept[name], rel=1e-3) for name in seen}
