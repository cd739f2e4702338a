"""Which jobs answer an experiment's question: settings in full, their fingerprint, and what is still to be made.

Two variants with the same settings are one job, also where they belong to different experiments of a module.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from job.arguments import RecipeError
from job.recipe import read_recipe, setting_problems
from rl.tasks import FORMAT_INSTRUCTIONS
from workshop.checks.request import read_script
from workshop.checks.signatures import load_signature
from workshop.session.machines import read_machine, read_machines

from seeds import nested
from seeds.experiments import Data, Experiment, ExperimentError, Source, Variant

DIGITS = 12  # of a fingerprint
# What says nothing of a result: names, reports, checkpoints. The seed stands beside the fingerprint.
NO_SETTINGS = ("module", "recipe", "experiment", "seed", "report_to", "run_name", "disable_tqdm")
NO_SETTINGS += ("save_strategy", "save_steps", "save_total_limit", "config")
# Dozens of runs belong into no tracker, and nothing goes on from their checkpoints.
LEAN = {"report_to": "none", "save_strategy": "no"}
# A variant's own recipe is about the same model on the same device as the experiment's.
SAME_MODEL = ("base_model", "use_cpu", "bf16")


@dataclass(frozen=True)
class Settings:
    """Everything that decides the result of a variant's runs, but for the seed.

    Attributes:
        machine: the recipe whose row of machines.yaml says what the job runs on.
        hyperparameters: as the job gets them, without the seed; of a nested recipe (verl's) its file and overrides.
        system_prompt: of the problems.
        seeded: whether the script reads a seed.
        needs: fingerprints of the variants that a channel comes from, by channel.
    """

    script: str
    machine: str
    hyperparameters: dict[str, Any]
    data: Data
    system_prompt: str | None
    channels: dict[str, Source]
    seeded: bool
    needs: dict[str, str]
    fingerprint: str

    @property
    def nested(self) -> bool:
        """Whether the recipe is verl's, whose script runs on a Ray cluster."""
        return "overrides" in self.hyperparameters

    def with_seed(self, seed: int) -> dict[str, Any]:
        """The hyperparameters of the job with this seed, as a request has them."""
        if self.nested:
            overrides = [*self.hyperparameters["overrides"], *nested.as_overrides({nested.SEED: seed})]
            return {**self.hyperparameters, "overrides": overrides}
        given = {**self.hyperparameters, **({"seed": seed} if self.seeded else {})}
        return {name: "null" if value is None else value for name, value in given.items()}


@dataclass(frozen=True)
class Run:
    """One job, and the places in the experiments that its results belong to."""

    settings: Settings
    seed: int
    places: tuple[tuple[str, str], ...]  # (experiment, variant)

    @property
    def key(self) -> tuple[str, int]:
        return self.settings.fingerprint, self.seed

    @property
    def needs(self) -> list[tuple[str, int]]:
        """Keys of the runs that it starts from."""
        return [(fingerprint, self.seed) for fingerprint in self.settings.needs.values()]

    def __str__(self) -> str:
        experiment, variant = self.places[0]
        return f"{experiment}, {variant}, seed {self.seed}"


def settings_of(module: Path, experiment: Experiment) -> dict[str, Settings]:
    """The settings of each variant.

    Raises ExperimentError: a script, recipe or hyperparameter that there is not; MachineError: machines.yaml has no row for
    the recipe.
    """
    read_machine(module / "machines.yaml", experiment.recipe)
    problems: list[str] = []
    found: dict[str, Settings] = {}

    def resolve(name: str) -> Settings | None:
        if name not in found:
            channels = experiment.variants[name].channels.items()
            needs = {channel: resolve(source.of) for channel, source in channels if source.kind != "split"}
            try:
                if all(needs.values()):
                    fingerprints = {channel: need.fingerprint for channel, need in needs.items() if need}
                    found[name] = _settings(module, experiment, experiment.variants[name], fingerprints)
            except RecipeError as error:
                problems.extend(f"{experiment.name}, {name}: {line}" for line in str(error).splitlines())
        return found.get(name)

    for name in experiment.variants:
        resolve(name)
    if problems:
        raise ExperimentError("\n".join(dict.fromkeys(problems)))
    return {name: found[name] for name in experiment.variants}


def _settings(module: Path, experiment: Experiment, variant: Variant, needs: dict[str, str]) -> Settings:
    """Raises RecipeError with one problem a line."""
    scripts, script = module / "scripts", variant.script or experiment.script
    main_recipe = read_recipe(scripts / "recipes" / f"{experiment.recipe}.yaml")
    name, recipe = experiment.recipe, main_recipe
    if variant.recipe:
        on_gpu = scripts / "recipes" / f"{variant.recipe}_gpu.yaml"
        name = on_gpu.stem if on_gpu.is_file() and not main_recipe.get("use_cpu") else variant.recipe
        recipe = read_recipe(scripts / "recipes" / f"{name}.yaml")
    if not (scripts / script).is_file():
        raise RecipeError(f"there is no {script} in {scripts}")
    if nested.is_nested(recipe):
        return _nested_settings(scripts, script, recipe, name, experiment, variant, needs)
    reader = read_script(scripts, script)
    if reader is None:
        raise RecipeError(
            f"{scripts / 'arguments.py'} does not say what {script} reads: give it an entry in SCRIPTS"
        )
    reads = reader.reads(load_signature)

    changes = dict(LEAN)
    if variant.recipe:
        changes |= {key: main_recipe[key] for key in SAME_MODEL if key in recipe and key in main_recipe}
    if "per_device_train_batch_size" in recipe:
        # The step of all processes that the recipe is made for, on one.
        changes["per_device_train_batch_size"] = recipe["per_device_train_batch_size"] * _processes(
            module, name
        )
    changes = {key: value for key, value in changes.items() if key in reads}
    changes |= {} if variant.script else experiment.hyperparameters
    changes |= variant.hyperparameters
    if problems := setting_problems(recipe, changes, reads, reader.shared(load_signature)):
        raise RecipeError("\n".join(problems))

    settings = Settings(
        script=script,
        machine=experiment.recipe,
        hyperparameters={"config": f"recipes/{name}.yaml", **changes},
        data=experiment.data,
        system_prompt=None if main_recipe.get("base_model") == "asset:tiny" else FORMAT_INSTRUCTIONS,
        channels=variant.channels,
        seeded="seed" in reads,
        needs=needs,
        fingerprint="",
    )
    return dataclasses.replace(settings, fingerprint=_fingerprint(scripts, recipe, settings, set(reads)))


def _nested_settings(
    scripts: Path,
    script: str,
    recipe: dict[str, Any],
    name: str,
    experiment: Experiment,
    variant: Variant,
    needs: dict[str, str],
) -> Settings:
    own = {} if variant.script else experiment.hyperparameters
    changes = {**nested.LEAN, **own, **variant.hyperparameters}
    read = nested.settings_that_count(recipe, changes)
    base_model = read.get(f"{nested.SECTION}.base_model")
    settings = Settings(
        script=script,
        machine=experiment.recipe,
        hyperparameters={"config": f"recipes/{name}.yaml", "overrides": nested.as_overrides(changes)},
        data=experiment.data,
        system_prompt=None if base_model == "asset:tiny" else FORMAT_INSTRUCTIONS,
        channels=variant.channels,
        seeded=True,
        needs=needs,
        fingerprint="",
    )
    code = [*(read.get(f"{nested.SECTION}.rewards") or []), read.get(f"{nested.SECTION}.verifier", "")]
    return dataclasses.replace(settings, fingerprint=_digest(scripts, settings, read, code))


def _processes(module: Path, recipe: str) -> int:
    """Processes that train together with a recipe in the notebook; 1 for one that machines.yaml does not list."""
    row = read_machines(module / "machines.yaml").get(recipe, {"instance_count": 1, "process_count": 1})
    return row["instance_count"] * row["process_count"]


def _fingerprint(scripts: Path, recipe: dict[str, Any], settings: Settings, reads: set[str]) -> str:
    """Of a flat recipe: what the script reads of it."""
    read = {**recipe, **settings.hyperparameters}
    read = {key: value for key, value in read.items() if key in reads and key not in NO_SETTINGS}
    return _digest(scripts, settings, read, [*(read.get("rewards") or []), read.get("verifier", "")])


def _digest(scripts: Path, settings: Settings, read: dict[str, Any], code: Iterable[str]) -> str:
    """The same for the same settings, however they are spelled; files of one's own code count with their content.

    Args:
        read: the recipe with the changes, as far as it decides the result.
        code: names of rewards and verifier; file.function is one's own.
    """
    own = {f"{name.partition('.')[0]}.py" for name in (*code, settings.data.function) if "." in name}
    content = {
        "script": settings.script,
        "settings": read,
        "data": dataclasses.asdict(settings.data),
        "system prompt": settings.system_prompt,
        "channels": {
            channel: [source.kind, settings.needs.get(channel, source.of), source.file]
            for channel, source in settings.channels.items()
        },
        "own code": {
            file: (scripts / file).read_text() for file in sorted(own) if (scripts / file).is_file()
        },
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:DIGITS]


def wanted_runs(
    experiments: Iterable[tuple[Experiment, dict[str, Settings]]], seeds: Iterable[int]
) -> list[Run]:
    """All runs of the experiments, the first seed's first; `seeds` take the place of an experiment's own, if any."""
    seeds = tuple(seeds)
    settings_by_key: dict[tuple[str, int], Settings] = {}
    places: dict[tuple[str, int], list[tuple[str, str]]] = {}
    order = [
        (number, experiment, variant, settings, seed)
        for experiment, variants in experiments
        for number, seed in enumerate(seeds or experiment.seeds)
        for variant, settings in variants.items()
    ]
    for _, experiment, variant, settings, seed in sorted(order, key=lambda entry: entry[0]):
        key = settings.fingerprint, seed
        settings_by_key[key] = settings
        places.setdefault(key, []).append((experiment.name, variant))
    return [Run(settings, key[1], tuple(places[key])) for key, settings in settings_by_key.items()]


def missing_runs(
    wanted: list[Run], is_recorded: Callable[[Run], bool], has_output: Callable[[Run], bool]
) -> list[Run]:
    """The runs to make, each behind those that it starts from.

    A run is made again, though its figures are recorded, where another one starts from its output and that is gone.
    """
    by_key = {run.key: run for run in wanted}
    found: dict[tuple[str, int], Run] = {}

    def add(run: Run) -> None:
        for key in run.needs:
            if key not in found and not has_output(by_key[key]):
                add(by_key[key])
        found[run.key] = run

    for run in wanted:
        if not is_recorded(run) and run.key not in found:
            add(run)
    return list(found.values())
