"""A recipe: the YAML file that says what a job does, and the command line that overrides it.

One file holds the script's own arguments (job.arguments) and those of the trainer's config (say `trl.GRPOConfig`) side
by side. SageMaker adds its hyperparameters to the command line, and those win:

    python train.py --config recipes/tiny.yaml --learning_rate 3e-4 --rewards '["accuracy", "format"]'
"""

import importlib
import re
import sys
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rl.spelling import unknown_name

from job.arguments import RecipeError, Script
from job.container import host_count, process_count
from job.forms import form_problems, read_json
from job.ranges import PASSED_OVER
from job.settings import Setting, describe_config, problem_with

# A recipe has a hundred lines; YAML's aliases can make a few bytes into more values than memory holds.
MOST_BYTES, MOST_VALUES, DEEPEST = 1_000_000, 10_000, 20


def read_recipe(path: Path | str) -> dict[str, Any]:
    """Content of a recipe file.

    Raises:
        RecipeError: no such file, one that cannot be read, not UTF-8, not YAML (with line and column), not a mapping, a key
            given twice, or more than a recipe can be: in bytes, in values, in depth.
    """
    path = Path(path)
    try:
        if not path.is_file():  # nor a pipe or a device, from which one could read for ever
            beside = sorted(str(path.parent / other.name) for other in path.parent.glob("*.yaml"))
            raise RecipeError(f"There is no recipe {path}. Recipes there: {', '.join(beside) or 'none'}.")
        if (size := path.stat().st_size) > MOST_BYTES:
            raise RecipeError(f"{path} has {size:,} bytes, which is no recipe: those have a few thousand.")
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, RecursionError, ValueError) as error:  # a number may have too many digits
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    except OSError as error:
        raise RecipeError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold lines of the form 'key: value'.")
    if _values_in(content) > MOST_VALUES:
        raise RecipeError(
            f"{path} holds more than {MOST_VALUES:,} values, or is nested more than {DEEPEST} deep: do its aliases (*name) "
            "stand in one another, or in themselves?"
        )
    return {str(key): value for key, value in content.items()}


def _values_in(content: Any, depth: int = 0) -> int:
    """How many values there are, each alias counted wherever it stands; more than MOST_VALUES where it is too deep."""
    if depth > DEEPEST:
        return MOST_VALUES + 1
    count = 1
    for below in (
        content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    ):
        count += _values_in(below, depth + 1)
        if count > MOST_VALUES:
            break
    return count


