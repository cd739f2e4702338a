"""Preflight of the data in a job's channels, here and in S3."""

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from botocore.exceptions import BotoCoreError, ClientError
from job.record import BASE_CHANNEL
from rl.data_files import is_folder
from rl.data_golds import reduced
from rl.data_report import shortened
from rl.data_splits import asked
from rl.evaluation import check_indices
from rl.preferences import read_pairs
from rl.tasks import DataError, Row, read_rows
from rl.verifiers import VERIFIERS, usable

from workshop.checks.length_checks import Limits
from workshop.checks.recipe_checks import channels_read
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest
from workshop.checks.signatures import GROUPED
from workshop.s3 import split_uri

PAIR_CHANNELS = ("train", "validation")  # of a DPO job; its other channels hold problems
# Of the workshop's scripts; others may be those of own rewards
ROW_CHANNELS = {*PAIR_CHANNELS, "test", "problems"}
MOST_BYTES = 200_000_000  # that are fetched from S3 to be looked at
MOST_ANSWERS = 2000  # different ones that a verifier is tried on: `math` takes milliseconds for each
MODEL_FILES = (
    "config.json",
    "adapter_config.json",
    "model.tar.gz",
)  # a channel with one of them holds no rows
MOSTLY_DIFFERENT = 0.9  # of the questions in a channel; fewer are no accident
_LONGEST_ANSWER = 60  # characters; what is longer is a solution


class Unread(Exception):
    """Data that cannot be looked at. `status` says how much that matters."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def check_data(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """Every channel can be read, every row is valid, no question is in two channels, the answers can be reached, no
    index is that of two problems, and there are enough rows for a step."""
    models = {str(settings.get(key)).removeprefix("channel:") for key in ("base_model", "reward_model")}
    questions: dict[str, set[tuple[str, str]]] = {}
    left, with_rows = MOST_BYTES, ROW_CHANNELS | _read_by_script(request)
    config = request.script.config if request.script else None
    for name, source in request.channels:
        if name in models or name == BASE_CHANNEL:
            continue
        pairs = config == "trl.DPOConfig" and name in PAIR_CHANNELS
        with TemporaryDirectory(prefix="preflight-") as copies:
            try:
                path, size = local_path(request, source, Path(copies), left)
                left -= size
                if is_folder(path) and any((path / file).is_file() for file in MODEL_FILES):
                    yield Check(f"data: {name}", OK, "a model")
                    continue
                if name not in with_rows and (held := _of_own_code(path)):
                    yield Check(f"data: {name}", NOTE, held)
                    continue
                rows = _rows(path, source, pairs)
            except (Unread, DataError) as error:
                yield Check(f"data: {name}", getattr(error, "status", PROBLEM), str(error))
                continue
        yield Check(f"data: {name}", OK, f"{len(rows):,} rows, task {rows[0]['task']}")
        questions[name] = {asked(row) for row in rows}
        different = len(questions[name])
        if different < MOSTLY_DIFFERENT * len(rows) and not pairs:
            yield Check(
                f"data: {name}",
                WARNING,
                f"the {len(rows):,} rows ask {different:,} different questions: the others stand there several times",
            )
        if name == "train":
            too_few = list(check_enough(len(rows), *rows_of_a_step(request, settings)))
            yield from too_few
            if pairs and not too_few:
                yield from check_whole_step(len(rows), request, settings)
        elif not pairs:
            yield from check_numbering(name, rows, Limits(request, settings)["eval_problems"])
        if not pairs:
            yield from check_answers(name, rows, settings.get("verifier") or "number")
        for other in questions.keys() - {name}:
            if shared := _shared(questions[other], questions[name]):
                yield Check(
                    "data",
                    PROBLEM,
                    f"{len(shared)} questions are in both {other!r} and {name!r}, such as "
                    f"{shortened(min(shared))!r}: an evaluation on what was trained on measures memory. Make both with one "
                    "call of rl.tasks.make_splits or rl.own_data.rows_from",
                )


def _read_by_script(request: JobRequest) -> set[str]:
    """Channels that the entry script reads."""
    if request.source_dir is None or not request.entry_script:
        return set()
    try:
        return channels_read(ast.parse((request.source_dir / request.entry_script).read_bytes()))
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return set()  # another check says it


def _of_own_code(path: Path) -> str | None:
    """What is said of data that no script of the workshop reads, if it is no rows; None: it is, or nothing is there."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    size = sum(file.stat().st_size for file in files)
    if size > MOST_BYTES:
        return f"{size / 1e6:,.0f} MB that the script does not read: left to code of your own"
    try:
        read_rows(path)
    except DataError:
        return (
            "no rows of problems, and the script does not read them: left to code of your own"
            if files
            else None
        )
    return None


