"""Which keys verl has, for checking a recipe where verl is not installed.

verl_known_keys.json is written by `python verl_known_keys.py`, in the environment of this module's jobs; a test compares it
with the verl that is installed there.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rl.spelling import unknown_name

# Sections that verl keeps open: a recipe may put any key there, everywhere else only what verl knows.
OPEN_SECTIONS = (
    "ray_kwargs.ray_init",
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.actor.fsdp_config",
    "actor_rollout_ref.ref.fsdp_config",
    "actor_rollout_ref.actor.megatron.override_transformer_config",
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "reward.custom_reward_function",
    "data.apply_chat_template_kwargs",
)
_FILE = Path(__file__).with_suffix(".json")


def unknown_keys(settings: dict[str, Any], engine: str) -> Iterator[str]:
    """What is wrong with keys of a recipe: verl has no such key with this engine, or it is a switch or a number, and the
    value is neither. (verl itself refuses the first a quarter of a minute into the job, and takes any text for true.)"""
    known = _known().get(engine, {})
    if not known:  # of which key_problems and verl_layout tell
        return
    sections = {key[:dot] for key in known for dot in range(len(key)) if key[dot] == "."}
    yield from _below(settings, "", known, sections)


def _below(found: dict[str, Any], above: str, known: dict[str, str], sections: set[str]) -> Iterator[str]:
    for name, value in found.items():
        key = f"{above}{name}"
        if key in OPEN_SECTIONS:
            continue
        if key in sections:
            if isinstance(value, dict):
                yield from _below(value, f"{key}.", known, sections)
            elif value is not None:
                yield f"{key} is {value!r}, but it is a section: keys of its own stand below it."
        elif key not in known:
            yield unknown_name("key of verl", key, [*known, *sections])
        elif not _fits(value, known[key]):
            wanted = "true or false" if known[key] == "bool" else "a number"
            yield f"{key} is {value!r}: write {wanted}."


def _fits(value: Any, kind: str) -> bool:
    if value is None or kind == "any" or (isinstance(value, str) and "${" in value):
        return True
    return isinstance(value, bool) if kind == "bool" else type(value) in (int, float)


@functools.cache
def _known() -> dict[str, dict[str, str]]:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def installed_keys() -> dict[str, dict[str, str]]:
    """What verl_known_keys.json has to hold for the installed verl: engine -> key -> bool, number or any, as its default is."""
    from hydra import compose, initialize_config_module
    from omegaconf import OmegaConf

    found = {}
    for engine in ("dp", "megatron"):
        with initialize_config_module("verl.trainer.config", version_base=None):
            config = compose("ppo_trainer", overrides=[f"model_engine={engine}"])
        found[engine] = dict(sorted(_kinds(OmegaConf.to_container(config))))
    return found


def _kinds(section: Any, above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in section.items():
        if isinstance(value, dict) and value:
            yield from _kinds(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", {bool: "bool", int: "number", float: "number"}.get(type(value), "any")


if __name__ == "__main__":
    _FILE.write_text(json.dumps(installed_keys(), indent=0) + "\n", encoding="utf-8")
