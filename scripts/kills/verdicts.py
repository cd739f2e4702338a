"""One kill, what follows it, and what does not hold of that: the checks of scripts/try_kills.py."""

import itertools
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from job.checkpoints import what_is_missing
from local_sagemaker import client
from safetensors import safe_open
from workshop.jobs.outputs import OutputError, fetch_output
from workshop.s3 import split_uri

from kills.cases import (
    BEFORE_SAVES,
    BEFORE_STEPS,
    BETWEEN,
    ENDPOINT,
    EVALUATING,
    FROM,
    IN_SAVE,
    RECLAIM,
    ROTATING,
    SAVING_MODEL,
    STOP,
    Kill,
    Tried,
)
from kills.jobs import LONGEST_S, SAVE_STEPS, STEPS, Job, Workplace
from kills.processes import left_over, send, victim

MARKER = "complete-0.json"  # the last file of a checkpoint
TRIES = 3  # to hit a moment of a few milliseconds
END_S = 60.0  # that a job may take to end; of module 05, END_VERL_S: its watch looks every 5 s, and Ray has to be ended
END_VERL_S = 90.0
# Of a history: no two runs agree on them.
_TIMES = ("step_time", "runtime", "per_second", "timing", "perf/", "peak_rss")


@dataclass(frozen=True)
class Result:
    """What a job comes to: its history without times, and the saved tensors, byte for byte."""

    history: list[dict[str, Any]]
    weights: dict[str, bytes]


class Missed(Exception):
    """The moment was over before the kill came."""


def result_of(job: Job, folder: Path) -> Result:
    """Of a job that has completed. Raises OutputError where it did not leave all of it."""
    output = fetch_output(job.name, folder / job.name, model=True)
    assert output.model
    return Result([_timeless(row) for row in output.history], _tensors(output.model / "model.safetensors"))


def _timeless(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if not any(word in key for word in _TIMES)}


def try_kill(kill: Kill, place: Workplace, undisturbed: Result) -> Tried:
    """Kills such a job at that moment, sees how it ends, and has another one go on from its checkpoints."""
    began = time.monotonic()
    for number in range(TRIES):
        uri = f"s3://sagemaker-us-east-1-123456789012/kills/{abs(hash(kill.name))}-{began:.0f}-{number}"
        job = place.start(kill.module, uri, spot=kill.whom == RECLAIM, **kill.settings)
        try:
            return _follow(kill, place, undisturbed, job, uri, began)
        except Missed as missed:
            said = str(missed)
            job.wait(LONGEST_S)
    return Tried(0.0, "", "", [f"not tried: {said}"], time.monotonic() - began)


def _follow(kill: Kill, place: Workplace, undisturbed: Result, job: Job, uri: str, began: float) -> Tried:
    _wait_for(kill, job, uri)
    kept = _strike(kill, job, place)
    struck = time.monotonic()
    faults = []
    if kill.whom == ENDPOINT:
        faults += left_over(job.name)  # before the next one starts, which would end them
        place.begin_again()
    logged = _logged(job)
    limit = END_VERL_S if kill.module == "05" else END_S
    ended = _goes_on(job, limit) if kill.whom == RECLAIM else job.wait(limit)
    ended_s = time.monotonic() - struck
    if not ended:
        faults.append(f"it had not ended after {limit:.0f} s")
        boto3.client("sagemaker").stop_training_job(TrainingJobName=job.name)
    following = job
    if kill.whom == RECLAIM:
        said = "Interrupted"
    else:
        job.wait(limit)
        said = _said(job)
        faults += [] if kill.matches(said) else [f"the reason does not say {kill.says}"]
        faults += left_over(job.name) + _damaged(job, place.folder / "killed")
    stored, whole = _stored(uri, place.folder / "stored" / job.name)
    # What was saved in the last second may not have been sent; older ones than the newest may be deleted for the next.
    newest = [] if kill.whom in (RECLAIM, ENDPOINT) else list(kept)[-1:]
    faults += [
        f"{name}, which was whole, is not: {stored.get(name, 'gone')}" for name in newest if name not in whole
    ]
    if kill.whom != RECLAIM:
        following = place.start(kill.module, uri, **kill.settings)
    following.wait(LONGEST_S)
    return _compared(kill, following, undisturbed, place, whole, logged, ended_s, said, faults, began)


