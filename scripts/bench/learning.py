"""Learning by the second: CPU time until 0.8 of the sampled completions are right, by 02's tiny recipe and by plain TRL.

    python -m bench learning

The plain script is tried at one seed over a small grid around the recipe: learning rate, completions a step, completions
generated at once, uses of each, loss; and with TRL's defaults. The best of the grid and ours then take turns over other seeds. Both
stop when the mean of about the last 320 completions has reached the goal, or after 5,120 completions.
"""

import math
import shutil
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.rows import Row
from bench.runs import GRPO, SMALL_EVALUATION, Channels, make_problems, run_ours, run_plain

GOAL = 0.8
COMPLETIONS, MEAN_OVER = 5120, 320
SEEDS = (1, 2, 3)
OURS: dict[str, Any] = {"per_device_train_batch_size": 64, "report_to": "none", "save_strategy": "no"}
# What the plain script has instead of the recipe's values; the first is ours.
GRID: dict[str, dict[str, Any]] = {
    "the recipe's values": {},
    "rate 1e-4": {"learning_rate": 1e-4},
    "rate 2e-4": {"learning_rate": 2e-4},
    "rate 3e-4": {"learning_rate": 3e-4},
    "32 completions a step": {"per_device_train_batch_size": 32},
    "32 completions a step, rate 1e-4": {"per_device_train_batch_size": 32, "learning_rate": 1e-4},
    "16 completions a step, rate 1e-4": {"per_device_train_batch_size": 16, "learning_rate": 1e-4},
    "4 steps a generation": {"steps_per_generation": 4},
    "each completion used twice": {"num_iterations": 2},
    "each completion used twice, rate 1e-4": {"num_iterations": 2, "learning_rate": 1e-4},
    "loss grpo": {"loss_type": "grpo"},
    "TRL's rate, batch and loss": {
        "learning_rate": 1e-6,
        "per_device_train_batch_size": 8,
        "loss_type": "dapo",
    },
}


def measure() -> Iterator[Row]:
    """Rows of the grid (plain), then of its best and of ours over SEEDS."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problems = make_problems(folder)
        seconds: dict[str, float] = {}
        for case, changes in GRID.items():
            found = _run("plain", problems, folder, OURS | changes)
            yield from _rows(f"grid, {case}", found)
            seconds[case] = found["cpu"] if _reached(found) else math.inf
        best = min(seconds, key=lambda case: seconds[case])
        for seed in SEEDS:
            yield from _rows(f"ours, seed {seed}", _run("ours", problems, folder, OURS | {"seed": seed}))
            found = _run("plain", problems, folder, OURS | GRID[best] | {"seed": seed})
            yield from _rows(f"plain at its best ({best}), seed {seed}", found)


def _run(runner: str, problems: Channels, folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    batch, at_once = settings["per_device_train_batch_size"], settings.get("steps_per_generation", 1)
    uses = settings.get("num_iterations", 1)
    settings = {"max_steps": uses * COMPLETIONS // batch, **settings}
    goal = {"BENCH_UNTIL": str(GOAL), "BENCH_MEAN_OF": str(math.ceil(MEAN_OVER / (batch * at_once)))}
    if runner == "ours":
        found = run_ours(GRPO, problems, folder / "run", settings | SMALL_EVALUATION, variables=goal)
    else:
        found = run_plain(GRPO, problems, folder / "run", settings, variables=goal)
    shutil.rmtree(folder / "run")
    return found | {"accuracy": _last_accuracy(found, int(goal["BENCH_MEAN_OF"]))}


def _last_accuracy(found: dict[str, Any], mean_of: int) -> float:
    values = [step["accuracy"] for step in found["steps"] if step["accuracy"] is not None]
    return statistics.fmean(values[-mean_of:])


def _reached(found: dict[str, Any]) -> bool:
    return found["accuracy"] >= GOAL


def _rows(case: str, found: dict[str, Any]) -> Iterator[Row]:
    """CPU time and steps only of a run that got there."""
    yield Row(case, "accuracy at the end", found["accuracy"], "")
    name = "to the goal" if _reached(found) else "without reaching the goal"
    yield Row(case, f"CPU time {name}", found["steps"][-1]["cpu"], "s")
    yield Row(case, f"steps {name}", found["steps"][-1]["step"], "")
