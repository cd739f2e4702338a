"""Recorded runs: the rows and curves that are written, and what a run leaves for others."""

# ruff: noqa: F811  (fixtures are arguments)

import os
import shutil

import pytest
from recorded_module import EXPERIMENT, module, record, write_experiments  # noqa: F401
from rl.evaluation import Completion, Evaluation, score_completions
from rl.verifiers import get_verifier
from seeds.book import Book
from seeds.experiments import read_experiments
from seeds.jobs import LeftBehind
from seeds.machine import machine_name, revision
from seeds.runs import settings_of, wanted_runs
from seeds.tables import curve_rows, read_runs, result_row, write_runs
from workshop.jobs.outputs import JobOutput

# ---- what is written ----


def evaluation(*texts: str) -> Evaluation:
    """One problem, 8; the first text is the greedy one."""
    items = [
        Completion(
            index=0, question="2 + 6", answer="8", decoding="sampled" if number else "greedy",
            sample=max(0, number - 1), completion=text, tokens=10 + number, cut_off=False,
        )
        for number, text in enumerate(texts)
    ]  # fmt: skip
    return score_completions(items, get_verifier("number"))


THOUGHT, FALSE, DIRECT, BARE = (
    "<think>2 + 6 = 8</think><answer>8</answer>",
    "<think>2 + 6 = 9</think><answer>9</answer>",
    "<think></think><answer>8</answer>",
    "It is 8.",
)


def test_a_row_says_how_good_the_model_is_and_how_it_answers(tmp_path):
    bare, thinking = (
        evaluation(BARE, BARE, BARE, BARE, BARE),
        evaluation(THOUGHT, THOUGHT, FALSE, DIRECT, BARE),
    )
    output = JobOutput("job", "s3://x", tmp_path, parts={"before": bare, "after": thinking})
    row = result_row(output, seconds=12)
    after = {name.removeprefix("after/"): value for name, value in row.items() if name.startswith("after/")}
    assert row["before/pass_at_1_greedy"] == 0 and row["before/untagged_sampled"] == 1
    assert row["before/thinks_right_sampled"] is None, "none thinks"
    assert after["pass_at_1_greedy"] == 1 and after["pass_at_1_sampled"] == 0.5
    assert after["pass_at_2"] == pytest.approx(5 / 6) and after["pass_at_4"] == 1 and "pass_at_8" not in after
    assert (after["thinks_sampled"], after["direct_sampled"], after["untagged_sampled"]) == (0.5, 0.25, 0.25)
    assert (after["thinks_right_sampled"], after["direct_right_sampled"]) == (0.5, 1)
    assert after["false_steps_sampled"] == 0.5 and after["completion_length_sampled"] == 12.5
    assert row["train_seconds"] == 12 and row["steps"] is None


def test_curves_keep_what_a_plot_shows():
    entry = {
        "step": 3,
        "reward": 1.0,
        "rewards/accuracy/mean": 0.5,
        "rewards/accuracy/std": 0.1,
        "epoch": 0.2,
    }
    entry |= {
        "clip_ratio/low_mean": 0.0,
        "clip_ratio/low_min": 0.0,
        "eval_runtime": 3.0,
        "eval_pass_at_1": 0.4,
    }
    kept = {"step", "reward", "rewards/accuracy/mean", "clip_ratio/low_mean", "eval_pass_at_1"}
    assert [set(row) for row in curve_rows([entry, {"step": 4, "epoch": 0.3}])] == [kept]


def test_what_is_written_is_read_again(tmp_path):
    runs = {
        ("b, with a comma", 2): ({"fingerprint": "f", "x": 0.123456}, [{"step": 1, "reward": float("nan")}]),
        ("a", 1): ({"fingerprint": "g", "y": 12345.6, "none": None}, [{"step": 1, "reward": 2 / 3}]),
        ("gone", 1): ({"fingerprint": "h"}, []),
    }
    write_runs(tmp_path, "rates", runs, ["a", "b, with a comma"])
    assert read_runs(tmp_path, "rates") == {
        ("a", 1): ({"fingerprint": "g", "y": "12350"}, [{"step": "1", "reward": "0.6667"}]),
        ("b, with a comma", 2): ({"fingerprint": "f", "x": "0.1235"}, [{"step": "1"}]),
    }
    first = (tmp_path / "rates.csv").read_bytes()
    write_runs(tmp_path, "rates", read_runs(tmp_path, "rates"), ["a", "b, with a comma"])
    assert (tmp_path / "rates.csv").read_bytes() == first


