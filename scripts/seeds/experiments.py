"""What is compared: a module's recorded/experiments.yaml, read and checked. docs/recorded-runs.md describes its keys."""

import re
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.arguments import RecipeError
from job.recipe import read_recipe
from rl.spelling import unknown_name
from rl.tasks import TASKS
from workshop.errors import WorkshopError

FILE = Path("recorded") / "experiments.yaml"
KEYS = ("question", "script", "recipe", "data", "hyperparameters", "seeds", "variants")
DATA_KEYS = ("task", "splits", "seed", "function")
VARIANT_KEYS = ("script", "recipe", "channels")  # the others are hyperparameters
_SOURCE = re.compile(
    r"split (?P<split>.+)|(?P<kind>model|training pairs|validation pairs) of (?P<variant>.+)"
    r"|output of (?P<maker>[^/]+)/(?P<file>.+)"
)
_FORMS = (
    "'split NAME' (of the data), 'model of VARIANT', 'output of VARIANT/FILE', 'training pairs of VARIANT' or "
    "'validation pairs of VARIANT'"
)


class ExperimentError(WorkshopError):
    """experiments.yaml cannot be used; the message lists every problem and where it stands."""


@dataclass(frozen=True)
class Source:
    """What a channel holds.

    Attributes:
        kind: split, model, output, training pairs or validation pairs.
        of: the split, or the variant whose run with the same seed left it.
        file: of the variant's output; for `output` only.
    """

    kind: str
    of: str
    file: str = ""


@dataclass(frozen=True)
class Data:
    """The problems, the same for all seeds: of a task, or what a function of one's own makes."""

    seed: int
    task: str = ""
    splits: dict[str, int] = field(default_factory=dict)  # problems in each
    function: str = ""  # file.function in the module's scripts: function(seed) -> {split: rows}


@dataclass(frozen=True)
class Variant:
    """One of the things that are compared."""

    hyperparameters: dict[str, Any]
    script: str = ""  # empty: the experiment's
    recipe: str = ""  # empty: the experiment's
    channels: dict[str, Source] = field(default_factory=dict)

    @property
    def needs(self) -> list[str]:
        """The variants whose output it starts from."""
        return [source.of for source in self.channels.values() if source.kind != "split"]


@dataclass(frozen=True)
class Experiment:
    """A question, and the variants whose runs answer it."""

    name: str
    question: str
    script: str
    recipe: str
    data: Data
    seeds: tuple[int, ...]
    hyperparameters: dict[str, Any]  # of the variants that run the experiment's own script
    variants: dict[str, Variant]


def read_experiments(module: Path) -> dict[str, Experiment]:
    """The experiments of a module's folder, by name. Raises ExperimentError with all that is wrong."""
    path = module / FILE
    if not path.is_file():
        raise ExperimentError(f"There is no {path}: {module.name} has no experiments.")
    try:
        content = read_recipe(path)
    except RecipeError as error:
        raise ExperimentError(str(error)) from error
    problems: list[str] = []
    experiments = {}
    for name, value in content.items():
        found = [f"{name}: {problem}" for problem in _problems(name, value)]
        problems += found
        if not found:
            experiments[name] = _experiment(name, value)
    if problems:
        raise ExperimentError("\n".join([f"{path}:", *(f"  {problem}" for problem in problems)]))
    return experiments


def _problems(name: str, value: Any) -> Iterator[str]:
    if not re.fullmatch(r"[a-z0-9_]+", name) or name.endswith("_curves"):
        yield "an experiment's name is that of a file: small letters, digits and _"
    if not isinstance(value, dict):
        yield f"must be a mapping with {', '.join(KEYS)}"
        return
    yield from _unknown(value, KEYS, "key")
    for key in KEYS:
        if key not in value and key != "hyperparameters":
            yield f"{key} is missing"
    for key in ("question", "script", "recipe"):
        if key in value and not (isinstance(value[key], str) and value[key].strip()):
            yield f"{key} must be a text, not {value[key]!r}"
    if not isinstance(value.get("hyperparameters", {}), dict):
        yield "hyperparameters must be a mapping"
    seeds = value.get("seeds", [1])
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int for seed in seeds):
        yield f"seeds must be a list of whole numbers, not {seeds!r}"
    splits = yield from _data_problems(value.get("data", {}))
    yield from _variants_problems(value.get("variants", {}), splits)


