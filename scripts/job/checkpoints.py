"""Checkpoints that are known to be whole and one's own, so that an interrupted job goes on from the newest of them.

A spot interruption, or a copy to S3 that was cut short, can leave part of a checkpoint. So when all of one is written,
each host adds a file with the names, sizes and digests of what it wrote, and with what it was made of (job.fingerprints).
"""

import contextlib
import hashlib
import json
import os
import re
import shutil
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from accelerate import PartialState
from compat.fsdp_adapters import repair_adapter_checkpoints
from rl.evaluation import Evaluation
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from job.container import checkpoint_files, host_count, is_main_process, print_line
from job.stalls import StallWatch
from job.time_cap import TimeCap, time_for
from job.tracked_trainer import track_in_background

READERS = 4  # threads that read a checkpoint's files
DELETIONS = 5  # tries to delete one, into which SageMaker's agent may put a marker of its own meanwhile

# What a checkpoint is made of, such as {"data": "3fa2c1", "base": "asset:tiny"}.
Fingerprints = Mapping[str, str]


class CheckpointError(Exception):
    """A checkpoint that belongs to another job; the message says in what they differ and what to do."""


class Training(NamedTuple):
    """What `train` did since the script was started."""

    seconds: float
    steps: int  # after a resume fewer than the trainer counts; 0 where a checkpoint held them all
    asked: int  # steps that the recipe asks for, those before the checkpoint included
    capped: bool  # ended before the last step, by the job's time cap
    save_seconds: float  # of the last checkpoint

    def time_for(self, evaluation: Evaluation) -> bool:
        """Whether the job's time cap leaves time for one more such evaluation, and to save the model after it.

        Every process must call this, and all get the same answer.
        """
        return time_for(evaluation.seconds + self.save_seconds)


class NothingTrained(Exception):
    """A training that ended without a step; the message says what there was to train on."""


def train(trainer: Trainer, checkpoint: Path | None, before: Evaluation | None = None) -> Training:
    """Trains to the last step, or as far as the job's time cap allows (job.time_cap), from a checkpoint if there is one.

    `before` is the evaluation before training: time for another one is kept.

    A checkpoint of the last step is loaded as any other, and nothing is trained: transformers asks only after a step
    whether there were enough of them, and would make one more.

    A training that makes no step for long ends the process, with a FailureReason (job.stalls).

    Raises:
        job.time_cap.TimeCapError: there is no time for a step.
        NothingTrained: the trainer ended without one, so that the model is the base.
    """
    repair_adapter_checkpoints()
    done = int(checkpoint.name.rpartition("-")[2]) if checkpoint else 0
    if checkpoint:
        trainer.args.eval_on_start = False  # the start was before the checkpoint
        asked = _steps_asked_for(trainer)
        if done >= asked:
            if is_main_process():
                print_line(f"{checkpoint.name} holds all {asked} steps: nothing is left to train.")
            # Epochs of one batch, as many as there were steps: all of them are over before the first begins.
            trainer.args.max_steps = done
            trainer.get_train_dataloader = lambda: DataLoader([None])  # ty: ignore[invalid-argument-type]
    cap = TimeCap(before)
    trainer.add_callback(cap)
    track_in_background(trainer)
    trainer.add_callback(StallWatch())
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    if trainer.state.global_step == 0:
        raise NothingTrained(
            f"No step was trained. {len(trainer.train_dataset or ())} rows, max_steps {trainer.args.max_steps}, "
            f"num_train_epochs {trainer.args.num_train_epochs:g}: is there a whole batch of rows?"
        )
    return Training(
        seconds=time.perf_counter() - started,
        steps=trainer.state.global_step - done,
        asked=trainer.state.max_steps,
        capped=cap.stopped,
        save_seconds=cap.pace.save,
    )


def _steps_asked_for(trainer: Trainer) -> int:
    """How many steps make the training, by max_steps or else by num_train_epochs, as transformers counts them."""
    if trainer.args.max_steps > 0:
        return trainer.args.max_steps
    *_, steps = trainer.set_initial_training_values(trainer.args, trainer.get_train_dataloader())
    return steps


class CheckpointMarker(TrainerCallback):
    """Marks each checkpoint of a Trainer as complete, and with the fingerprints of what it is made of.

    Sharded (FSDP's SHARDED_STATE_DICT), a checkpoint lies on as many hosts as trained: each process writes its part under a
    name of its own, SageMaker copies those of all hosts to one place in S3, and from there all of them to every host. What is
    deleted on a host is deleted in S3 too. transformers deletes what is beyond save_total_limit on the first host only, and
    before the new checkpoint is marked: with a limit of 1 a job killed in between would have none. So it is done here.
    """

    def __init__(self, fingerprints: Fingerprints | None = None) -> None:
        self._fingerprints = fingerprints
        self._limit: int | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        self._limit, args.save_total_limit = args.save_total_limit, None

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        distributed = PartialState()
        distributed.wait_for_everyone()  # every process writes its own random state
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        marks = distributed.is_local_main_process and folder.is_dir()
        if marks:
            mark_complete(folder, self._fingerprints)
        distributed.wait_for_everyone()  # whole is what all hosts have marked
        if marks:
            delete_older(folder, self._limit)