class _UniqueKeys(yaml.SafeLoader):
    """YAML itself lets the second of two equal keys win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                line = node.start_mark.line + 1 if node.start_mark else "?"
                raise yaml.YAMLError(f"the key '{key}' stands there twice, near line {line}")
        return super().construct_mapping(node, deep)


def read_command_line(argv: Sequence[str]) -> dict[str, Any]:
    """Settings in a command line of the forms `--key value`, `--key=value`, `--key a b` (a list) and `--key` (true).

    `null` is None. Values stay strings, except that several of them make a list.

    Raises:
        RecipeError: a value that belongs to no key.
    """
    settings: dict[str, Any] = {}
    key = None
    for token in argv:
        if re.match(r"--[A-Za-z]", token):
            key, equals, value = token[2:].partition("=")
            key = key.replace("-", "_")
            settings[key] = [value] if equals else []
        elif key is None:
            raise RecipeError(f"'{token}' on the command line belongs to no --key.")
        else:
            settings[key].append(token)
    plain = {name: values[0] if len(values) == 1 else values or True for name, values in settings.items()}
    return {name: None if value == "null" else value for name, value in plain.items()}


def setting_problems(
    recipe: Mapping[str, Any],
    overrides: Mapping[str, Any],
    reads: Mapping[str, Setting],
    shared: Mapping[str, Setting],
    where: str = "",
) -> list[str]:
    """What is wrong with the keys and values of a recipe and of the hyperparameters that override it.

    Args:
        recipe: the content of the recipe file.
        overrides: hyperparameters; they win.
        reads: the settings that the script reads.
        shared: settings of other scripts, which may stand in the recipe file but not among the hyperparameters.
        where: said behind an unknown key: where the known ones are described.
    """
    problems = []
    for key, value in {**recipe, **overrides}.items():
        origin = "hyperparameter" if key in overrides else "recipe key"
        if key == "config" or (key in shared and key not in reads and key not in overrides):
            continue
        if key not in reads and key in shared:
            problems.append(
                f"{origin} '{key}' is for another script of this folder: this one does not read it."
            )
        elif key not in reads:
            problems.append(unknown_name(origin, key, reads) + where)
        elif key in PASSED_OVER and value not in (None, "null"):
            problems.append(f"{origin} '{key}' would be passed over: {PASSED_OVER[key]}.")
        elif key == "hub_token" and value is not None:
            problems.append(
                f"{origin} 'hub_token': a secret belongs in no recipe and no request; name one in the "
                "job's environment instead, HF_SECRET_NAME."
            )
        elif problem := problem_with(value, reads[key]):
            problems.append(f"{origin} '{key}' {problem}")
    for key, problem in form_problems({**recipe, **overrides}):
        if key in reads:
            space = "" if problem[0] == ":" else " "
            problems.append(
                f"{'hyperparameter' if key in overrides else 'recipe key'} '{key}'{space}{problem}"
            )
    return problems


def parse_arguments(script: Script, argv: Sequence[str] | None = None) -> tuple[Any, Any]:
    """(the script's own arguments, the trainer's config or None), from the recipe and the command line.

    The recipe is the file behind `--config`. The work is done by `transformers.HfArgumentParser`, as in
    `trl.TrlParser`; around it, unknown keys and wrong values are refused for recipe and command line alike, and lists
    may come as one JSON argument, as SageMaker sends them.

    Raises:
        RecipeError: every key that is wrong, where it comes from and what it should be; or the script runs as more
            processes than it can use.
    """
    from transformers import HfArgumentParser

    classes = [script.arguments, *([config_class(script.config)] if script.config else [])]
    parser = HfArgumentParser(classes, allow_abbrev=False)
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv == [
        "--help"
    ]:  # and nothing else: among hyperparameters it would print the help, and the job complete
        parser.parse_args(argv)
    overrides = read_command_line(argv)
    recipe = read_recipe(overrides.pop("config")) if "config" in overrides else {}
    reads = script.reads(lambda name: describe_config(config_class(name)))
    shared = script.shared(lambda name: describe_config(config_class(name)))
    problems = setting_problems(recipe, overrides, reads, shared)
    if problem := script.process_problem(process_count(), host_count()):
        problems.append(problem)
    if problems:
        raise RecipeError("\n".join(problems))

    lists = {action.dest for action in parser._actions if action.nargs == "+"}
    arguments: list[str] = []
    for key, given in {**recipe, **overrides}.items():
        if key not in reads:
            continue
        value = _from_json(given, reads[key])
        if isinstance(value, list) and key in lists and value:
            arguments += [f"--{key}", *map(str, value)]
        elif value is None or isinstance(value, list | dict):
            parser.set_defaults(**{key: value})  # argparse has no way to write these
        else:
            arguments.append(f"--{key}={value}")

    def refuse(message: str) -> typing.NoReturn:
        raise RecipeError(message.replace("argument --", "", 1))

    parser.error = refuse
    *instances, remaining = parser.parse_args_into_dataclasses(
        arguments, return_remaining_strings=True, look_for_args_file=False
    )
    if remaining:
        raise RecipeError(f"These arguments belong to no key: {' '.join(remaining)}.")
    return instances[0], (instances[1] if script.config else None)


def config_class(name: str) -> type:
    """The class of a trainer's config: config_class("trl.GRPOConfig")."""
    module, _, cls = name.rpartition(".")
    return getattr(importlib.import_module(module), cls)


def _from_json(value: Any, setting: Setting) -> Any:
    """A list or mapping that arrived as JSON text, for a setting that takes one; anything else unchanged."""
    takes_list = any(kind.startswith("list") for kind in setting.kinds)
    if isinstance(value, str) and (
        (value[:1] == "[" and takes_list) or (value[:1] == "{" and "dict" in setting.kinds)
    ):
        try:
            return read_json(value)
        except ValueError:
            return value  # a setting that takes texts too
    return value
