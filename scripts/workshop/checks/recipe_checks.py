"""Preflight of what the script will read: entry script, recipe and batch."""

import ast
import json
import re
from collections.abc import Iterator
from importlib.util import decode_source
from typing import Any

from job.arguments import RecipeError, Script
from job.recipe import read_recipe, setting_problems
from job.settings import describe_config, problem_with

from workshop.checks.request import NOTE, OK, PROBLEM, Check, JobRequest
from workshop.checks.signatures import GROUPED, load_signature


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


def check_batch(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """GRPO and RLOO compare `num_generations` completions of one prompt, so a step must hold whole groups of them."""
    if request.script is None or request.script.config not in GROUPED:
        return
    defaults = load_signature(request.script.config)

    def number(key: str) -> int | None:
        value = settings.get(key, defaults[key].default)
        return int(value) if value is not None and str(value).lstrip("-").isdigit() else None

    processes = request.hosts * request.processes_per_host
    per_device, group = number("per_device_train_batch_size"), number("num_generations")
    accumulation, per_generation = number("gradient_accumulation_steps"), number("steps_per_generation")
    if group is None or min(per_device or 0, accumulation or 0, processes) < 1:
        return  # a value of the wrong kind or out of its range, which check_recipe reports
    assert per_device and accumulation
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


def check_script(request: JobRequest) -> Iterator[Check]:
    """The entry script parses, and every channel that it always reads is given."""
    if request.source_dir is None or not request.entry_script:
        return
    script = request.source_dir / request.entry_script
    if not script.is_file():
        yield Check("script", PROBLEM, f"there is no file {request.entry_script} in {request.source_dir}")
        return
    if script.suffix != ".py":
        yield Check("script", OK, request.entry_script)
        return
    try:
        tree = ast.parse(decode_source(script.read_bytes()), str(script))
    # A zero byte is a ValueError.
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError) as error:
        yield Check("script", PROBLEM, f"{request.entry_script} is not valid Python: {error}")
        return
    yield Check("script", OK, request.entry_script)
    given = [name for name, _ in request.channels]
    for name in sorted(channels_read(tree) - set(given)):
        yield Check(
            "channels",
            PROBLEM,
            f"{request.entry_script} reads the channel {name!r}, which is not given (given: {', '.join(given) or 'none'}): "
            f'add InputData(channel_name="{name}", data_source=...)',
        )


def channels_read(tree: ast.AST) -> set[str]:
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
        names |= channels_read(node)
    return names


def as_list(value: Any) -> list:
    """A list, the list that a text spells, a single value as a list of one; None as an empty one."""
    if isinstance(value, str) and re.match(r"\s*\[", value):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return [value]
    return value if isinstance(value, list) else [] if value is None else [value]
