"""From one process to two: 02 by DDP (accelerate launch), 03 by FSDP2 (torchrun), 05 by verl's FSDP2 (Ray), with the parts of a step.

    python -m bench scaling

The same 64 completions a step, by one process or half by each of two, in turns: efficiency is the first's time over twice the
second's. One thread a process. Wall seconds, and of each case the fastest run counts, since what else the machine does can only
lengthen one. On a machine with two cores that others use too, two processes lose more than one. verl's runs are jobs on a local
endpoint, and their seconds those that verl logs: of the median step, since its first ones take longer.
"""

import shutil
import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from kills.jobs import Workplace
from launchers import RayCluster
from workshop.folders import REPOSITORY
from workshop.jobs.outputs import fetch_output

from bench.rows import Row, by_case
from bench.runs import FSDP, GRPO, SMALL_EVALUATION, VERL, make_problems, run_ours

STEPS, REPEATS, COMPLETIONS = 12, 3, 64
PROCESSES = (1, 2)
CPU_CONFIG = REPOSITORY / GRPO / "scripts" / "accelerate" / "cpu.yaml"
PARTS = ("rollout", "rewards, waiting", "forward", "backward")
# The parts of verl's step, by the names in its log; rewards come with the rollout.
VERL_PARTS = {
    "rollout": "gen",
    "log-probabilities": "old_log_prob",
    "update": "update_actor",
    "weights to the rollout": "update_weights",
}
LONGEST_S = 600.0  # of a job of verl's


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
        (folder / "verl").mkdir()
        yield from _verl(folder / "verl", repeats)


def _verl(folder: Path, repeats: int) -> Iterator[Row]:
    place = Workplace(folder)
    actor = "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu"
    rollout = "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu"
    try:
        for number in range(repeats):
            for count in PROCESSES:
                settings: dict[str, Any] = {
                    "trainer.total_training_steps": STEPS,
                    "trainer.save_freq": 1000,
                    "data.max_response_length": 96,
                    actor: COMPLETIONS // count,
                    rollout: COMPLETIONS // count,
                }
                job = place.start(
                    "05",
                    f"s3://sagemaker-us-east-1-123456789012/scaling/{number}-{count}",
                    recipe="tiny",
                    distributed=RayCluster(process_count_per_node=count),
                    **settings,
                )
                job.wait(LONGEST_S)
                history = fetch_output(job.name, folder / "outputs").history
                case = f"{VERL}, processes: {count}"
                step = statistics.median(row["step_time"] for row in history)
                yield Row(case, "step", step, "s")
                parts = {
                    name: statistics.median(row[f"timing_s/{key}"] for row in history)
                    for name, key in VERL_PARTS.items()
                }
                for part, seconds in (parts | {"rest": step - sum(parts.values())}).items():
                    yield Row(case, part, seconds, "s")
    finally:
        place.end()


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
        for module in (GRPO, FSDP, VERL)
        if f"{module}, processes: 2" in fastest
    }


def parts(rows: Iterable[Row], names: Iterable[str] = PARTS) -> dict[str, dict[str, float]]:
    """By case: seconds of the step and of the parts that are named, in the fastest run; of cases that have them."""
    rows = list(rows)
    by_part = {name: by_case(rows, name) for name in ("step", *names, "rest")}
    found = {}
    for case, steps in by_part["step"].items():
        fastest = steps.index(min(steps))
        if all(case in values for values in by_part.values()):
            found[case] = {name: values[case][fastest] for name, values in by_part.items()}
    return found
