"""From one process to two: 02 by DDP (accelerate launch) and 03 by FSDP2 (torchrun), with the parts of a step.

    python -m bench scaling

The same 64 completions a step, by one process or half by each of two, in turns: efficiency is the first's time over twice the
second's. One thread a process. Wall seconds, and of each case the fastest run counts, since what else the machine does can only
lengthen one. On a machine with two cores that others use too, two processes lose more than one.
"""

import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from workshop.folders import REPOSITORY

from bench.rows import Row, by_case
from bench.runs import FSDP, GRPO, SMALL_EVALUATION, make_problems, run_ours

STEPS, REPEATS, COMPLETIONS = 12, 3, 64
PROCESSES = (1, 2)
CPU_CONFIG = REPOSITORY / GRPO / "scripts" / "accelerate" / "cpu.yaml"
PARTS = ("rollout", "rewards, waiting", "forward", "backward")


def measure(repeats: int = REPEATS) -> Iterator[Row]:
    """Rows of both modules with one and with two processes: wall seconds of a step and of its parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        problems = make_problems(folder)
        for _ in range(repeats):
            for module in (GRPO, FSDP):
                for count in PROCESSES:
                    settings: dict[str, Any] = {
                        "max_steps": STEPS,
                        "per_device_train_batch_size": COMPLETIONS // count,
                        "report_to": "none",
                        "save_strategy": "no",
                    }
                    found = run_ours(
                        module,
                        problems,
                        folder / "run",
                        settings | SMALL_EVALUATION,
                        launcher=_launcher(module, count),
                    )
                    shutil.rmtree(folder / "run")
                    yield from _rows(f"{module}, processes: {count}", found)


def _launcher(module: str, processes: int) -> list[str]:
    if module == FSDP:
        return [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            f"--nproc_per_node={processes}",
        ]
    if processes == 1:
        return [sys.executable]
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--config_file", str(CPU_CONFIG)]
    return [*accelerate, "--num_processes", str(processes), "--main_process_port", "0"]


def _rows(case: str, found: dict[str, Any]) -> Iterator[Row]:
    step = found["wall"] / STEPS
    parts = {part: found["parts"].get(part, 0.0) / STEPS for part in PARTS}
    yield Row(case, "step", step, "s")
    for part, seconds in (parts | {"rest": step - sum(parts.values())}).items():
        yield Row(case, part, seconds, "s")
    yield Row(case, "CPU time of a step, first process", found["cpu"] / STEPS, "s")


def efficiency(rows: Iterable[Row]) -> dict[str, float]:
    """By module: time with one process over twice that with two, of the fastest runs."""
    fastest = {case: min(values) for case, values in by_case(rows, "step").items()}
    return {
        module: fastest[f"{module}, processes: 1"] / (2 * fastest[f"{module}, processes: 2"])
        for module in (GRPO, FSDP)
        if f"{module}, processes: 2" in fastest
    }


def parts(rows: Iterable[Row]) -> dict[str, dict[str, float]]:
    """By case: seconds of the step and its parts, in the fastest run."""
    rows = list(rows)
    found = {}
    for case, steps in by_case(rows, "step").items():
        fastest = steps.index(min(steps))
        found[case] = {name: by_case(rows, name)[case][fastest] for name in ("step", *PARTS, "rest")}
    return found
