"""A small module with experiments whose jobs take no time, and the command that records them."""

import csv
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import record_seeds
import yaml
from seeds.experiments import read_experiments
from seeds.runs import settings_of
from workshop.session import connection

ROOT = Path(__file__).parents[1]
GRPO = ROOT / "02_grpo_trl_accelerate"

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