def _shared(some: set[tuple[str, str]], others: set[tuple[str, str]]) -> set[str]:
    """The questions of both; what a system says to all of them alike makes them no other ones."""
    if all(len({system for _, system in channel}) == 1 for channel in (some, others)):
        return {question for question, _ in some} & {question for question, _ in others}
    return {question for question, _ in some & others}


def _rows(path: Path, source: Any, pairs: bool) -> list[Row]:
    try:
        return cast(list[Row], read_pairs(path)) if pairs else read_rows(path)
    except DataError as error:
        raise Unread(PROBLEM, str(error).replace(str(path), _address(source))) from error


def _address(source: Any) -> str:
    return str(getattr(source, "s3_uri", source)).removeprefix("file://")


def local_path(
    request: JobRequest, source: Any, folder: Path, most_bytes: int = MOST_BYTES
) -> tuple[Path, int]:
    """Where a channel's data lies on this machine, and how many bytes were fetched: from S3 it is, into `folder`.

    Raises:
        Unread: there is nothing, too much of it, or it may not be read.
    """
    address = getattr(source, "s3_uri", source)
    if not isinstance(address, str):
        raise Unread(NOTE, f"{type(source).__name__} cannot be read from here")
    if not address.startswith("s3://"):
        return Path(_address(source)), 0
    if getattr(source, "s3_data_type", None) == "ManifestFile":
        raise Unread(
            NOTE, f"{address} is a manifest, and the files that it names are not looked at from here"
        )
    bucket, prefix = split_uri(address)
    base = prefix.rstrip("/") + "/" if prefix else ""
    try:
        s3 = request.boto_session.client("s3")
        # A prefix names a folder if there is one, else one object, else whatever begins with it.
        objects = _objects(s3, bucket, base)
        if not objects:
            base, objects = prefix[: prefix.rfind("/") + 1], _objects(s3, bucket, prefix)
            objects = {prefix: objects[prefix]} if prefix in objects else objects
        if not objects:
            raise Unread(PROBLEM, f"there is nothing at {address}")
        size = sum(objects.values())
        if size > most_bytes:
            raise Unread(NOTE, f"{address} has {size / 1e6:,.0f} MB, too much to fetch and look at from here")
        for key in objects:
            target = folder / key[len(base) :]
            if ".." in target.parts:
                raise Unread(PROBLEM, f"the key {key} leads out of its folder: give the object another name")
            target.parent.mkdir(parents=True, exist_ok=True)
            s3.download_file(bucket, key, str(target))
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        if code in ("NoSuchBucket", "404"):
            raise Unread(PROBLEM, f"there is no bucket {bucket}") from error
        raise Unread(WARNING, f"{address} cannot be looked at from here: {error}") from error
    return folder, size


def _objects(s3: Any, bucket: str, prefix: str) -> dict[str, int]:
    """Bytes of the objects, by key, without the markers that consoles create for folders."""
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    found = (entry for page in pages for entry in page.get("Contents", []))
    return {entry["Key"]: entry["Size"] for entry in found if not entry["Key"].endswith("/")}


