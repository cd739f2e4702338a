"""Recorded runs: what experiments.yaml may say, which jobs that makes, and the command with real (small) jobs."""

import csv
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import record_seeds
import yaml
from endpoint_fixtures import describe, wait_until
from local_sagemaker import client
from rl.evaluation import Completion, Evaluation, score_completions
from rl.verifiers import get_verifier
from seeds.book import Book
from seeds.experiments import ExperimentError, Source, read_experiments
from seeds.jobs import LeftBehind, write_data
from seeds.machine import machine_name, revision
from seeds.runs import Run, missing_runs, settings_of, wanted_runs
from seeds.tables import curve_rows, read_runs, result_row, write_runs
from workshop.jobs.outputs import JobOutput
from workshop.session import connection
from workshop.session.machines import MachineError

ROOT = Path(__file__).parents[1]
COMMAND = ROOT / "scripts" / "record_seeds.py"
MODULES = sorted(path.parents[1] for path in ROOT.glob("[0-9][0-9]_*/recorded/experiments.yaml"))
GRPO = ROOT / "02_grpo_trl_accelerate"
ENDPOINT_OPTIONS = ("--max-jobs", "2")

# A job that "trains" in no time, with the files that a real one leaves; it runs in the image without torch.
TRAIN = """
import json, os, sys
from pathlib import Path
from job.container import channel, failure_file, model_dir, output_data_dir
from rl.evaluation import score_completions
from rl.verifiers import get_verifier

given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
rate, seed = float(given.get("--rate", 0.1)), int(given["--seed"])
if given.get("--breaks") == "true":
    failure_file().write_text("this one breaks")
    raise SystemExit(1)
if rate > 100:
    import time
    time.sleep(600)
if "SM_CHANNEL_FIRST" in os.environ:
    rate += json.loads((channel("first") / "rate.json").read_text())
if "SM_CHANNEL_NOTE" in os.environ:
    assert [path.name for path in channel("note").iterdir()] == ["note.jsonl"]
output_data_dir().mkdir(parents=True, exist_ok=True)
(output_data_dir() / "other.jsonl").write_text("a channel holds nothing that was not asked for")
note = {"prompt": [{"role": "user", "content": "9 + 9"}], "question": "9 + 9", "answer": "18", "task": "t", "split": "n"}
(output_data_dir() / "note.jsonl").write_text(json.dumps(note | {"index": 0}))
model_dir().mkdir(parents=True, exist_ok=True)
(model_dir() / "config.json").write_text("{}")
(model_dir() / "rate.json").write_text(json.dumps(rate))
with open(output_data_dir() / "history.jsonl", "w") as history:
    for step in (1, 2):
        history.write(json.dumps({"step": step, "reward": rate + seed + step / 3, "epoch": 1.0}) + "\\n")

def evaluated(answer):
    text = f"<think>2 + 6 = 8</think><answer>{answer}</answer>"
    items = [
        dict(index=i, question=f"q{i}", answer="8", decoding=d, sample=s, completion=text, tokens=9, cut_off=False)
        for i in range(2) for d, s in (("greedy", 0), ("sampled", 0), ("sampled", 1))
    ]
    return score_completions(items, get_verifier("number"))

evaluated("7").save(output_data_dir() / "evaluation_before.json")
evaluated("8").save(output_data_dir() / "evaluation_after.json")
summary = {"steps": 2, "train_seconds": 1.5, "peak_rss_mb": 12345.6, "versions": {"torch": "9.9"}}
(output_data_dir() / "summary.json").write_text(json.dumps(summary))
"""
ARGUMENTS = """
import dataclasses
from job.arguments import BaseModelArguments, RunArguments, Script, argument

@dataclasses.dataclass
class TrainArguments(RunArguments, BaseModelArguments):
    rate: float = argument(0.1, "A rate.")
    breaks: bool = argument(False, "Whether it breaks.")
    per_device_train_batch_size: int = argument(8, "Completions.")
    rewards: list[str] = argument([], "Rewards.")
    save_steps: int = argument(10, "Steps.")
    seed: int = argument(42, "Seed.")

SCRIPTS = {"train.py": Script(TrainArguments), "other.py": Script(TrainArguments)}
"""
EXPERIMENT = {
    "question": "Does the rate matter?",
    "script": "train.py",
    "recipe": "tiny",
    "data": {"task": "chain_sum", "splits": {"train": 4, "test": 2}, "seed": 42},
    "seeds": [1, 2],
    "variants": {"slow": {"rate": 0.1}, "fast": {"rate": 0.5}},
}
MACHINE = {"instance_type": "ml.c5.xlarge", "instance_count": 1, "process_count": 2, "task": "chain_sum"}


