"""Tries a job's rewards and verifier on its first rows, in the source as the job will have it.

Preflight runs this file in the staged folder, in a process of its own: what only the notebook's kernel knows is not
there, as it will not be in the job. A JSON object in (see `Trial`), one finding a line out:

    python -m job.trial < trial.json
"""

import dataclasses
import inspect
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

from rl.answers import END_THINK, THINK
from rl.own_code import MissingPackage
from rl.rewards import NOT_PASSED, Reward, RewardError, compute_score, get_rewards, waited_for
from rl.tasks import Row
from rl.verifiers import Verifier, VerifierError, get_verifier, usable

from job.container import channel_variable

OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"
# Said before something is tried, and behind all: what is missing then did not come back.
TRYING, END = "trying", "end"
EXAMPLES = 3
# What a model may write as its answer, and what stumbles over it: float, a division, ASCII, int, a pattern, JSON.
ODD_TEXTS = ("", "about 3", "1/0", "é", "nan", "1e999", "²", "[(", "{}", "a" * 300)
NO_OPINION = "no opinion"
_read: set[str] = set()  # environment variables
Finding = tuple[str, str, str]  # what was tried, how it stands, in words


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is tried.

    Attributes:
        rewards: names, as in the recipe. `verifier`: likewise.
        rows: the first rows of the training data; none: only the names are looked up.
        trainer: trl, or verl, which calls rewards in another way.
        bound: what the job binds to rewards, such as max_completion_length.
        packages: what the job has installed, as far as it is known: names in small letters, with - for _.
        absent: channels whose data is not on this machine, name -> address.
    """

    rewards: list[str]
    verifier: str
    rows: list[Row]
    trainer: str = "trl"
    bound: dict[str, Any] = dataclasses.field(default_factory=dict)
    packages: list[str] = dataclasses.field(default_factory=list)
    absent: dict[str, str] = dataclasses.field(default_factory=dict)


def findings(trial: Trial) -> Iterator[Finding]:
    """All that was found; what needs a package that is only in the job is said to be untried."""
    yield f"verifier {trial.verifier}", TRYING, ""
    try:
        verifier = get_verifier(trial.verifier)
    except VerifierError as error:
        yield "verifier", *_not_found(error, trial)
        return
    if "." in trial.verifier:
        status, said = _verdicts(trial, verifier)
        yield "verifier", status, said
        if status == PROBLEM:
            return
    for name in trial.rewards:
        yield f"reward {name}", TRYING, ""
        try:
            (function,) = get_rewards([name], verifier=verifier, **trial.bound)
        except RewardError as error:
            yield f"reward {name}", *_not_found(error, trial)
            continue
        if trial.rows:
            yield f"reward {name}", *_tried(name, function, trial)


def _not_found(error: Exception, trial: Trial) -> tuple[str, str]:
    """How an error at the look-up stands: what needs a package that only the job has is untried, and no problem."""
    if found := _untried(error, trial):
        return found
    if isinstance(error.__cause__, MissingPackage):
        return (
            WARNING,
            f"{error} The job's requirements name no such package: unless the image has it, the job fails.",
        )
    return PROBLEM, str(error)


def _untried(error: BaseException, trial: Trial) -> tuple[str, str] | None:
    """How an error stands that need not come in the job, which has packages and data that are not here; None: any other."""
    cause: BaseException | None = error
    while cause is not None:
        package = cause.name or "" if isinstance(cause, ModuleNotFoundError) else ""
        if package.partition(".")[0].lower().replace("_", "-") in trial.packages:
            return NOTE, f"not tried here: {error}"
        cause = cause.__cause__
    for name, address in trial.absent.items():
        if channel_variable(name) in _read:
            return WARNING, (
                f"cannot be tried here: it reads the channel '{name}', whose data is not on this machine but at {address} "
                f"({type(error).__name__}: {error})"
            )
    return None


class _Environment(os._Environ[str]):
    """Environment variables that remembers which were read, so that an error can be told from one of a channel's data."""

    def __getitem__(self, key: str) -> str:
        _read.add(key)
        return super().__getitem__(key)


def _verdicts(trial: Trial, verifier: Verifier) -> tuple[str, str]:
    """How a verifier of one's own takes the known answers as answers, and whether it bears what else a model may write."""
    try:
        unusable = [row["answer"] for row in trial.rows if not usable(verifier, row["answer"])]
    except VerifierError as error:
        return _untried(error, trial) or (PROBLEM, str(error))
    try:
        for row in trial.rows[:1]:
            for text in ODD_TEXTS:
                verifier(text, row["answer"])
    except VerifierError as error:
        return _untried(error, trial) or (
            PROBLEM,
            f"{error} A verdict must answer every text that a model may write: return False.",
        )
    return _golds(trial, unusable)


