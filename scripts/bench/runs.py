"""Training runs in processes of their own: a module's script and a plain one, in the folders that SageMaker would give them."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rl.preferences import hold_out, read_pairs, write_pairs
from rl.tasks import make_splits, write_splits
from workshop.folders import REPOSITORY

HERE = Path(__file__).parent
DPO, GRPO, FSDP = "01_dpo_trl", "02_grpo_trl_accelerate", "03_grpo_trl_fsdp"
VERL = "05_grpo_verl"
# Evaluations are outside the training that is timed, but their memory is the process's.
SMALL_EVALUATION = {"eval_problems": 8, "eval_samples": 1, "eval_batch_size": 8}
PYTHON = (sys.executable,)

Channels = dict[str, Path]


def make_problems(folder: Path) -> Channels:
    """The notebooks' own problems."""
    return write_splits(make_splits("chain_sum", {"train": 2000, "test": 300}), folder / "problems")


def make_pairs(folder: Path, problems: Channels) -> Channels:
    """Preference pairs, as the first job of 01 and its notebook make them."""
    script = REPOSITORY / DPO / "scripts" / "pairs_sampled.py"
    run_ours(DPO, {"problems": problems["train"]}, folder / "pairs", {}, script=script)
    learn, validate = hold_out(read_pairs(folder / "pairs" / "data"), 0.1)
    channels = {"train": folder / "train", "validation": folder / "validation"}
    for pairs, place in zip((learn, validate), channels.values(), strict=True):
        place.mkdir()
        write_pairs(pairs, place / "pairs.jsonl")
    return {**channels, "test": problems["test"]}


def run_ours(
    module: str,
    channels: Channels,
    folder: Path,
    settings: dict[str, Any],
    *,
    script: Path | None = None,
    launcher: Sequence[str] = PYTHON,
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """A module's script with its tiny recipe, changed by `settings`; what bench.timed_run found, nothing without a trainer."""
    script = script or REPOSITORY / module / "scripts" / "train.py"
    places = {"MODEL_DIR": "model", "OUTPUT_DATA_DIR": "data", "CHECKPOINT_DIR": "checkpoints"}
    given = dict(variables or {}) | {f"SM_{name}": str(folder / place) for name, place in places.items()}
    given |= {f"SM_CHANNEL_{name.upper()}": str(path) for name, path in channels.items()}
    given["SM_OUTPUT_FAILURE"] = str(folder / "failure")
    recipe = script.parent / "recipes" / "tiny.yaml"
    arguments = [f"--{name}={_as_text(value)}" for name, value in settings.items()]
    return _run(launcher, [str(script), "--config", str(recipe), *arguments], folder, given)


def run_plain(
    module: str,
    channels: Channels,
    folder: Path,
    settings: dict[str, Any],
    variables: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """plain_dpo.py or plain_grpo.py with the values of the same recipe, changed by `settings`."""
    script, names = (
        ("plain_dpo.py", ("train", "validation")) if module == DPO else ("plain_grpo.py", ("train",))
    )
    files = [str(next(channels[name].glob("*.jsonl"))) for name in names]
    recipe = REPOSITORY / module / "scripts" / "recipes" / "tiny.yaml"
    command = [str(HERE / script), str(recipe), *files, str(folder), json.dumps(settings)]
    return _run(PYTHON, command, folder, dict(variables or {}))


def _run(
    launcher: Sequence[str], command: list[str], folder: Path, variables: dict[str, str]
) -> dict[str, Any]:
    """Raises RuntimeError with the end of the output if it fails."""
    folder.mkdir(parents=True, exist_ok=True)
    environment = os.environ | variables | {
        "OMP_NUM_THREADS": "1",  # of two contended threads each waits for the other
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db",
        "WANDB_MODE": "offline",
        "WANDB_DIR": str(folder),
        "PYTHONPATH": str(REPOSITORY / "scripts"),
    }  # fmt: skip
    result = folder / "timed.json"
    done = subprocess.run(
        [*launcher, "-m", "bench.timed_run", str(result), *command],
        cwd=folder, env=environment, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(
            f"{command[0]} ended with {done.returncode}:\n{(done.stdout + done.stderr)[-4000:]}"
        )
    return json.loads(result.read_text()) if result.is_file() else {}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