def _compared(
    kill: Kill,
    following: Job,
    undisturbed: Result,
    place: Workplace,
    whole: list[str],
    logged: list[dict[str, Any]],
    ended_s: float,
    said: str,
    faults: list[str],
    began: float,
) -> Tried:
    """The verdict, of the job that followed."""
    lines = following.log.splitlines()
    went_on = next(
        (line.removeprefix("Going on from ").rstrip(".") for line in lines if line.startswith("Going on")), ""
    )
    step = int(went_on.rpartition("_" if kill.module == "05" else "-")[2] or 0)
    # A machine that is lost sends no more: what it saved last may not have come.
    least = FROM[kill.when] - (SAVE_STEPS if kill.whom == RECLAIM and kill.when == EVALUATING else 0)
    if step < least:
        faults.append(f"it went on from step {step} and not from {least}")
    if kill.whom != RECLAIM and went_on != (whole[-1] if whole else ""):
        faults.append(f"it went on from {went_on or 'the start'}; whole were {', '.join(whole) or 'none'}")
    if (status := following.describe()["TrainingJobStatus"]) != "Completed":
        faults.append(f"the job that followed: {_said(following)}")
    elif kill.module == "05":
        faults += _differences_of_verl(
            result_of(following, place.folder / "results"), undisturbed, logged[:step]
        )
    else:
        faults += _differences(undisturbed, result_of(following, place.folder / "results"))
    faults += left_over(following.name)
    return Tried(ended_s, said, went_on if status else "", faults, time.monotonic() - began)


def _wait_for(kill: Kill, job: Job, uri: str) -> None:
    """Until the moment. Raises Missed."""
    bucket, prefix = split_uri(uri)
    s3 = boto3.client("s3")

    def stored() -> set[str]:
        found = s3.list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/").get("Contents", [])
        return {item["Key"].removeprefix(f"{prefix}/") for item in found}

    deadline = time.monotonic() + LONGEST_S
    while not _reached(kill, job, stored):
        if job.is_over:
            raise Missed(f"the job was over before: {_said(job)}")
        if time.monotonic() > deadline:
            raise Missed(f"the moment did not come in {LONGEST_S} s")
        time.sleep(0.001)


def _reached(kill: Kill, job: Job, stored: Callable[[], set[str]]) -> bool:
    last = _checkpoint(kill, job, STEPS)
    if kill.when == BEFORE_STEPS:
        return "[evaluation] before" in job.log
    if kill.when == BEFORE_SAVES:
        return "[metrics] step=1/" in job.log
    if kill.when == BETWEEN:
        first = _checkpoint(kill, job, SAVE_STEPS)
        return (first / MARKER).exists() and f"{first.name}/{MARKER}" in stored()
    if kill.when == IN_SAVE:
        return last.is_dir() and any(last.iterdir())
    if kill.when == ROTATING:
        return last.is_dir() and not _checkpoint(kill, job, STEPS - SAVE_STEPS).exists()
    if kill.when == EVALUATING:
        return (last / MARKER).exists()
    assert kill.when == SAVING_MODEL
    return (job.ml / "model").is_dir() and any((job.ml / "model").iterdir())


def _strike(kill: Kill, job: Job, place: Workplace) -> dict[str, None]:
    """Kills; gives the checkpoints that were whole on the host then. Raises Missed."""
    last = _checkpoint(kill, job, STEPS)
    if kill.whom == RECLAIM:
        client.call(place.endpoint.url, "interrupt", name=job.name)
    elif kill.whom == STOP:
        boto3.client("sagemaker").stop_training_job(TrainingJobName=job.name)
    else:
        pid = victim(job.name, kill.whom, kill.module, place.endpoint)
        if pid is None:
            raise Missed(f"there is no {kill.whom}")
        send(pid, kill.signal)
    if kill.when == IN_SAVE and (last / MARKER).exists():
        raise Missed("the checkpoint was whole already")
    return {path.parent.name: None for path in sorted(last.parent.glob(f"*/{MARKER}"))}