@pytest.fixture
def module(tmp_path) -> Path:
    """A module of its own with one experiment, `rates`."""
    folder = tmp_path / "07_example"
    (folder / "scripts" / "recipes").mkdir(parents=True)
    (folder / "scripts" / "train.py").write_text(TRAIN)
    shutil.copy(folder / "scripts" / "train.py", folder / "scripts" / "other.py")
    (folder / "scripts" / "arguments.py").write_text(ARGUMENTS)
    recipe = "module: 07_example\nrecipe: tiny\nbase_model: asset:tiny\nper_device_train_batch_size: 8\nsave_steps: 5\n"
    (folder / "scripts" / "recipes" / "tiny.yaml").write_text(recipe)
    (folder / "scripts" / "recipes" / "side.yaml").write_text(recipe)
    (folder / "scripts" / "recipes" / "side_gpu.yaml").write_text(recipe)
    machines = {"tiny": MACHINE | {"max_hours": 0.1, "requirements": None}}
    (folder / "machines.yaml").write_text(yaml.safe_dump(machines))
    write_experiments(folder, rates=EXPERIMENT)
    return folder


def write_experiments(module: Path, **experiments: dict) -> None:
    (module / "recorded").mkdir(exist_ok=True)
    (module / "recorded" / "experiments.yaml").write_text(yaml.safe_dump(experiments, sort_keys=False))


def settings(module: Path, **changes):
    """The settings of `rates`, with other variants or anything else."""
    write_experiments(module, rates=EXPERIMENT | changes)
    return settings_of(module, read_experiments(module)["rates"])


# ---- experiments.yaml ----


@pytest.mark.parametrize("module", MODULES, ids=lambda folder: folder.name)
def test_each_modules_experiments_fit_its_scripts(module):
    for experiment in read_experiments(module).values():
        variants = settings_of(module, experiment)
        assert variants.keys() == experiment.variants.keys()
        assert len(experiment.seeds) >= 3 and experiment.question.endswith("?")
        assert len({found.fingerprint for found in variants.values()}) == len(variants), "two are the same"


def test_the_notebooks_with_comparisons_have_experiments():
    assert [module.name[:2] for module in MODULES] == ["01", "02", "03", "04"]


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"variant": {}}, "rates: unknown key 'variant'; did you mean 'variants'?"),
        ({"question": ""}, "question must be a text"),
        ({"seeds": []}, "seeds must be a list of whole numbers"),
        ({"seeds": [True]}, "seeds must be a list of whole numbers"),
        ({"data": {"task": "chian_sum", "splits": {"train": 1}, "seed": 1}}, "did you mean 'chain_sum'?"),
        ({"data": {"task": "chain_sum", "seed": 1}}, "splits must say how many problems each has"),
        ({"data": {"task": "chain_sum", "splits": {"train": 1}}}, "data: seed must be a whole number"),
        ({"data": {"function": "a.b", "task": "chain_sum", "seed": 1}}, "not both"),
        ({"data": {"function": "a", "seed": 1}}, "file.function"),
        ({"variants": {}}, "variants must be a mapping"),
        ({"variants": {0.1: {}}}, "put it in quotes"),
        ({"variants": {"a/b": {}}}, "without /"),
        ({"variants": {"a": None}}, "a: must be a mapping of hyperparameters"),
        ({"variants": {"a": {"script": 1}}}, "a: script must be a text"),
        ({"variants": {"a": {"channels": {"x": "slow"}}}}, "'slow' is none of 'split NAME'"),
        ({"variants": {"a": {"channels": {"x": "model of b"}}}}, "channel x: unknown variant 'b'"),
        ({"variants": {"a": {"channels": {"x": "split tset"}}}}, "did you mean 'test'?"),
        (
            {
                "variants": {
                    "a": {"channels": {"x": "model of c"}},
                    "b": {"channels": {"x": "model of a"}},
                    "c": {"channels": {"x": "output of b/f.txt"}},
                }
            },
            "wait for each other: a -> c -> b -> a",
        ),
        ({"variants": {"a": {"channels": {"x": "model of a"}}}}, "wait for each other: a -> a"),
    ],
)
def test_what_is_wrong_is_said(module, changes, message):
    write_experiments(module, rates=EXPERIMENT | changes)
    with pytest.raises(ExperimentError) as error:
        read_experiments(module)
    assert message in str(error.value) and "experiments.yaml" in str(error.value)


