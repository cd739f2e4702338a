"""Beside the bare library: a module's train.py and a plain TRL script, one process each, same model, data, seed and steps.

    python -m bench library

With nothing beside the training, with trackers, and with trackers and checkpoints, so that what each costs shows. The two take
turns and each run is compared with the one beside it, since a machine gets slower and faster. CPU seconds are those of the
process, user and system, all its threads: others on the machine hardly lengthen them. A step is one from the second on; the
training is all of train(); the process is all until its end, from importing the libraries to our first (here small) evaluation.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from bench.rows import Row, by_case, paired_ratios
from bench.runs import DPO, GRPO, SMALL_EVALUATION, make_pairs, make_problems, run_ours, run_plain

STEPS = {DPO: 30, GRPO: 20}
REPEATS = 5
UNTOUCHED = {
    "eval_strategy": "no",
    "eval_on_start": False,
    "fsdp": "",
    "fsdp_config": None,
}  # of DPO, one process
VARIANTS: dict[str, dict[str, Any]] = {
    "nothing beside": {"report_to": "none", "save_strategy": "no"},
    "trackers": {"report_to": ["mlflow", "wandb"], "save_strategy": "no"},
    "trackers and checkpoints": {"report_to": ["mlflow", "wandb"], "save_steps": 10},
}
QUANTITIES = {
    "step_cpu": ("CPU time of a step", "s"),
    "step_wall": ("wall time of a step", "s"),
    "cpu": ("CPU time of the training", "s"),
    "cpu_from_start": ("CPU time of the process", "s"),
    "peak_mb": ("peak memory", "MB"),
}


def measure(repeats: int = REPEATS) -> Iterator[Row]:
    """Rows of every variant: seconds of training, and the process's memory at its peak."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problems = make_problems(folder)
        channels = {DPO: make_pairs(folder, problems), GRPO: problems}
        for repeat in range(repeats):
            for module, steps in STEPS.items():
                for variant, changes in VARIANTS.items():
                    settings = {"max_steps": steps, **changes} | (UNTOUCHED if module == DPO else {})
                    order = ("ours", "plain") if repeat % 2 else ("plain", "ours")
                    for runner in order:
                        place = folder / "run"
                        if runner == "ours":
                            found = run_ours(module, channels[module], place, settings | SMALL_EVALUATION)
                        else:
                            found = run_plain(module, channels[module], place, settings)
                        shutil.rmtree(place)
                        found |= _each_step(found["steps"])
                        for key, (quantity, unit) in QUANTITIES.items():
                            yield Row(f"{module}, {variant}, {runner}", quantity, found[key], unit)


def _each_step(steps: list[dict[str, float]]) -> dict[str, float]:
    """Seconds of a step, the first left out: a tracker that train() starts is in it, and one that is started before is not."""
    first, *_, last = steps
    return {
        f"step_{clock}": (last[clock] - first[clock]) / (last["step"] - first["step"])
        for clock in ("cpu", "wall")
    }


def ratios(rows: Iterable[Row]) -> Iterator[tuple[str, str, list[float]]]:
    """(module and variant, quantity, ours over the plain script's for each pair of runs, lowest first)."""
    rows = list(rows)
    for quantity, _ in QUANTITIES.values():
        found = by_case(rows, quantity)
        for case in found:
            name, _, runner = case.rpartition(", ")
            if runner == "ours":
                yield name, quantity, paired_ratios(found[case], found[f"{name}, plain"])
