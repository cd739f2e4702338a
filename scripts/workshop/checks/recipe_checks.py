"""Preflight of what the script will read: entry script, recipe, rewards, model and data."""

import ast
import json
import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from os import environ
from pathlib import Path
from typing import Any

from botocore.exceptions import BotoCoreError, ClientError
from job.arguments import RecipeError, Script
from job.recipe import read_recipe, setting_problems
from job.settings import describe_config, problem_with
from rl.preferences import read_pairs
from rl.rewards import REWARDS
from rl.tasks import DataError, read_rows

from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest
from workshop.checks.signatures import load_signature

MODEL_SOURCES = ("asset", "pypi", "channel", "hub")
PAIR_CHANNELS = ("train", "validation")  # of a DPO job; its other channels hold problems
PACKAGED_MODELS = ("smollm2",)  # the names in job.packaged.PACKAGES, part of what a job imports
_HUB_TIMEOUT_S = 5.0


def check_recipe(request: JobRequest) -> tuple[dict[str, Any], list[Check]]:
    """Recipe and hyperparameters as one dict (hyperparameters win), and what is wrong with them."""
    recipe, checks = _read(request)
    settings = {**recipe, **request.hyperparameters}
    if request.script_problem:
        return settings, [*checks, Check("settings", PROBLEM, request.script_problem)]
    if request.script is None:
        note = f"{request.entry_script} has no entry in SCRIPTS of arguments.py, so its keys are not checked"
        return settings, [*checks, Check("settings", NOTE, note)]
    script = request.script
    for key, setting in script.reads(load_signature).items():
        if settings.get(key) == "null" and "null" in setting.kinds:
            settings[key] = None
    described = (
        f" (read by {request.entry_script}: {script.arguments.__name__} and {script.config or 'no config'})"
    )
    problems = setting_problems(
        recipe,
        request.hyperparameters,
        script.reads(load_signature),
        script.shared(load_signature),
        described,
    )
    problems += _problems_of_values(script, settings)
    processes = request.hosts * request.processes_per_host
    if problem := script.process_problem(processes, request.hosts):
        problems.append(problem)
    checks += [Check("settings", PROBLEM, problem) for problem in problems]
    if not problems:
        checks.append(Check("settings", OK, f"{len(settings)} keys, all known to {request.entry_script}"))
    return settings, checks


def _read(request: JobRequest) -> tuple[dict[str, Any], list[Check]]:
    recipe_file = request.hyperparameters.get("config")
    if recipe_file is None:
        return {}, [Check("recipe", NOTE, 'no hyperparameter "config": the script uses its defaults')]
    if request.source_dir is None:
        return {}, [Check("recipe", NOTE, "the source is not on this machine, so its recipe is not checked")]
    try:
        recipe = read_recipe(request.source_dir / str(recipe_file))
    except RecipeError as error:
        return {}, [Check("recipe", PROBLEM, str(error))]
    return recipe, [Check("recipe", OK, f"{recipe_file}, {len(recipe)} keys")]


def _problems_of_values(script: Script, settings: dict[str, Any]) -> list[str]:
    """What the script's own arguments refuse: values that are fine by themselves, but with which no job can run."""
    values = {}
    for key, setting in describe_config(script.arguments).items():
        if key in settings and problem_with(settings[key], setting) is None:
            value = settings[key]
            if any(kind.startswith("list") for kind in setting.kinds):
                value = as_list(value)
            values[key] = int(value) if "int" in setting.kinds and isinstance(value, str) else value
    try:
        script.arguments(**values)
    except RecipeError as error:
        return str(error).splitlines()
    return []


def check_rewards(settings: dict[str, Any]) -> Iterator[Check]:
    """There is one weight for each reward. That their names exist, the script's arguments have checked."""
    if "rewards" not in settings and not settings.get("reward_model"):
        return
    names = as_list(settings.get("rewards"))
    weights = settings.get("reward_weights")
    functions = len(names) + bool(settings.get("reward_model"))
    if weights is not None and names and len(as_list(weights)) != functions:
        counted = "rewards and the reward model" if settings.get("reward_model") else "rewards"
        problem = f"reward_weights has {len(as_list(weights))} numbers for {functions} {counted}"
        yield Check("rewards", PROBLEM, problem)
    elif names and all(str(name) in REWARDS for name in names):
        yield Check("rewards", OK, ", ".join(map(str, names)))


