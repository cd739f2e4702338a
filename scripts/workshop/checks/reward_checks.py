"""Preflight of rewards and verifier: tried on the first rows, in the staged source, by a process that has nothing else."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from job.container import channel_variable
from job.trial import END, TRYING
from rl.tasks import DataError, Row, read_rows

from workshop.checks.alone import run_alone
from workshop.checks.data_checks import Unread, local_path
from workshop.checks.import_checks import job_packages
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
    limits = Limits(request, settings)
    # What the training scripts bind, with TRL's defaults; the trial's completions begin themselves, with <think>.
    bound = {"max_completion_length": limits["max_completion_length"] or 256, "opening": ""}
    if not verl:
        bound["seed"] = 42 if limits["seed"] is None else limits["seed"]
    trial: dict[str, Any] = {
        "rewards": names,
        "verifier": verifier,
        "rows": _first_rows(request),
        "trainer": "verl" if verl else "trl",
        "bound": bound,
        "packages": sorted(job_packages(request)),
    }
    with TemporaryDirectory(prefix="preflight-") as links:
        environment, trial["absent"] = _channels(request, Path(links))
        environment = {**request.environment, **_hyperparameters(request), **environment}
        found = _try(trial, request.source_dir, environment)
    yield from [Check(*finding) for finding in found] or [Check("verifier", OK, verifier)]


def _channels(request: JobRequest, links: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Environment variables of the job's channels, and name -> address of those whose data is not on this machine.

    In the job each channel is a folder, also that of a single file, which gets one in `links`.
    """
    environment, absent = {}, {}
    for name, source in request.channels:
        address = getattr(source, "s3_uri", source)
        if isinstance(address, str) and not address.startswith("s3://"):
            try:
                folder = _as_folder(Path(address.removeprefix("file://")).resolve(), links / name)
            except (OSError, ValueError):
                continue  # another check says what is wrong with the name or the data
        else:
            absent[name] = str(address) if isinstance(address, str) else type(source).__name__
            folder = Path("/opt/ml/input/data", name)
        environment[channel_variable(name)] = str(folder)
    return environment, absent


def _hyperparameters(request: JobRequest) -> dict[str, str]:
    """The variables in which a job finds them, as the SDK's set_env writes them: SM_HPS, SM_HP_<NAME>.

    What can be no variable is left out: another check refuses it.
    """
    values = {
        f"SM_HP_{name.replace('-', '_').upper()}": value for name, value in request.hyperparameters.items()
    }
    values["SM_HPS"] = request.hyperparameters
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, default=str, skipkeys=True)
        for name, value in values.items()
    }
    return {name: text for name, text in texts.items() if name.isidentifier() and "\0" not in text}


def _as_folder(path: Path, link: Path) -> Path:
    if not path.is_file():
        return path
    link.mkdir()
    (link / path.name).symlink_to(path)
    return link


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


def _try(trial: dict[str, Any], source_dir: Path, environment: dict[str, str]) -> list[tuple[str, str, str]]:
    """The findings of job.trial, run in the staged folder."""
    tried, rows = ", ".join([*trial["rewards"], f"verifier {trial['verifier']}"]), len(trial["rows"])
    waiting = f"Preflight is trying {tried} on {rows} rows, for {SECONDS:.0f} s at most; to leave it, interrupt this cell."
    done = run_alone(
        ["-m", "job.trial"], source_dir, SECONDS, json.dumps(trial), waiting=waiting, environment=environment
    )
    said = [json.loads(line) for line in done.answer.splitlines()]
    found = [(name, status, detail) for name, status, detail in said if status not in (TRYING, END)]
    if said and said[-1][1] == END:
        return found
    name = next((name for name, status, _ in reversed(said) if status == TRYING), "rewards")
    if done.code is None:
        late = f"it has not come back from {rows} rows in {SECONDS:.0f} s: does it wait for something?"
        return [*found, (name, PROBLEM, late)]
    ended = f"Python ended with {done.code}. {done.said[-500:]}".strip()  # os._exit, or a signal
    return [*found, (name, PROBLEM, f"could not be tried: {ended}")]
