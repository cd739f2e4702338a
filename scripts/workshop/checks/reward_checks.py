"""Preflight of rewards and verifier: tried on the first rows, in the staged source, by a process that has nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rl.tasks import DataError, Row, read_rows

from workshop.checks.alone import run_alone
from workshop.checks.data_checks import Unread, local_path
from workshop.checks.length_checks import Limits
from workshop.checks.recipe_checks import as_list
from workshop.checks.request import NOTE, OK, PROBLEM, Check, JobRequest

ROWS = 32  # of the training data that rewards are tried on
SECONDS = 60.0  # the first verdict of math-verify alone takes ten


def check_rewards(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """There is one weight for each reward; each is found in the source that the job is sent, and scores the first rows."""
    names = [str(name) for name in as_list(settings.get("rewards"))]
    weights = settings.get("reward_weights")
    functions = len(names) + bool(settings.get("reward_model"))
    if weights is not None and names and len(as_list(weights)) != functions:
        counted = "rewards and the reward model" if settings.get("reward_model") else "rewards"
        problem = f"reward_weights has {len(as_list(weights))} numbers for {functions} {counted}"
        yield Check("rewards", PROBLEM, problem)
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        yield Check(
            "rewards", PROBLEM, f"{twice[0]!r} stands there twice; weigh it with reward_weights instead"
        )
    verifier = settings.get("verifier")
    verifier = "number" if verifier is None else str(verifier)
    if not names and "verifier" not in settings:
        return
    if request.source_dir is None or not (request.source_dir / "job" / "trial.py").is_file():
        yield Check(
            "rewards",
            NOTE,
            "not tried: the source with the shared packages (stage_source) is not on this machine",
        )
        return
    verl = request.script is None and "max_completion_length" in settings
    limit = Limits(request, settings)["max_completion_length"] or 256  # TRL's default
    trial = {
        "rewards": names,
        "verifier": verifier,
        "rows": _first_rows(request),
        "trainer": "verl" if verl else "trl",
        "bound": {"max_completion_length": limit},
    }
    checks = [Check(name, status, detail) for name, status, detail in _try(trial, request.source_dir)]
    yield from checks or [Check("verifier", OK, verifier)]


def _first_rows(request: JobRequest) -> list[Row]:
    """The first rows of the channel train, or of the one channel there is; none if they cannot be read from here."""
    channels = dict(request.channels)
    source = channels.get("train", next(iter(channels.values()), None))
    with TemporaryDirectory(prefix="preflight-") as copies:
        try:
            path, _ = local_path(request, source, Path(copies))
            return read_rows(path)[:ROWS]
        except (DataError, Unread):
            return []  # another check says what is wrong with the data


def _try(trial: dict[str, Any], source_dir: Path) -> list[tuple[str, str, str]]:
    """The findings of job.trial, run in the staged folder."""
    done = run_alone(["-m", "job.trial"], source_dir, SECONDS, json.dumps(trial))
    tried = ", ".join(trial["rewards"]) or f"verifier {trial['verifier']}"
    if done.code is None:
        said = f"scoring {len(trial['rows'])} rows took over {SECONDS:.0f} s"
        return [("rewards", PROBLEM, f"{said} ({tried}): does one of them wait for something?")]
    try:
        return json.loads(done.answer)
    except ValueError:  # os._exit, or a signal
        said = f"Python ended with {done.code}. {done.said[-500:]}".strip()
        return [("rewards", PROBLEM, f"could not be tried ({tried}): {said}")]