def check_batch(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """GRPO compares `num_generations` completions of one prompt, so a step must hold whole groups of them."""
    if request.script is None or request.script.config != "trl.GRPOConfig":
        return
    defaults = load_signature(request.script.config)

    def number(key: str) -> int | None:
        value = settings.get(key, defaults[key].default)
        return int(value) if value is not None and str(value).lstrip("-").isdigit() else None

    processes = request.hosts * request.processes_per_host
    per_device, group = number("per_device_train_batch_size"), number("num_generations")
    accumulation, per_generation = number("gradient_accumulation_steps"), number("steps_per_generation")
    if per_device is None or group is None or accumulation is None:
        return  # a value of the wrong kind, which check_recipe reports
    batch = number("generation_batch_size") or per_device * processes * (per_generation or accumulation)
    sum_text = f"{batch} completions a step on {processes} process{'es' if processes > 1 else ''}"
    if group < 2:
        yield Check("batch", PROBLEM, f"num_generations is {group}: an advantage needs a group of 2 or more")
    elif batch % group:
        yield Check(
            "batch",
            PROBLEM,
            f"{sum_text} are not whole groups of num_generations = {group}: change per_device_train_batch_size "
            f"({per_device}), gradient_accumulation_steps ({accumulation}) or the number of processes",
        )
    elif batch % (per_device * processes):
        yield Check(
            "batch",
            PROBLEM,
            f"generation_batch_size {batch} is not a multiple of {per_device} x {processes} processes",
        )
    else:
        yield Check("batch", OK, f"{sum_text}: {batch // group} prompts x {group} completions each")


def check_model(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """The models a recipe names exist, as far as that can be known from here."""
    for key in ("base_model", "reward_model"):
        spec = settings.get(key)
        if not isinstance(spec, str):
            continue
        source, _, name = spec.partition(":")
        if source not in MODEL_SOURCES or not name:
            forms = "asset:tiny, pypi:smollm2, hub:ORG/NAME or channel:NAME"
            yield Check(key, PROBLEM, f"{spec!r} says no source; write {forms}")
        elif source == "asset":
            yield _check_asset(key, name, request.source_dir)
        elif source == "channel":
            found = name in dict(request.channels)
            missing = f"{spec!r} needs a channel: add InputData(channel_name={name!r}, data_source=...)"
            yield Check(key, OK if found else PROBLEM, spec if found else missing)
        elif source == "hub":
            yield _check_hub(key, name)
        elif name not in PACKAGED_MODELS:
            yield Check(key, PROBLEM, f"no package holds {name!r}; known: {', '.join(PACKAGED_MODELS)}")
        else:
            yield Check(key, OK, spec)


def _check_asset(key: str, name: str, source_dir: Path | None) -> Check:
    if source_dir is None:
        return Check(key, NOTE, f"asset:{name} (the source is not on this machine, so not checked)")
    assets = source_dir / "assets"
    if (assets / name / "config.json").is_file():
        return Check(key, OK, f"asset:{name}")
    there = sorted(path.parent.name for path in assets.glob("*/config.json"))
    return Check(
        key, PROBLEM, f"there is no asset {name!r} in the source (there: {', '.join(there) or 'none'})"
    )


def _check_hub(key: str, name: str) -> Check:
    """Ask the Hugging Face Hub (HF_ENDPOINT, as its own libraries do) whether it has the model."""
    address = f"{environ.get('HF_ENDPOINT', 'https://huggingface.co')}/api/models/{name}"
    try:
        with urllib.request.urlopen(address, timeout=_HUB_TIMEOUT_S):
            return Check(key, OK, f"hub:{name}")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return Check(
                key, PROBLEM, f"the Hugging Face Hub has no public model {name!r}: check the spelling"
            )
        return Check(key, WARNING, f"hub:{name}: the Hub answered {error.code}, so not checked")
    except (OSError, ValueError) as error:
        return Check(
            key, WARNING, f"hub:{name}: the Hub cannot be reached from here ({error}), so not checked"
        )


def check_script(request: JobRequest) -> Iterator[Check]:
    """The entry script parses, and every channel that it always reads is given."""
    if request.source_dir is None or not request.entry_script:
        return
    script = request.source_dir / request.entry_script
    if not script.is_file():
        yield Check("script", PROBLEM, f"there is no {request.entry_script} in {request.source_dir}")
        return
    if script.suffix != ".py":
        yield Check("script", OK, request.entry_script)
        return
    try:
        tree = ast.parse(script.read_text(encoding="utf-8"), str(script))
    except (SyntaxError, UnicodeDecodeError) as error:
        yield Check("script", PROBLEM, f"{request.entry_script} is not valid Python: {error}")
        return
    yield Check("script", OK, request.entry_script)
    given = [name for name, _ in request.channels]
    for name in sorted(_channels_read(tree) - set(given)):
        yield Check(
            "channels",
            PROBLEM,
            f"{request.entry_script} reads the channel {name!r}, which is not given (given: {', '.join(given) or 'none'}): "
            f'add InputData(channel_name="{name}", data_source=...)',
        )


def _channels_read(tree: ast.AST) -> set[str]:
    """Names in calls `channel("name")`, those under an `if` or `try` left out: they may never run."""
    names: set[str] = set()
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If | ast.IfExp | ast.Try):
            if not (isinstance(node, ast.If) and "__main__" in ast.unparse(node.test)):
                continue
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", None)
            if called == "channel":
                names.add(str(node.args[0].value))
        names |= _channels_read(node)
    return names


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


def as_list(value: Any) -> list:
    """A list, the list that a text spells, a single value as a list of one; None as an empty one."""
    if isinstance(value, str) and re.match(r"\s*\[", value):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return [value]
    return value if isinstance(value, list) else [] if value is None else [value]
