"""Runs a training script and says what its Trainer.train() took: for the workshop's scripts and plain ones alike.

    python -m bench.timed_run RESULT.json SCRIPT [arguments of the script]

RESULT.json, written by the first process: wall and CPU seconds (user and system, all threads of the process) of the training,
peak memory of the process by its end, seconds of a step's parts, and the accuracy that each step logged. With
BENCH_UNTIL=0.8 the training ends when the mean accuracy of the last BENCH_MEAN_OF generations has reached that.
"""

import json
import os
import resource
import runpy
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import Trainer, TrainerCallback

ACCURACY = "rewards/accuracy/mean"
# Methods of TRL's GRPOTrainer. Rewards are gathered from all processes, so the faster ones wait there for the slowest rollout.
PARTS = {
    "_generate_single_turn": "rollout",
    "_calculate_rewards": "rewards, waiting",
    "compute_loss": "forward",
}


class Clock(TrainerCallback):
    """Notes the time at which each step is logged, and ends a training that has learned enough."""

    def __init__(self, until: float | None, mean_of: int) -> None:
        self.until, self.mean_of, self.steps = until, mean_of, []
        self._wall, self._cpu = time.perf_counter(), time.process_time()

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any], **kwargs: Any) -> None:
        if "train_runtime" in logs:
            return
        wall, cpu = time.perf_counter() - self._wall, time.process_time() - self._cpu
        self.steps.append(
            {"step": state.global_step, "wall": wall, "cpu": cpu, "accuracy": logs.get(ACCURACY)}
        )
        if self.until is not None and (mean := self.recent()) is not None and mean >= self.until:
            control.should_training_stop = True

    def recent(self) -> float | None:
        """Mean accuracy of the last generations; None before there are so many. A step that generates nothing has none."""
        values = [step["accuracy"] for step in self.steps if step["accuracy"] is not None][-self.mean_of :]
        return sum(values) / self.mean_of if len(values) == self.mean_of else None


def main(result: Path, script: str) -> None:
    until = os.environ.get("BENCH_UNTIL")
    train = Trainer.train

    def timed(self: Trainer, *args: Any, **kwargs: Any) -> Any:
        parts = _time_parts(self)
        clock = Clock(float(until) if until else None, int(os.environ.get("BENCH_MEAN_OF", "5")))
        self.add_callback(clock)
        wall, cpu = time.perf_counter(), time.process_time()
        output = train(self, *args, **kwargs)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        if os.environ.get("RANK", "0") == "0":
            found = {
                "wall": wall,
                "cpu": cpu,
                "cpu_from_start": time.process_time(),
                "peak_mb": peak,
                "parts": parts,
                "steps": clock.steps,
            }
            result.write_text(json.dumps(found))
        return output

    Trainer.train = timed
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")


def _time_parts(trainer: Trainer) -> dict[str, float]:
    """Wall seconds of each part, which grow while it trains."""
    seconds: dict[str, float] = {}

    def timed(method: Callable[..., Any], part: str) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            began = time.perf_counter()
            try:
                return method(*args, **kwargs)
            finally:
                seconds[part] = seconds.get(part, 0.0) + time.perf_counter() - began

        return call

    for name, part in PARTS.items():
        if hasattr(trainer, name):
            setattr(trainer, name, timed(getattr(trainer, name), part))
    # With what the processes tell one another of their gradients.
    trainer.accelerator.backward = timed(trainer.accelerator.backward, "backward")
    return seconds


if __name__ == "__main__":
    result, script = Path(sys.argv[1]), sys.argv[2]
    sys.argv = sys.argv[2:]
    main(result, script)
