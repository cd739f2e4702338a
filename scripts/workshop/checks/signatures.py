"""Which settings the trainers' configs have, for checking a recipe where TRL is not installed.

signatures.json is generated from the pinned versions by `python -m workshop.checks.signatures`, in an environment that
has them (requirements-dev.txt); a test compares it with what is installed.
"""

import dataclasses
import functools
import importlib
import json
from importlib import metadata
from pathlib import Path

from job.settings import Setting, describe_config

CONFIGS = (
    "trl.GRPOConfig",
    "trl.RLOOConfig",
    "trl.DistillationConfig",
    "trl.DPOConfig",
    "trl.RewardConfig",
    "transformers.TrainingArguments",
)
# Of those: completions of one prompt are compared, so that a step holds whole groups of num_generations.
GROUPED = ("trl.GRPOConfig", "trl.RLOOConfig")
_FILE = Path(__file__).with_name("signatures.json")


def load_signature(config: str) -> dict[str, Setting]:
    """The settings of `config` (a name in CONFIGS), from signatures.json. Raises KeyError for another name."""
    settings = _read()["configs"][config]
    return {
        name: Setting(tuple(found["kinds"]), tuple(found.get("choices", ())), found.get("default"))
        for name, found in settings.items()
    }


@functools.cache
def _read() -> dict:
    return json.loads(_FILE.read_text(encoding="utf-8"))


def installed_signatures() -> dict:
    """What signatures.json has to hold for the installed versions of TRL and transformers."""
    configs = {}
    for name in CONFIGS:
        module, _, config = name.rpartition(".")
        settings = describe_config(getattr(importlib.import_module(module), config))
        configs[name] = {
            setting: {
                key: value for key, value in dataclasses.asdict(found).items() if value not in (None, ())
            }
            for setting, found in sorted(settings.items())
        }
    versions = {package: metadata.version(package) for package in ("transformers", "trl")}
    return json.loads(json.dumps({"versions": versions, "configs": configs}))


def main() -> None:
    """Write signatures.json, one setting a line."""
    found = installed_signatures()
    lines = ['{"versions": ' + json.dumps(found["versions"]) + ",", ' "configs": {']
    for number, (name, settings) in enumerate(found["configs"].items()):
        lines.append(f'  "{name}": {{')
        lines.append(
            ",\n".join(f"   {json.dumps(key)}: {json.dumps(value)}" for key, value in settings.items())
        )
        lines.append("  }" + ("," if number < len(found["configs"]) - 1 else ""))
    _FILE.write_text("\n".join([*lines, " }}"]) + "\n", encoding="utf-8")
    print(f"{_FILE}: {', '.join(f'{name} {version}' for name, version in found['versions'].items())}")


if __name__ == "__main__":
    main()