def _logged(job: Job) -> list[dict[str, Any]]:
    """The history that the job has written so far, without times."""
    file = job.ml / "output" / "data" / "history.jsonl"
    lines = file.read_text().splitlines(keepends=True) if file.is_file() else []
    return [_timeless(json.loads(line)) for line in lines if line.endswith("\n")]


def _goes_on(job: Job, seconds: float) -> bool:
    """Whether a job that was interrupted has a fresh machine within that time."""
    deadline = time.monotonic() + seconds
    while job.ml.parents[1].name == "attempt-1" and time.monotonic() < deadline:
        time.sleep(0.1)
    return job.ml.parents[1].name != "attempt-1"


def _checkpoint(kill: Kill, job: Job, step: int) -> Path:
    return job.ml / "checkpoints" / f"{'global_step_' if kill.module == '05' else 'checkpoint-'}{step}"


def _said(job: Job) -> str:
    found = job.describe()
    return " ".join(f"{found['TrainingJobStatus']}: {found.get('FailureReason', '')}".split()).rstrip(": ")


def _stored(uri: str, folder: Path) -> tuple[dict[str, str], list[str]]:
    """Of the checkpoints in S3: what each that is not whole lacks, and those that are whole, the newest last."""
    bucket, prefix = split_uri(uri)
    s3 = boto3.client("s3")
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    for item in itertools.chain.from_iterable(page.get("Contents", []) for page in pages):
        file = folder / item["Key"].removeprefix(f"{prefix}/")
        file.parent.mkdir(parents=True, exist_ok=True)
        s3.download_file(bucket, item["Key"], str(file))
    found = {path.name: what_is_missing(path) for path in sorted(folder.glob("*[-_][0-9]"))}
    return {name: why for name, why in found.items() if why}, [name for name, why in found.items() if not why]


def _damaged(job: Job, folder: Path) -> list[str]:
    """What of the killed job's output cannot be read: half a file in the place of a whole one."""
    try:
        output = fetch_output(job.name, folder, model=True)
    except OutputError as error:
        return [] if "left neither a model nor other output" in str(error) else [f"its output: {error}"]
    if output.model_folder is None or not any(output.model_folder.iterdir()):
        return []
    try:
        _tensors(output.model_folder / "model.safetensors")
        return [] if (output.model_folder / "base_model.json").exists() else ["half a model was uploaded"]
    except Exception as error:
        return [f"half a model was uploaded: {error}"]


def _tensors(file: Path) -> dict[str, bytes]:
    with safe_open(file, framework="np") as tensors:
        return {name: tensors.get_tensor(name).tobytes() for name in tensors.keys()}  # noqa: SIM118


def _differences(expected: Result, found: Result) -> list[str]:
    """In what a job's result is not that of the undisturbed one."""
    faults = []
    if len(found.history) != len(expected.history):
        faults.append(f"{len(found.history)} lines of history in place of {len(expected.history)}")
    for one, other in zip(expected.history, found.history, strict=False):
        if keys := [key for key in one.keys() | other.keys() if one.get(key) != other.get(key)]:
            faults.append(f"step {one['step']} has another {', '.join(sorted(keys)[:4])}")
    if found.weights != expected.weights:
        faults.append("other weights")
    return faults


def _differences_of_verl(found: Result, undisturbed: Result, before: list[dict[str, Any]]) -> list[str]:
    """As `_differences`, where no two runs draw the same completions: what the checkpoint holds must not have changed.

    `before`: what the killed job had logged up to the checkpoint.
    """
    faults = []
    if [row["step"] for row in found.history] != list(range(1, STEPS + 1)):
        faults.append(f"its history has the steps {[row['step'] for row in found.history]}")
    if found.history[: len(before)] != before:
        faults.append("steps before the checkpoint have other numbers than the killed job logged")
    rates = [[row["learning_rate"] for row in result.history] for result in (found, undisturbed)]
    if rates[0] != rates[1]:
        faults.append(f"its learning rates are {rates[0]} and not {rates[1]}")
    sizes = [{name: len(data) for name, data in result.weights.items()} for result in (found, undisturbed)]
    if sizes[0] != sizes[1]:
        faults.append("its model has other tensors")
    return faults
