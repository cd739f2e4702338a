"""A variant of a recipe that is nested, as verl's are: keys with dots in them become overrides "key.of.verl=value".

The form of such a recipe is the module's own matter (05: verl_recipe), and its script checks it before anything else.
"""

import json
from typing import Any

SECTION = "job"  # holds what is the workshop's; every other key is verl's
SEED = "data.seed"
# Dozens of runs belong into no tracker.
LEAN = {"job.report_to": []}
# What says nothing of a result: names, reports, checkpoints. The seed stands beside the fingerprint.
NO_SETTINGS = ("job.module", "job.recipe", "job.report_to", "job.run_name", SEED)
NO_SETTINGS += ("trainer.save_freq", "trainer.max_actor_ckpt_to_keep")


def is_nested(recipe: dict[str, Any]) -> bool:
    """Whether a recipe has sections."""
    return isinstance(recipe.get(SECTION), dict)


def as_overrides(changes: dict[str, Any]) -> list[str]:
    """What the script takes on top of its recipe: {"data.seed": 1} becomes ["data.seed=1"]. JSON is YAML, too."""
    return [f"{key}={json.dumps(value)}" for key, value in changes.items()]


def flattened(recipe: dict[str, Any], above: str = "") -> dict[str, Any]:
    """Every value by its whole name, {"data": {"seed": 1}} as {"data.seed": 1}."""
    found: dict[str, Any] = {}
    for key, value in recipe.items():
        name = f"{above}{key}"
        found |= flattened(value, f"{name}.") if isinstance(value, dict) and value else {name: value}
    return found


def settings_that_count(recipe: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """What decides a run's result, but for its seed: the recipe with the changes, by whole names."""
    read = {**flattened(recipe), **changes}
    return {key: value for key, value in read.items() if key not in NO_SETTINGS}