def rows_of_a_step(request: JobRequest, settings: dict[str, Any]) -> tuple[int, str]:
    """The fewest training rows with which TRL does a step at all, and why: with fewer it ends after 0 steps.

    GRPO leaves a last batch of prompts out that is not whole, DPO only with dataloader_drop_last; steps whose
    gradients were not accumulated to the end are done.
    """
    limits, processes = Limits(request, settings), request.hosts * request.processes_per_host
    per_device = (limits["per_device_train_batch_size"] or 0) * processes
    if limits.config == "trl.DPOConfig" and "dataloader_drop_last" in limits:
        return (
            per_device,
            f"{per_device // processes} on each of {processes} process{'es' if processes > 1 else ''}, with dataloader_drop_last",
        )
    group = limits["num_generations"]
    if limits.config not in GROUPED or not group:
        return 1, ""
    steps = limits["steps_per_generation"] or limits["gradient_accumulation_steps"] or 0
    batch = limits["generation_batch_size"] or per_device * steps
    return batch // group, f"{batch} completions, {group} of each prompt"


def check_enough(rows: int, needed: int, why: str) -> Iterator[Check]:
    """At least as many training rows as one step takes; `why` says how many that are."""
    if rows < needed:
        yield Check(
            "data: train",
            PROBLEM,
            f"{rows:,} rows, and one step takes {needed:,} ({why}): the trainer would do no step and call that completed. "
            "Give it more rows, or make the batch smaller",
        )


def check_whole_step(pairs: int, request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """As many pairs as a step is asked to take; with fewer DPO trains, and each step sees all of them."""
    limits, processes = Limits(request, settings), request.hosts * request.processes_per_host
    step = (
        (limits["per_device_train_batch_size"] or 1)
        * processes
        * (limits["gradient_accumulation_steps"] or 1)
    )
    if pairs < step:
        text = f"{pairs:,} pairs, and a step is to take {step:,}: each step sees the same ones, and no others"
        yield Check("data: train", WARNING, text)


def check_numbering(channel: str, rows: list[Row], evaluated: int | None) -> Iterator[Check]:
    """The problems that are evaluated have an index each; `evaluated`: how many of the first, None: all.

    Of other channels than test a script may take problems in portions, so that an index may come again.
    """
    try:
        check_indices(rows[:evaluated] if channel == "test" else rows)
    except DataError as error:
        yield Check(f"data: {channel}", PROBLEM if channel == "test" else WARNING, str(error))


def check_answers(channel: str, rows: list[Row], verifier: Any) -> Iterator[Check]:
    """The verifier takes every known answer as an answer to itself: one that it does not can never be reached.

    A verifier of one's own is tried elsewhere, in a process that has the job's source.
    """
    if not isinstance(verifier, str) or verifier not in VERIFIERS:
        return
    counts = Counter(row["answer"] for row in rows)
    answers = list(counts)[:MOST_ANSWERS]
    unreachable = [
        answer for answer in answers if reduced(answer).form or not usable(VERIFIERS[verifier], answer)
    ]
    if not unreachable:
        return
    examples = ", ".join(repr(shortened(answer)) for answer in unreachable[:3])
    nothing = len(unreachable) == len(answers)  # could be earned at all
    looked = f"of {sum(counts[answer] for answer in answers):,} answers"
    yield Check(
        f"data: {channel}",
        PROBLEM if nothing else WARNING,
        f"{sum(counts[answer] for answer in unreachable):,} {looked} cannot be reached with the verifier {verifier!r}, such as "
        f"{examples}: whatever a model says earns 0 there. {_advice(answers, unreachable)}",
    )


def _advice(answers: list[str], unreachable: list[str]) -> str:
    if any(reduced(answer).form for answer in unreachable):
        return "These are solutions: rl.own_data.rows_from takes the answer from behind ####, out of \\boxed{} or its tags"
    if any(len(answer) > _LONGEST_ANSWER for answer in unreachable):
        return "These are solutions and not answers: put the answer alone into the rows"
    bare = all(len(answer.strip(" ()[].:*")) == 1 for answer in answers)
    names = [
        "number",
        *(["choice"] if bare else []),
        *(["math"] if any(set(answer) & set("\\^_={}") for answer in unreachable) else []),
        "text",
    ]
    takes = next((name for name in names if all(usable(VERIFIERS[name], answer) for answer in answers)), None)
    return (
        f"verifier: {takes} would take all of them" if takes else "Mend them, or write a verifier of your own"
    )