def _golds(trial: Trial, unusable: list[str]) -> tuple[str, str]:
    if not unusable:
        return OK, f"{trial.verifier} takes each of {len(trial.rows)} known answers as right"
    shown = ", ".join(map(repr, unusable[:EXAMPLES]))
    return WARNING, (
        f"{trial.verifier} does not take {len(unusable)} of {len(trial.rows)} known answers as right when they are given "
        f"as the answer ({shown}): no completion can earn accuracy there, unless other spellings are meant"
    )


def _tried(name: str, function: Reward, trial: Trial) -> tuple[str, str]:
    """What the reward says of completions with the known answer, and of empty ones."""
    rows = trial.rows
    right = [f"{THINK}{END_THINK}<answer>{row['answer']}</answer>" for row in rows]
    try:
        scores = [_call(name, function, trial, texts) for texts in (right, [""] * len(rows))]
    except (Exception, SystemExit) as error:  # whatever the function does, its author is told
        columns = ", ".join(sorted({key for row in rows for key in row}))
        said = f"{type(error).__name__}: {error} (the data has the columns {columns})"
        return _untried(error, trial) or (PROBLEM, said)
    if (
        trial.trainer == "verl"
        and "." in name
        and (unlike := _unlike_at_once(function, rows, right, *scores))
    ):
        return WARNING, (
            f"called with {2 * len(rows)} completions at once it scores {unlike} of them otherwise than one by one, and verl calls "
            "it with one completion at a time: what it compares among completions, it does not find there"
        )
    known, empty = (_mean(found) for found in scores)
    said = f"{known} for the known answer, {empty} for an empty one (mean of {len(rows)} rows)"
    if name == "accuracy" and known != "1":
        return WARNING, f"{said}: an answer that is the known one, word for word, must earn 1 everywhere"
    if known == empty == NO_OPINION and trial.rewards == [name]:
        return PROBLEM, f"it has {NO_OPINION} (None) on any of {len(rows)} rows, so there is nothing to learn"
    if known == empty:
        return (
            NOTE,
            f"{said}: alike, so this does not show whether it can tell a good completion from a bad one",
        )
    return OK, said


def _call(name: str, function: Reward, trial: Trial, texts: Sequence[str]) -> list[float | None]:
    if trial.trainer == "verl":
        options: dict[str, Any] = {"rewards": [name], "verifier": trial.verifier, **trial.bound}
        return [
            compute_score(row["task"], text, row["answer"], {"columns": json.dumps(row)}, **options)[name]
            for row, text in zip(trial.rows, texts, strict=True)
        ]
    return _at_once(
        function,
        trial.rows,
        texts,
        completion_ids=[[0] * len(text) for text in texts],
        trainer_state=SimpleNamespace(global_step=0, epoch=0.0, max_steps=1),
        log_extra=lambda *_: None,
        log_metric=lambda *_: None,
    )


def _at_once(function: Reward, rows: list[Row], texts: Sequence[str], **given: Any) -> list[float | None]:
    keys = [key for key in rows[0] if key not in NOT_PASSED]  # as TRL does
    result = function(
        prompts=[row["prompt"] for row in rows],
        completions=[[{"role": "assistant", "content": text}] for text in texts],
        **given,
        **{key: [row.get(key) for row in rows] for key in keys},
    )
    return waited_for(result) if inspect.iscoroutine(result) else result


def _unlike_at_once(
    function: Reward, rows: list[Row], right: list[str], known: list[float | None], empty: list[float | None]
) -> int:
    """How many scores change where a right and an empty completion of each row, scored alone before, come together."""
    try:
        scores = _at_once(function, rows * 2, [*right, *[""] * len(rows)])
    except (Exception, SystemExit):  # verl never calls it so
        return 0
    alone = [*known, *empty]
    return sum(not _alike(*pair) for pair in zip(scores, alone, strict=True))


def _alike(one: float | None, other: float | None) -> bool:
    """Whether two scores are the same but for rounding; no opinion is None in TRL, NaN in verl."""
    values = [math.nan if score is None else score for score in (one, other)]
    return all(map(math.isnan, values)) or math.isclose(*values, rel_tol=1e-3, abs_tol=1e-3)


def _mean(scores: list[float | None]) -> str:
    known = [score for score in scores if score is not None and not math.isnan(score)]
    return f"{sum(known) / len(known):.3g}" if known else NO_OPINION


if __name__ == "__main__":
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what rewards print is no finding
    os.environ.__class__ = _Environment
    for finding in findings(Trial(**json.load(sys.stdin))):
        print(json.dumps(finding), file=answers, flush=True)
    print(json.dumps(("", END, "")), file=answers, flush=True)