def test_all_that_is_wrong_is_said_at_once(module):
    write_experiments(module, rates=EXPERIMENT | {"seeds": 1}, Other={"script": "x"})
    with pytest.raises(ExperimentError) as error:
        read_experiments(module)
    for part in ("rates: seeds must be", "Other: an experiment's name", "Other: variants is missing"):
        assert part in str(error.value)


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"variants": {"a": {"rat": 1}}}, "rates, a: unknown hyperparameter 'rat'; did you mean 'rate'?"),
        ({"variants": {"a": {"rate": "x"}}}, "hyperparameter 'rate' must be float"),
        ({"script": "trian.py"}, "there is no trian.py"),
        ({"variants": {"a": {"recipe": "tny"}}}, "There is no recipe"),
    ],
)
def test_settings_that_there_are_not_are_refused(module, changes, message):
    with pytest.raises(ExperimentError, match=message):
        settings(module, **changes)


def test_a_recipe_without_a_machine_is_refused(module):
    with pytest.raises(MachineError, match="no row 'side'"):
        settings(module, recipe="side")


# ---- which jobs ----


def test_a_step_is_as_large_as_the_recipes(module):
    found = settings(
        module, variants={"a": {}, "b": {"per_device_train_batch_size": 5}, "c": {"recipe": "side"}}
    )
    sizes = {name: each.hyperparameters["per_device_train_batch_size"] for name, each in found.items()}
    assert sizes == {"a": 16, "b": 5, "c": 8}  # tiny is made for two processes; side is in no machines.yaml
    real = settings_of(GRPO, read_experiments(GRPO)["controls"])
    assert {each.hyperparameters["per_device_train_batch_size"] for each in real.values()} == {64}


def test_common_hyperparameters_are_those_of_the_experiments_script(module):
    found = settings(module, hyperparameters={"rate": 7}, variants={"a": {}, "b": {"script": "other.py"}})
    assert found["a"].hyperparameters["rate"] == 7 and "rate" not in found["b"].hyperparameters


def test_a_variants_own_recipe_is_the_one_for_the_device(module):
    files = {"on CPU": "use_cpu: true\n", "on GPU": "use_cpu: false\n"}
    scripts, arguments = module / "scripts", (module / "scripts" / "arguments.py")
    arguments.write_text(
        ARGUMENTS.replace("    seed:", '    use_cpu: bool = argument(False, "CPU.")\n    seed:')
    )
    recipe = (scripts / "recipes" / "tiny.yaml").read_text()
    used = {}
    for device, line in files.items():
        (scripts / "recipes" / "tiny.yaml").write_text(recipe + line)
        used[device] = settings(module, variants={"a": {"recipe": "side"}})["a"].hyperparameters["config"]
    assert used == {"on CPU": "recipes/side.yaml", "on GPU": "recipes/side_gpu.yaml"}


def test_a_fingerprint_tells_settings_apart_and_nothing_else(module):
    variants = {"a": {}, "b": {"channels": {"first": "model of a"}}, "same": {"save_steps": 9}}
    before = settings(module, variants=variants)
    assert before["a"].fingerprint == before["same"].fingerprint != before["b"].fingerprint
    assert settings(module, variants=variants, seeds=[9])["a"].fingerprint == before["a"].fingerprint
    changed = settings(module, variants=variants | {"a": {"rate": 0.2}})
    assert changed["a"].fingerprint != before["a"].fingerprint
    assert changed["b"].fingerprint != before["b"].fingerprint, "it starts from another model"
    data = EXPERIMENT["data"] | {"seed": 43}
    assert settings(module, variants=variants, data=data)["a"].fingerprint != before["a"].fingerprint


def test_a_change_of_ones_own_reward_is_a_change_of_settings(module):
    found = []
    for text in ("one", "two"):
        (module / "scripts" / "mine.py").write_text(f"# {text}\ndef points(): ...\n")
        found.append(settings(module, variants={"a": {"rewards": ["mine.points"]}, "b": {}}))
    assert found[0]["a"].fingerprint != found[1]["a"].fingerprint
    assert found[0]["b"].fingerprint == found[1]["b"].fingerprint


