"""The results file: one record for every finished run, from which all modules are compared."""

import json
import os
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock

from workshop.errors import WorkshopError
from workshop.folders import BUILD
from workshop.views.html import HtmlView, table

RESULTS = BUILD / "results.json"
REQUIRED = (
    "module",
    "recipe",
    "mode",
    "trainer",
    "hosts",
    "processes",
    "seed",
    "base",
    "trained",
    "train_seconds",
    "peak_rss_mb",
    "tokens_per_second",
    "versions",
)
PASS_AT_ONE = ("value", "low", "high", "n", "decoding")


class ResultsError(WorkshopError):
    """A record lacks something, or the results file is not what this module wrote."""


def append_result(record: dict, path: Path | str = RESULTS) -> dict:
    """Add one run to the results file (a JSON list); return the record with the time it was added.

    `record` has the keys in REQUIRED: a job's summary and the mode it ran in, {**output.summary, "mode": mode}. pass@1
    is recorded as {"value", "low", "high", "n", "decoding"}: greedy as `base` and `trained`, sampled (which a summary
    holds too) as `base_sampled` and `trained_sampled`. `trained` may be missing where the summary says what the job was
    stopped by. Several notebooks may append at once, and a crash leaves the old
    file or the new one, never half of one.
    Raises ResultsError, with the file untouched, when the record is incomplete or the file is damaged.
    """
    record = _flat(record)
    not_measured = {"trained"} if "stopped_by" in record else set()
    missing = [key for key in REQUIRED if key not in record and key not in not_measured]
    for side in ("base", "trained"):
        measured = record.get(side)
        if side in record and not (
            isinstance(measured, dict) and all(key in measured for key in PASS_AT_ONE)
        ):
            missing.append(f"{side} as {{{', '.join(PASS_AT_ONE)}}}")
    if missing:
        raise ResultsError(f"This record is not complete; it lacks: {', '.join(missing)}.")
    record = {"time": datetime.now(UTC).isoformat(timespec="seconds"), **record}
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        records = read_results(path)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as new:
            json.dump([*records, record], new, indent=1, ensure_ascii=False)
        os.replace(new.name, path)
    return record


def _flat(record: dict) -> dict:
    """The record with {"greedy": ..., "sampled": ...}, as a summary holds pass@1, under keys of their own."""
    flat = dict(record)
    for side in ("base", "trained"):
        both = record.get(side)
        if isinstance(both, dict) and "greedy" in both:
            flat[side] = both["greedy"]
            if "sampled" in both:
                flat[f"{side}_sampled"] = both["sampled"]
    return flat


def read_results(path: Path | str = RESULTS) -> list[dict]:
    """All records, oldest first; none when there is no file yet. Raises ResultsError for a damaged file."""
    path = Path(path)
    if not path.exists():
        return []
    try:
        records = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ResultsError(f"{path} is damaged ({error}). Move it away; a new one is then begun.") from error
    if not isinstance(records, list) or not all(isinstance(record, dict) for record in records):
        raise ResultsError(f"{path} is not a list of records. Move it away; a new one is then begun.")
    return records


def results_table(path: Path | str = RESULTS) -> HtmlView:
    """All runs as a table: pass@1 before and after with 95 % intervals, time, tokens a second, peak memory."""
    header = ("module", "recipe", "trainer", "mode", "hosts x processes")
    header += (
        "sampled pass@1 before",
        "after",
        "greedy before",
        "after",
        "training",
        "tokens/s",
        "peak memory",
    )
    rows = [
        (
            record["module"],
            record["recipe"],
            record["trainer"],
            record["mode"],
            f"{record['hosts']} x {record['processes'] // record['hosts']}",
            *(_pass_at_one(record, key) for key in ("base_sampled", "trained_sampled", "base", "trained")),
            f"{record['train_seconds']:.0f} s{_stopped(record)}",
            f"{record['tokens_per_second']:,.0f}",
            f"{record['peak_rss_mb']:,.0f} MB",
        )
        for record in read_results(path)
    ]
    return table(header, rows, caption="pass@1 on the held-out problems, with its 95 % interval")


def _pass_at_one(record: dict, key: str) -> str:
    """pass@1 with its interval, and the share of completions that were cut off, where there are such."""
    measured = record.get(key)
    if measured is None:
        return "not measured"
    text = f"{measured['value']:.3f} [{measured['low']:.3f}, {measured['high']:.3f}]"
    side = key.removesuffix("_sampled")
    share = record.get("cut_off", {}).get(side, {}).get(measured["decoding"], 0.0)
    return text + (f", {share:.1%} cut off" if share else "")


def _stopped(record: dict) -> str:
    """Why a job did fewer steps than it was asked for; empty where it did them all."""
    if "stopped_by" not in record:
        return ""
    return f", {record['stopped_by']} after step {record['steps']} of {record['steps_asked']}"