def test_a_damaged_file_is_not_written_over(module, record):
    (module / "recorded" / "rates.csv").write_text("variant,seed\nslow,one\n")
    code, text = record("--list")
    assert code == 2 and "rates.csv is damaged" in text


def test_rows_with_other_settings_go_when_the_first_new_one_comes(module):
    experiments = read_experiments(module)
    old = {
        (variant, seed): ({"fingerprint": "old", "x": 1}, [{"step": 1, "reward": 0.5}])
        for variant in ("slow", "fast", "gone")
        for seed in (1, 2)
    }
    write_runs(module / "recorded", "rates", old, ["slow", "fast", "gone"])
    book = Book(module, experiments, {"rates": settings_of(module, experiments["rates"])})
    assert book.stale("rates") == {"slow": [1, 2], "fast": [1, 2], "gone": [1, 2]}
    run = wanted_runs([(experiments["rates"], book.settings["rates"])], [2])[0]
    assert book.find(run) is None
    book.write(run, {"x": 2}, [{"step": 1, "reward": 0.6}])
    kept = {key: row.get("x") for key, (row, _) in read_runs(module / "recorded", "rates").items()}
    assert kept == {("slow", 2): "2", ("fast", 1): "1", ("fast", 2): "1"}
    assert book.find(run) and book.stale("rates") == {"fast": [1, 2], "gone": [1, 2]}


def test_a_run_is_copied_to_the_other_experiment_with_the_same_settings(module):
    write_experiments(module, rates=EXPERIMENT, again=EXPERIMENT | {"variants": {"also slow": {"rate": 0.1}}})
    experiments = read_experiments(module)
    found = {name: settings_of(module, experiments[name]) for name in experiments}
    book = Book(module, experiments, found)
    (run, *_) = wanted_runs([(experiments["rates"], found["rates"])], [1])
    book.write(run, {"x": 1}, [{"step": 1, "reward": 0.5}])
    (both, *_) = wanted_runs([(experiments[name], found[name]) for name in experiments], [1])
    assert book.share(both) == ["again"] and book.share(both) == []
    row, curves = read_runs(module / "recorded", "again")[("also slow", 1)]
    assert row["x"] == "1" and curves == [{"step": "1", "reward": "0.5"}]


def test_what_was_left_is_found_where_it_can_be_used(tmp_path):
    (tmp_path / "data").mkdir()
    (tmp_path / "model").mkdir()
    here, aws = LeftBehind(tmp_path, "local"), LeftBehind(tmp_path, "sagemaker")
    output = JobOutput("job", "s3://bucket/model.tar.gz", tmp_path / "data", model_folder=tmp_path / "model")
    here.keep(("f", 1), output)
    assert here.find(("f", 1)).model == str(tmp_path / "model") and here.find(("f", 2)) is None
    aws.keep(("f", 1), output)
    assert aws.find(("f", 1)).model == "s3://bucket/model.tar.gz" and here.find(("f", 1)) is None
    shutil.rmtree(tmp_path / "data")
    assert aws.find(("f", 1)) is None


def test_the_machine_in_words():
    assert f"{os.cpu_count()} cores" in machine_name("local", "ml.c5.xlarge")
    assert machine_name("sagemaker", "ml.g6.xlarge") == "ml.g6.xlarge, 1 x L4"
    assert machine_name("sagemaker", "ml.c5.xlarge") == "ml.c5.xlarge"
    assert len(revision().partition("-")[0]) in (len("unknown"), 12)
