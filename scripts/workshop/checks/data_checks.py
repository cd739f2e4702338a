"""Preflight of the data in a job's channels."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from rl.preferences import read_pairs
from rl.tasks import DataError, read_rows

from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest

PAIR_CHANNELS = ("train", "validation")  # of a DPO job; its other channels hold problems


def check_data(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """Every channel can be read, every row is valid, and no question is in two channels."""
    models = {str(settings.get(key)).removeprefix("channel:") for key in ("base_model", "reward_model")}
    questions: dict[str, set[str]] = {}
    for name, source in request.channels:
        uri = getattr(source, "s3_uri", source)
        if name in models:
            continue
        if isinstance(uri, str) and uri.startswith("s3://"):
            yield _check_s3(name, uri, request)
            continue
        if not isinstance(uri, str):
            yield Check(f"data: {name}", NOTE, f"{type(source).__name__} cannot be read from here")
            continue
        config = request.script.config if request.script else None
        read = read_pairs if config == "trl.DPOConfig" and name in PAIR_CHANNELS else read_rows
        try:
            rows = read(Path(uri.removeprefix("file://")))
        except DataError as error:
            yield Check(f"data: {name}", PROBLEM, str(error))
            continue
        questions[name] = {row["question"] for row in rows}
        yield Check(f"data: {name}", OK, f"{len(rows):,} rows, task {rows[0]['task']}")
        for other in questions:
            shared = questions[other] & questions[name] if other != name else set()
            if shared:
                yield Check(
                    "data",
                    PROBLEM,
                    f"{len(shared)} questions are in both {other!r} and {name!r}: an evaluation on what was trained on "
                    "measures memory. Make both with one call of rl.tasks.make_splits",
                )


def _check_s3(name: str, uri: str, request: JobRequest) -> Check:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    try:
        found = request.boto_session.client("s3").list_objects_v2(Bucket=bucket, Prefix=prefix, MaxKeys=1)
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        if code in ("NoSuchBucket", "404"):
            return Check(f"data: {name}", PROBLEM, f"there is no bucket {bucket}")
        return Check(f"data: {name}", WARNING, f"{uri} cannot be looked at from here: {error}")
    if not found.get("KeyCount"):
        return Check(f"data: {name}", PROBLEM, f"there is nothing at {uri}")
    return Check(f"data: {name}", OK, uri)