def delete_older(checkpoint: Path, limit: int | None) -> None:
    """Deletes on this host what was saved before a checkpoint that all hosts have marked, so that `limit` are left.

    A folder with a higher step, which an earlier run has not finished, does not count: with a limit of 1 it would be what is
    kept.

    Args:
        checkpoint: a folder whose name ends with its step: checkpoint-40, global_step_40.
        limit: None keeps all.
    """
    if limit is None:
        return
    prefix, step = _name_and_step(checkpoint)
    folders = [path for path in checkpoint.parent.glob(f"{prefix}*") if path.is_dir()]
    steps = {_name_and_step(path)[1]: path for path in folders if path.name.removeprefix(prefix).isdigit()}
    saved = sorted(number for number in steps if number <= step)
    for number in saved[: -max(1, limit)]:
        _delete(steps[number])


def _delete(folder: Path) -> None:
    """Deletes a folder of which files may vanish meanwhile, and to which files may come. Raises OSError if it stays."""
    for _ in range(DELETIONS):
        shutil.rmtree(folder, ignore_errors=True)
        if not folder.exists():
            return
    with contextlib.suppress(FileNotFoundError):
        shutil.rmtree(folder)


def _name_and_step(checkpoint: Path) -> tuple[str, int]:
    found = re.fullmatch(r"(.*\D)(\d+)", checkpoint.name)
    assert found, f"{checkpoint.name} names no step"
    return found[1], int(found[2])


def mark_complete(folder: Path, fingerprints: Fingerprints | None = None) -> None:
    """Writes this host's marker of a checkpoint.

    Args:
        fingerprints: what it is made of, by kind, in texts that a reader can compare (job.fingerprints); `newest_complete`
            refuses it to a job that has another text of the same kind.
    """
    host = int(os.environ.get("SM_CURRENT_HOST_RANK", "0"))
    files = {
        str(path.relative_to(folder)): path
        for path in checkpoint_files(folder)
        if not path.name.startswith("complete-")
    }
    content: dict[str, object] = {
        "hosts": host_count(),
        "files": {name: path.stat().st_size for name, path in files.items()},
        "sha256": dict(zip(files, _digests(files.values()), strict=True)),
    }
    if fingerprints is not None:
        content["fingerprints"] = dict(fingerprints)
    marker = folder / f"complete-{host}.json"
    partial = marker.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1))
    partial.replace(marker)


def newest_complete(
    folder: Path, prefix: str = "checkpoint-", fingerprints: Fingerprints | None = None
) -> Path | None:
    """The checkpoint (a folder named `prefix` and its step) to go on from, or None to start from the base model.

    Each newer checkpoint that is incomplete or damaged is skipped, and the main process prints why. All files of the one to
    go on from are read (every process reads them, so that all decide alike).

    Args:
        fingerprints: what this job's checkpoints are made of, as it gives them to `mark_complete` (or to
            `CheckpointMarker`). Without them any checkpoint is taken; and so is, with a line in the log, one that
            says nothing of the kind.

    Raises:
        CheckpointError: the checkpoint to go on from is made of something else.
    """
    steps = {
        int(match[1]): path
        for path in folder.glob(f"{prefix}*")
        if path.is_dir() and (match := re.fullmatch(rf"{prefix}([0-9]+)", path.name))
    }
    for _, path in sorted(steps.items(), reverse=True):
        problem = what_is_missing(path)
        if problem is None:
            if fingerprints is not None:
                _check_made_of(path, fingerprints)
            if is_main_process():
                print_line(f"Going on from {path.name}.")
            return path
        if is_main_process():
            print_line(f"Skipping {path.name}, which is not whole: {problem}.")
    return None


def _check_made_of(checkpoint: Path, fingerprints: Fingerprints) -> None:
    """Raises CheckpointError if a complete checkpoint belongs to another job."""
    for marker in sorted(checkpoint.glob("complete-*.json")):
        found: dict[str, str] = json.loads(marker.read_text()).get("fingerprints", {})
        unknown = [kind for kind in fingerprints if kind not in found]
        if unknown and is_main_process():
            print_line(f"{checkpoint.name} does not say which {' and '.join(unknown)} it was made with.")
        others = {
            kind: found[kind]
            for kind in fingerprints
            if found.get(kind, fingerprints[kind]) != fingerprints[kind]
        }
        if others:
            differences = "; ".join(
                f"{checkpoint.name} was made with {kind} {other}, this job has {fingerprints[kind]}"
                for kind, other in others.items()
            )
            raise CheckpointError(
                f"{differences}: give the job a checkpoint folder of its own, or the {' and '.join(others)} back."
            )


def what_is_missing(checkpoint: Path) -> str | None:
    """The first thing that a checkpoint lacks or that is damaged in it, in words; None if it is whole."""
    markers = sorted(checkpoint.glob("complete-*.json"))
    if not markers:
        return "it was never finished"
    for marker in markers:
        try:
            content = json.loads(marker.read_text())
            hosts, files = content["hosts"], content["files"]
            digests = content.get("sha256", {})  # markers of earlier versions have none
        except (ValueError, KeyError, TypeError, AttributeError):
            return f"{marker.name} is cut off"
        if len(markers) < hosts:
            return f"{len(markers)} of {hosts} hosts finished it"
        for name, size in files.items():
            path = checkpoint / name
            if not path.is_file():
                return f"{name} is missing"
            if path.stat().st_size != size:
                return f"{name} has {path.stat().st_size} of {size} bytes"
        found = _digests(checkpoint / name for name in digests)
        for (name, digest), other in zip(digests.items(), found, strict=True):
            if other != digest:
                return f"{name} has changed since it was written"
    return None


def _digests(files: Iterable[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal."""

    def digest(path: Path) -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    with ThreadPoolExecutor(READERS) as readers:
        return list(readers.map(digest, files))