def _data_problems(data: Any) -> Generator[str, None, set[str] | None]:
    """What is wrong with the key data. Returns the names of its splits; None: they are not known."""
    if not isinstance(data, dict):
        yield "data must be a mapping: {task: chain_sum, splits: {train: 2000, test: 300}, seed: 42}"
        return None
    yield from (f"data: {problem}" for problem in _unknown(data, DATA_KEYS, "key"))
    if data and type(data.get("seed")) is not int:
        yield f"data: seed must be a whole number, not {data.get('seed')!r}"
    if "function" in data:
        if "task" in data or "splits" in data:
            yield "data: give a function, or a task with splits, not both"
        if not re.fullmatch(r"\w+\.\w+", str(data["function"])):
            yield f"data: function must be file.function in the module's scripts, not {data['function']!r}"
        return None
    if data and data.get("task") not in TASKS:
        yield f"data: {unknown_name('task', str(data.get('task')), TASKS)}"
    splits = data.get("splits", {})
    if data and not (isinstance(splits, dict) and splits and all(type(n) is int for n in splits.values())):
        yield f"data: splits must say how many problems each has, such as {{train: 2000, test: 300}}, not {splits!r}"
        return None
    return set(splits)


def _variants_problems(variants: Any, splits: set[str] | None) -> Iterator[str]:
    if not isinstance(variants, dict) or not variants:
        yield "variants must be a mapping: a name, and what is different in it"
        return
    sources: dict[str, list[str]] = {}
    for name, value in variants.items():
        if not isinstance(name, str) or not name.strip() or "/" in name:
            yield f"the variant {name!r} needs a text without / for a name: put it in quotes"
        elif not isinstance(value, dict):
            yield f"{name}: must be a mapping of hyperparameters ({{}} for none)"
        else:
            channels = value.get("channels", {})
            for key in ("script", "recipe"):
                if not isinstance(value.get(key, ""), str):
                    yield f"{name}: {key} must be a text, not {value[key]!r}"
            yield from (f"{name}: {problem}" for problem in _channel_problems(channels, variants, splits))
            found = channels.values() if isinstance(channels, dict) else []
            sources[name] = [source.of for text in found if (source := _source(text)) is not None]
    if circle := _circle(sources):
        yield f"these variants wait for each other: {' -> '.join(circle)}"


def _channel_problems(channels: Any, variants: dict, splits: set[str] | None) -> Iterator[str]:
    if not isinstance(channels, dict):
        yield "channels must be a mapping: a channel, and what it holds"
        return
    for channel, text in channels.items():
        source = _source(text)
        if source is None:
            yield f"channel {channel}: {text!r} is none of {_FORMS}"
        elif source.kind == "split":
            if splits is not None and source.of not in splits:
                yield f"channel {channel}: {unknown_name('split', source.of, splits)}"
        elif source.of not in variants:
            yield f"channel {channel}: {unknown_name('variant', source.of, map(str, variants))}"


def _source(text: Any) -> Source | None:
    match = _SOURCE.fullmatch(str(text))
    if match is None:
        return None
    if match["split"]:
        return Source("split", match["split"])
    if match["file"]:
        return Source("output", match["maker"], match["file"])
    return Source(match["kind"], match["variant"])


def _circle(needs: dict[str, list[str]]) -> list[str]:
    """Names that wait for each other, the first of them again at the end; none: the variants can be put in order."""
    left = {name: [other for other in others if other in needs] for name, others in needs.items()}
    while ready := [name for name, others in left.items() if not others]:
        left = {name: [o for o in others if o not in ready] for name, others in left.items() if others}
    if not left:
        return []
    path = [next(iter(left))]
    while path[-1] not in path[:-1]:
        path.append(left[path[-1]][0])
    return path[path.index(path[-1]) :]


def _unknown(value: dict, known: tuple[str, ...], kind: str) -> list[str]:
    return [unknown_name(kind, str(key), known) for key in value if key not in known]


def _experiment(name: str, value: dict[str, Any]) -> Experiment:
    variants = {}
    for variant, given in value["variants"].items():
        channels = {channel: _source(text) for channel, text in given.get("channels", {}).items()}
        variants[variant] = Variant(
            hyperparameters={key: given[key] for key in given if key not in VARIANT_KEYS},
            script=given.get("script", ""),
            recipe=given.get("recipe", ""),
            channels={channel: source for channel, source in channels.items() if source},
        )
    return Experiment(
        name=name,
        question=" ".join(value["question"].split()),
        script=value["script"],
        recipe=value["recipe"],
        data=Data(**value["data"]),
        seeds=tuple(value["seeds"]),
        hyperparameters=value.get("hyperparameters", {}),
        variants=variants,
    )