def test_the_same_settings_in_two_experiments_are_one_run():
    experiments = read_experiments(GRPO)
    chosen = [(experiments[name], settings_of(GRPO, experiments[name])) for name in ("controls", "rates")]
    runs = wanted_runs(chosen, [])
    (shared,) = (run for run in runs if run.seed == 1 and len(run.places) == 2)
    assert shared.places == (("controls", "accuracy and format"), ("rates", "1.5e-4"))
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert {run.seed for run in wanted_runs(chosen, [7, 8])} == {7, 8}


def chain(module: Path) -> list[Run]:
    """a, b from a, c from b, with one seed."""
    variants = {
        "c": {"rate": 3, "channels": {"x": "model of b"}},
        "a": {"rate": 1},
        "b": {"rate": 2, "channels": {"x": "model of a"}},
    }
    found = settings(module, variants=variants, seeds=[1])
    return wanted_runs([(read_experiments(module)["rates"], found)], [])


def names(runs: list[Run]) -> list[str]:
    return [run.places[0][1] for run in runs]


def test_a_run_comes_behind_those_that_it_starts_from(module):
    runs = chain(module)
    assert names(missing_runs(runs, lambda run: False, lambda run: False)) == ["a", "b", "c"]
    assert names(missing_runs(runs, lambda run: True, lambda run: False)) == []


def test_a_recorded_run_is_made_again_only_where_its_output_is_needed_and_gone(module):
    runs = chain(module)

    def is_recorded(run: Run) -> bool:
        return names([run]) != ["c"]

    assert names(missing_runs(runs, is_recorded, lambda run: False)) == ["a", "b", "c"]
    assert names(missing_runs(runs, is_recorded, lambda run: names([run]) == ["a"])) == ["b", "c"]
    assert names(missing_runs(runs, is_recorded, lambda run: True)) == ["c"]


def test_rows_may_come_from_a_function_of_ones_own(module):
    code = "def make(seed):\n    return {'train': [{'question': f'{seed} + 1', 'answer': '2'}]}\n"
    (module / "scripts" / "my_rows.py").write_text(code)
    found = settings(module, data={"function": "my_rows.make", "seed": 5}, variants={"a": {}})["a"]
    folders = write_data(module, found, module.parent / "build")
    assert '"5 + 1"' in (folders["train"] / "train.jsonl").read_text()
    found = settings(module, data={"function": "my_rows.mkae", "seed": 5}, variants={"a": {}})["a"]
    with pytest.raises(ExperimentError, match="there is no function mkae"):
        write_data(module, found, module.parent / "build")


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
    output = JobOutput("job", "s3://x", tmp_path, before=evaluation(BARE, BARE, BARE, BARE, BARE))
    output.after = evaluation(THOUGHT, THOUGHT, FALSE, DIRECT, BARE)
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


# ---- the command ----


@pytest.fixture
def record(module, capsys, monkeypatch) -> Iterator[Callable[..., tuple[int, str]]]:
    """record(*options): the command in this process, on the module; its exit code and what it says."""

    def run(*options: str) -> tuple[int, str]:
        capsys.readouterr()
        code = record_seeds.main(["07", *options, "--root", str(module.parent)])
        said = capsys.readouterr()
        return code, said.out + said.err

    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own handlers
    yield run
    connection._restore_kernel()


