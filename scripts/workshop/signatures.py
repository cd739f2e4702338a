"""Which settings the trainers' configs have, for checking a recipe where TRL is not installed.

signatures.json is generated from the pinned versions by `python -m workshop.signatures`, in an environment that has
them (requirements-dev.txt); a test compares it with what is installed.
"""

import dataclasses
import enum
import functools
import importlib
import json
import types
import typing
from importlib import metadata
from pathlib import Path
from typing import Any

CONFIGS = ("trl.GRPOConfig", "trl.DPOConfig", "trl.RewardConfig", "transformers.TrainingArguments")
_FILE = Path(__file__).with_name("signatures.json")
_PLAIN = {
    bool: "bool",
    int: "int",
    float: "float",
    str: "str",
    type(None): "null",
    dict: "dict",
    list: "list",
}


@dataclasses.dataclass(frozen=True)
class Setting:
    """One field of a config: the kinds of value it takes, its choices (empty: any) and its default (if JSON can)."""

    kinds: tuple[str, ...]
    choices: tuple[str, ...] = ()
    default: Any = None


def describe_config(config: type) -> dict[str, Setting]:
    """The settings of a dataclass, by name."""
    hints = typing.get_type_hints(config)
    return {
        field.name: _setting(hints[field.name], _default(field))
        for field in dataclasses.fields(config)
        if field.init
    }


def load_signature(config: str) -> dict[str, Setting]:
    """The settings of `config` (a name in CONFIGS), from signatures.json. Raises KeyError for another name."""
    settings = _read()["configs"][config]
    return {
        name: Setting(tuple(found["kinds"]), tuple(found.get("choices", ())), found.get("default"))
        for name, found in settings.items()
    }


def pinned_versions() -> dict[str, str]:
    """The versions that signatures.json was generated from."""
    return dict(_read()["versions"])


def problem_with(value: Any, setting: Setting) -> str | None:
    """Why `setting` does not take `value`, or None when it does. Text counts as the number or list that it spells."""
    if not _accepts(value, setting.kinds):
        wanted = " or ".join(kind for kind in setting.kinds if kind != "null")
        problem = f"must be {wanted}, not {json.dumps(value, default=str)}"
        if isinstance(value, bool) and "str" in setting.kinds:
            problem += (
                '; YAML reads yes, no, on and off as true and false, so write the word in quotes ("no")'
            )
        return problem
    if setting.choices and isinstance(value, str) and value not in setting.choices:
        return f"must be one of {', '.join(setting.choices)}, not {json.dumps(value)}"
    return None


def _accepts(value: Any, kinds: tuple[str, ...]) -> bool:
    if not isinstance(value, list):  # one value alone counts as a list of one, as on a command line
        kinds += tuple(kind[5:-1] for kind in kinds if kind.startswith("list["))
    if "any" in kinds:
        return True
    if value is None:
        return "null" in kinds
    if isinstance(value, bool):
        return "bool" in kinds
    if isinstance(value, int):
        return bool({"int", "float", "str"} & set(kinds))
    if isinstance(value, float):
        return bool({"float", "str"} & set(kinds))
    if isinstance(value, str):
        return "str" in kinds or _spells(value, kinds)
    if isinstance(value, dict):
        return "dict" in kinds
    if isinstance(value, list):
        elements = {kind[5:-1] for kind in kinds if kind.startswith("list[")}
        return "list" in kinds or any(all(_accepts(item, (kind,)) for item in value) for kind in elements)
    return False


def _spells(text: str, kinds: tuple[str, ...]) -> bool:
    """Whether text, as YAML 1.1 leaves 1e-5 and as a command line leaves everything, stands for one of `kinds`."""
    if "null" in kinds and text == "null":
        return True
    if "bool" in kinds and text.lower() in ("true", "false"):
        return True
    for kind, convert in (("int", int), ("float", float)):
        if kind in kinds:
            try:
                convert(text)
                return True
            except ValueError:
                continue
    if text[:1] in ("[", "{"):
        try:
            return _accepts(json.loads(text), kinds)
        except json.JSONDecodeError:
            return False
    return False


def _setting(hint: Any, default: Any) -> Setting:
    kinds, choices = [], []
    for option in _options(hint):
        origin = typing.get_origin(option)
        if isinstance(option, type) and issubclass(option, enum.Enum):
            kinds.append("str")
            choices += [str(member.value) for member in option]
        elif origin is typing.Literal:
            kinds += [_PLAIN[type(value)] for value in typing.get_args(option)]
            choices += [value for value in typing.get_args(option) if isinstance(value, str)]
        elif origin is list and typing.get_args(option) and typing.get_args(option)[0] in _PLAIN:
            kinds.append(f"list[{_PLAIN[typing.get_args(option)[0]]}]")
        else:
            kinds.append(_PLAIN.get(origin or option, "any"))
    return Setting(tuple(dict.fromkeys(kinds)), tuple(dict.fromkeys(choices)), default)


def _options(hint: Any) -> list[Any]:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [option for part in typing.get_args(hint) for option in _options(part)]
    return [hint]


def _default(field: dataclasses.Field) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        default = field.default_factory()
    else:
        default = None if field.default is dataclasses.MISSING else field.default
    if isinstance(default, enum.Enum):
        default = default.value
    return default if isinstance(default, (bool, int, float, str, list, dict)) else None


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
