"""The two files of an experiment: a row for each run with what it came to, and its curves, step by step.

Written anew as a whole each time, in the order of the variants and seeds, so that a difference in git shows what changed.
"""

import csv
import io
from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from job.metrics import Metrics
from rl.evaluation import GREEDY, SAMPLED, Evaluation
from rl.habits import HABITS, false_step_share, habits
from rl.tasks import DataError, write_whole
from workshop.jobs.outputs import JobOutput
from workshop.views.seeds import recorded_files

Row = dict[str, Any]
Runs = dict[tuple[str, int], tuple[Row, list[Row]]]  # (variant, seed) -> its row, its curves
DIGITS = 4  # significant; more would not be the same on another machine
# What is kept of a logged step; "*" stands for any text. Times, counts and what an average says already are left out.
CURVES = (
    "reward",
    "rewards/*",
    "loss",
    "completions/mean_length",
    "completions/clipped_ratio",
    "entropy",
    "kl",
    "frac_reward_zero_std",
    "clip_ratio/*_mean",
    "cispo_clip_ratio",
    "grad_norm",
    "logps/*",
    "actor/ppo_kl",
    "actor/pg_clipfrac",
    "rollout_corr/rollout_is_mean",
    "accuracy",
    "margin",
    "eval_*",
)
NOT_CURVES = (
    "*/std",
    "eval_runtime",
    "eval_*_per_second",
    "eval_logits/*",
    "eval_num_tokens",
    "eval_*_reward",
)
PASS_AT = (2, 4, 8, 16, 32, 64)  # as far as there are so many samples
_HABITS = ("thinks", "direct", "untagged")  # in columns, for each of HABITS
PACKAGES = ("torch", "transformers", "trl", "verl")


def result_row(output: JobOutput, seconds: float | None) -> Row:
    """What a run came to; of a job without evaluations (pairs, a reward model) only what it took.

    Args:
        seconds: what the job took, for one that left no summary.
    """
    summary: Mapping[str, Any] = output.parts.get("summary", {})
    row: Row = {}
    for moment in ("before", "after"):
        if moment in output.parts:
            row |= {f"{moment}/{name}": value for name, value in _measured(output.parts[moment]).items()}
    row["steps"] = summary.get("steps")
    row["train_seconds"] = summary.get("train_seconds", seconds)
    row["peak_rss_mb"] = summary.get("peak_rss_mb")
    row |= {name: (summary.get("versions") or {}).get(name) for name in PACKAGES}
    return row


def _measured(evaluation: Evaluation) -> Row:
    """Named as the trackers have it (job.tracking), and what rl.habits counts."""
    row: Row = {}
    for decoding, rate in ((GREEDY, evaluation.greedy), (SAMPLED, evaluation.sampled)):
        row[f"pass_at_1_{decoding}"] = rate.value
        if decoding == SAMPLED:
            row |= {f"pass_at_{k}": evaluation.pass_at(k).value for k in PASS_AT if k <= evaluation.samples}
        found = habits(evaluation)[decoding]
        for habit, name in zip(HABITS, _HABITS, strict=True):
            row[f"{name}_{decoding}"] = found[habit].share
            row[f"{name}_right_{decoding}"] = found[habit].right
        row[f"false_steps_{decoding}"] = false_step_share(evaluation, decoding)
        row[f"completion_length_{decoding}"] = evaluation.mean_completion_length[decoding]
        row[f"cut_off_{decoding}"] = evaluation.cut_off.get(decoding)
    return row


def curve_rows(history: list[Metrics]) -> list[Row]:
    """The steps of a run with those of their metrics that are kept."""
    kept = [
        {"step": int(entry["step"])} | {k: v for k, v in entry.items() if _is_kept(k)} for entry in history
    ]
    return [entry for entry in kept if len(entry) > 1]


def _is_kept(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in CURVES) and not any(
        fnmatchcase(name, pattern) for pattern in NOT_CURVES
    )


def read_runs(folder: Path, experiment: str) -> Runs:
    """What is recorded of an experiment, as texts; nothing where there are no files. Raises DataError for a damaged one."""
    results, curves = map(_read, recorded_files(folder, experiment))
    runs: Runs = {key: (row, []) for key, row in results}
    for key, row in curves:
        if key in runs:
            runs[key][1].append(row)
    return runs


def write_runs(folder: Path, experiment: str, runs: Runs, variants: Iterable[str]) -> None:
    """Writes both files anew, without runs of variants that are not among `variants`."""
    order = {name: number for number, name in enumerate(variants)}
    kept = sorted((key for key in runs if key[0] in order), key=lambda key: (order[key[0]], key[1]))
    results, curves = recorded_files(folder, experiment)
    # The row last: with it a run counts as recorded.
    _write(curves, [{"variant": key[0], "seed": key[1]} | row for key in kept for row in runs[key][1]])
    _write(results, [{"variant": key[0], "seed": key[1]} | runs[key][0] for key in kept])


def _read(path: Path) -> list[tuple[tuple[str, int], Row]]:
    """Each line as ((variant, seed), what else it holds)."""
    if not path.is_file():
        return []
    with open(path, encoding="utf-8", newline="") as file:
        lines = [{name: text for name, text in line.items() if text} for line in csv.DictReader(file)]
    try:
        return [((line.pop("variant"), int(line.pop("seed"))), line) for line in lines]
    except (KeyError, ValueError) as error:
        raise DataError(f"{path} is damaged ({error!r}): take it back from git, or delete it.") from error


def _write(path: Path, rows: list[Row]) -> None:
    file = io.StringIO()
    fullest_first = sorted(rows, key=len, reverse=True)  # so that columns stand where most rows have them
    columns = dict.fromkeys(name for row in fullest_first for name, value in row.items() if value is not None)
    writer = csv.DictWriter(file, list(columns), extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _text(value) for name, value in row.items()} for row in rows)
    write_whole(path, file.getvalue().encode())


def _text(value: Any) -> str:
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, float):
        rounded = float(f"{value:.{DIGITS}g}")
        return str(int(rounded)) if rounded.is_integer() else str(rounded)
    return str(value)