def rows(module: Path, name: str = "rates") -> list[dict[str, str]]:
    with open(module / "recorded" / f"{name}.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_wrong_command_line_or_file_starts_nothing(record):
    for options, message in [
        (["rats"], "07_example: unknown experiment 'rats'; did you mean 'rates'?"),
        (["--recipe", "tyni"], "no row 'tyni'"),
    ]:
        code, text = record(*options)
        assert code == 2 and message in text
    code, text = record("--list", "rates", "--seeds", "5")
    assert code == 0 and "rates, slow, seed 5" in text and "2 runs, 2 of them to make" in text


def test_the_runs_of_an_experiment_are_made_and_only_what_is_missing_is_made_again(
    endpoint, module, record, monkeypatch
):
    monkeypatch.setenv("LOCAL_SAGEMAKER_HOME", str(endpoint.home))
    variants = {
        "first": {"rate": 1.0},
        "second": {
            "rate": 2.0,
            "channels": {
                "first": "model of first",
                "note": "output of first/note.jsonl",
                "problems": "split train",
            },
        },
        "broken": {"breaks": True},
        "from broken": {"channels": {"first": "model of broken"}},
    }
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    code, text = record()
    assert code == 1, text
    assert "FAILED rates, broken, seed 1\n  AlgorithmError: this one breaks" in text, text
    assert "which failed: rates, broken, seed 1" in text
    first, second = rows(module)
    assert (first["variant"], first["after/pass_at_1_sampled"], first["before/pass_at_1_sampled"]) == (
        "first",
        "1",
        "0",
    )
    assert (first["train_seconds"], first["peak_rss_mb"], first["torch"]) == ("1.5", "12350", "9.9")
    assert first["machine"] == machine_name("local", "") and len(first["recorded"]) == len("2026-11-26")
    curves = read_runs(module / "recorded", "rates")
    assert curves["first", 1][1] == [{"step": "1", "reward": "2.333"}, {"step": "2", "reward": "2.667"}]
    assert curves["second", 1][1][0]["reward"] == "4.333", "the model of the first was there"
    assert len(list((module.parent / "build/seeds/07_example/data").iterdir())) == 1

    # Mended: only the two that failed are made, though the endpoint has forgotten nothing of the others.
    variants["broken"] = {"breaks": False}
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    code, text = record()
    assert code == 0 and "4 runs, 2 of them to make" in text, text
    assert text.index("recorded rates, broken") < text.index("started  rates, from broken")
    assert rows(module)[:2] == [first, second] and len(rows(module)) == 4

    # Other settings: said, and replaced, together with what starts from it.
    variants["first"] = {"rate": 5.0}
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    code, text = record()
    assert code == 0 and "first: recorded with other settings; its rows go (seeds 1)" in text, text
    assert "second: recorded with other settings" in text and "2 of them to make" in text
    assert read_runs(module / "recorded", "rates")["second", 1][1][0]["reward"] == "8.333"
    assert client.find_endpoint(endpoint.home), "an endpoint that was there is left running"


def test_an_interrupted_command_stops_its_jobs_and_goes_on_later(endpoint, module, record):
    variants = {"quick": {"rate": 0.1}, "endless": {"rate": 1000.0}}
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    running = subprocess.Popen(
        [sys.executable, COMMAND, "07", "--root", module.parent],
        env={**os.environ, "LOCAL_SAGEMAKER_HOME": str(endpoint.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (module / "recorded" / "rates.csv").exists():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    text, _ = running.communicate(timeout=120)
    assert running.returncode == 130 and "the same command goes on" in text and "Traceback" not in text, text
    (name,) = (line.split()[-1] for line in text.splitlines() if line.startswith("started  rates, endless"))
    wait_until(name, lambda job: job["TrainingJobStatus"] in ("Stopping", "Stopped"))
    assert describe(name)["TrainingJobStatus"] in ("Stopping", "Stopped")
    code, text = record("--list")
    assert code == 0 and "1 of them to make" in text and "endless" in text


def test_the_page_says_what_the_command_can(capsys):
    with pytest.raises(SystemExit):
        record_seeds.main(["--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    page = (ROOT / "docs" / "recorded-runs.md").read_text()
    assert options and {option for option in options if option not in page} == set()


def test_the_pages_example_is_an_experiment(module):
    page = (ROOT / "docs" / "recorded-runs.md").read_text()
    example = page[page.index("## experiments.yaml") :].partition("```yaml\n")[2].partition("```")[0]
    (module / "recorded" / "experiments.yaml").write_text(example)
    (experiment,) = read_experiments(module).values()
    assert settings_of(GRPO, experiment).keys() == {"reward model", "beta 0.05"}


def test_a_source_is_read_in_each_of_its_forms(module):
    variants = {
        "a of b": {},
        "x": {
            "channels": {
                "one": "model of a of b",
                "two": "output of a of b/deep/pairs.jsonl",
                "three": "training pairs of a of b",
                "four": "split test",
            }
        },
    }
    write_experiments(module, rates=EXPERIMENT | {"variants": variants})
    found = read_experiments(module)["rates"].variants["x"].channels
    assert found == {
        "one": Source("model", "a of b"),
        "two": Source("output", "a of b", "deep/pairs.jsonl"),
        "three": Source("training pairs", "a of b"),
        "four": Source("split", "test"),
    }
