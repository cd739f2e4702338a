"""The record a job leaves behind: what was trained, how good it was before and after, and what that took."""

import dataclasses
import json
import platform
import resource
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

from accelerate.utils import gather_object
from rl.evaluation import Evaluation
from rl.tasks import write_whole
from transformers import Trainer

from job.checkpoints import Training
from job.container import has_channel, host_count, is_main_process, output_data_dir, process_count
from job.record import BASE_CHANNEL, EVALUATION_BEFORE, SUMMARY
from job.time_cap import STOPPED_BY

PACKAGES = ("torch", "transformers", "trl", "peft", "accelerate", "unsloth", "verl", "ray", "vllm")


class TrainedRun(Protocol):
    """What a record takes from a script's arguments."""

    module: str
    recipe: str
    base_model: str


def write_summary(
    job: TrainedRun, trainer: Trainer, before: Evaluation, after: Evaluation | None, training: Training
) -> Path | None:
    """Writes summary.json, evaluation_before.json and evaluation_after.json to the job's outputs.

    Every process must call this, since each reports its own memory.

    Args:
        after: None where the job's time cap left no time for it.
        training: what job.checkpoints.train returned.

    Returns:
        Path of summary.json in the main process, None in the others.
    """
    peak_rss_mb = max(gather_object([peak_rss()]))
    if not is_main_process():
        return None
    return write_record(
        job,
        before,
        after,
        trainer=library_class(trainer),
        processes=process_count(),
        seed=trainer.args.seed,
        steps=trainer.state.global_step,
        asked=training.asked if training.capped else None,
        tokens=_tokens(trainer) if training.steps else 0,
        peak_rss_mb=peak_rss_mb,
        train_seconds=training.seconds,
    )


def write_record(
    job: TrainedRun,
    before: Evaluation,
    after: Evaluation | None,
    *,
    trainer: str,
    processes: int,
    seed: int,
    steps: int,
    asked: int | None = None,
    tokens: float,
    peak_rss_mb: float,
    train_seconds: float,
) -> Path:
    """As `write_summary`, for a trainer that is not transformers': what is known of it is passed in.

    Args:
        asked: steps that were asked for, where the job's time cap ended the training before them.
        tokens: trained on since the script started, prompts and completions, all processes.
    """
    sides = {"base": before} | ({"trained": after} if after else {})
    phases = {} if has_channel(BASE_CHANNEL) else {"evaluate_before": before.seconds}
    phases |= {"train": train_seconds}
    phases |= {"evaluate_after": after.seconds} if after else {}
    record = {
        "module": job.module,
        "recipe": job.recipe,
        "trainer": trainer,
        "base_model": job.base_model,
        "hosts": host_count(),
        "processes": processes,
        "seed": seed,
        "steps": steps,
        **({"steps_asked": asked, "stopped_by": STOPPED_BY} if asked else {}),
        **{side: _pass_at_1(evaluation) for side, evaluation in sides.items()},
        "completion_length": {
            side: evaluation.mean_completion_length["sampled"] for side, evaluation in sides.items()
        },
        "cut_off": {side: evaluation.cut_off for side, evaluation in sides.items()},
        "train_seconds": round(train_seconds, 3),
        "phases_seconds": {phase: round(seconds, 3) for phase, seconds in phases.items()},
        "peak_rss_mb": round(peak_rss_mb, 1),
        "tokens_per_second": round(tokens / train_seconds, 1) if tokens else 0.0,
        "versions": versions(),
    }
    folder = output_data_dir()
    folder.mkdir(parents=True, exist_ok=True)
    before.save(folder / EVALUATION_BEFORE)
    if after:
        after.save(folder / "evaluation_after.json")
    path = folder / SUMMARY
    write_whole(path, (json.dumps(record, indent=2) + "\n").encode())
    return path


def library_class(trainer: Trainer) -> str:
    """Such as trl.DPOTrainer, also of a script's own subclass, wherever that stands."""
    library = next(cls for cls in type(trainer).__mro__ if cls.__module__.partition(".")[0] in PACKAGES)
    return f"{library.__module__.partition('.')[0]}.{library.__name__}"


def _pass_at_1(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    return {rate.decoding: dataclasses.asdict(rate) for rate in (evaluation.greedy, evaluation.sampled)}


def _tokens(trainer: Trainer) -> int:
    """Tokens trained on since the script started (prompts and completions, all processes), as the trainer counted."""
    counts = [logs["num_tokens"] for logs in trainer.state.log_history if "num_tokens" in logs]
    # GRPOTrainer goes on counting after a resume; transformers remembers where it stood.
    return (counts[-1] if counts else 0) - trainer._initial_num_input_tokens_seen


def peak_rss() -> float:
    """Most memory that this process has held so far, in MB (2**20 bytes)."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10  # bytes on macOS, kilobytes on Linux


def versions() -> dict[str, str]:
    """Python, and those of the packages that decide a run and are installed."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found
