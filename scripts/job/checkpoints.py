"""Checkpoints that are known to be whole, so that an interrupted job goes on from the newest of them.

A spot interruption, or a copy to S3 that was cut short, can leave part of a checkpoint. So when all of one is written,
each host adds a file with the names and sizes of what it wrote.
"""

import json
import os
import re
from pathlib import Path

from accelerate import PartialState
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from job.container import host_count, is_main_process, print_line


class CheckpointMarker(TrainerCallback):
    """Marks each checkpoint of a Trainer as complete."""

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        distributed = PartialState()
        distributed.wait_for_everyone()  # every process writes its own random state
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        if distributed.is_local_main_process and folder.is_dir():
            mark_complete(folder)


def mark_complete(folder: Path) -> None:
    """Writes this host's marker of a checkpoint."""
    host = int(os.environ.get("SM_CURRENT_HOST_RANK", "0"))
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith("complete-")
    }
    marker = folder / f"complete-{host}.json"
    partial = marker.with_suffix(".partial")
    partial.write_text(json.dumps({"hosts": host_count(), "files": files}, indent=1))
    partial.replace(marker)


def newest_complete(folder: Path, prefix: str = "checkpoint-") -> Path | None:
    """The checkpoint (a folder named `prefix` and its step) to go on from, or None to start from the base model.

    Each incomplete checkpoint that is newer is skipped, and the main process prints why.
    """
    steps = {
        int(match[1]): path
        for path in folder.glob(f"{prefix}*")
        if path.is_dir() and (match := re.fullmatch(rf"{prefix}([0-9]+)", path.name))
    }
    for _, path in sorted(steps.items(), reverse=True):
        problem = what_is_missing(path)
        if problem is None:
            if is_main_process():
                print_line(f"Going on from {path.name}.")
            return path
        if is_main_process():
            print_line(f"Skipping {path.name}, which is incomplete: {problem}.")
    return None


def what_is_missing(checkpoint: Path) -> str | None:
    """The first thing that a checkpoint lacks, in words; None if it is complete."""
    markers = sorted(checkpoint.glob("complete-*.json"))
    if not markers:
        return "it was never finished"
    for marker in markers:
        try:
            content = json.loads(marker.read_text())
            hosts, files = content["hosts"], content["files"]
        except (ValueError, KeyError, TypeError):
            return f"{marker.name} is cut off"
        if len(markers) < hosts:
            return f"{len(markers)} of {hosts} hosts finished it"
        for name, size in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} of {size} bytes"
    return None
