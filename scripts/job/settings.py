"""What a setting takes: its kinds of value, its choices, its range (job/ranges.py).

Preflight and the job use this one check alike, so that a recipe which passes there is not refused here for a value of the
wrong kind. (verl's own keys, nested and Hydra's, have theirs in 05_grpo_verl/scripts/verl_keys.py.)
"""

import dataclasses
import enum
import json
import types
import typing
from typing import Any

from job.forms import FILES, read_json
from job.ranges import Range

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
    """One field of a config.

    Attributes:
        kinds: the kinds of value it takes: bool, int, float, str, null, dict, list, list[...] or any.
        choices: the texts it takes, in a list too; of a mapping, the keys; empty: any.
        default: its default, if JSON can hold it.
        range: the numbers it takes; None: any that can be computed with.
        reason: why it takes no others, where that needs to be said.
    """

    kinds: tuple[str, ...]
    choices: tuple[str, ...] = ()
    default: Any = None
    range: Range | None = None
    reason: str | None = None


def describe_config(config: type[Any]) -> dict[str, Setting]:
    """The settings of a dataclass, by name. It, and each class it is made of, may name limits in LEAST (numbers), RANGES
    and CHOICES."""
    hints = typing.get_type_hints(config)
    classes = [vars(cls) for cls in reversed(config.__mro__)]
    ranges = {name: Range(least=value) for cls in classes for name, value in cls.get("LEAST", {}).items()}
    ranges |= {name: value for cls in classes for name, value in cls.get("RANGES", {}).items()}
    choices = {name: value for cls in classes for name, value in cls.get("CHOICES", {}).items()}
    return {
        field.name: _setting(
            hints[field.name], _default(field), choices.get(field.name, ()), ranges.get(field.name)
        )
        for field in dataclasses.fields(config)
        if field.init
    }


def mapping_alone(name: str, setting: Setting) -> Setting:
    """Of a library's setting that is a mapping or a text: without the text, which would be JSON, and is read as such."""
    if "dict" not in setting.kinds or "str" not in setting.kinds or name in FILES:
        return setting
    return dataclasses.replace(setting, kinds=tuple(kind for kind in setting.kinds if kind != "str"))


def problem_with(value: Any, setting: Setting) -> str | None:
    """Why `setting` does not take `value`, or None if it does. Text counts as the number or list that it spells."""
    if not _accepts(value, setting.kinds):
        wanted = " or ".join(kind for kind in setting.kinds if kind != "null")
        problem = f"must be {wanted}, not {json.dumps(value, default=str)}"
        if "dict" in setting.kinds and isinstance(value, str):
            problem += '; write a mapping, which in a hyperparameter is a JSON object: {"name": 1}'
        if isinstance(value, bool) and "str" in setting.kinds:
            problem += (
                '; YAML reads yes, no, on and off as true and false, so write the word in quotes ("no")'
            )
        if value is None:
            problem += "; leave the line out to get the default"
        return problem
    if isinstance(value, str) and value[:1] in ("[", "{") and not _readable(value, setting.kinds):
        return f"begins like JSON, which it is not: {json.dumps(value)}"
    for word in _words(value) if setting.choices else ():
        word = word.lower() if "bool" in setting.kinds else word
        if word != "null" and word not in setting.choices:
            known = [choice for choice in setting.choices if choice]
            wanted = f"one of {', '.join(known)}" if len(known) > 1 else known[0]
            why = f": {setting.reason}" if setting.reason else ""
            return f"must be {wanted}, not {json.dumps(word)}{why}"
    if isinstance(value, str) and (unfit := _unfit(value)):
        return unfit
    return (setting.range or Range()).problem(_numbers(value)) if _takes_numbers(setting.kinds) else None


def _words(value: Any) -> list[str]:
    """The words that are compared with a setting's choices: the value, each item of a list, the keys of a mapping."""
    if isinstance(value, str) and value[:1] in ("[", "{"):
        try:
            value = read_json(value)
        except ValueError:
            return [value]
    if isinstance(value, list | dict):
        return [str(item) for item in value]
    return [] if value is None else [str(value)]


def _unfit(text: str) -> str | None:
    """Why no file, no log and no command line can hold a text."""
    if "\0" in text:
        return "holds a zero character, which no command line can carry"
    try:
        text.encode()
    except UnicodeEncodeError:
        return "holds half a character (a lone surrogate), which no file can hold"
    return None


def _readable(text: str, kinds: tuple[str, ...]) -> bool:
    """Whether a text that begins like a list or mapping can be read as one, where the setting takes that and no text."""
    takes = any(kind.startswith("list") for kind in kinds) if text[0] == "[" else "dict" in kinds
    if not takes or "str" in kinds:
        return True
    try:
        read_json(text)
    except ValueError:
        return False
    return True


def _takes_numbers(kinds: tuple[str, ...]) -> bool:
    return bool({"int", "float", "list[int]", "list[float]"} & set(kinds))


def _numbers(value: Any) -> list[float]:
    """The numbers that a value is, holds or spells; none if it is something else that the setting takes."""
    if isinstance(value, str) and value[:1] == "[":
        value = read_json(value)
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return []
    try:
        return [float(value)]
    except (ValueError, OverflowError):
        return []


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
    conversions: tuple[tuple[str, type], ...] = (("int", int), ("float", float))
    for kind, convert in conversions:
        if kind in kinds:
            try:
                convert(text)
                return True
            except ValueError:
                continue
    if text[:1] in ("[", "{"):
        try:
            return _accepts(read_json(text), kinds)
        except ValueError:
            return False
    return False


def _setting(hint: Any, default: Any, allowed: tuple[str, ...], limits: Range | None) -> Setting:
    kinds, choices = [], list(allowed)
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
    return Setting(tuple(dict.fromkeys(kinds)), tuple(dict.fromkeys(choices)), default, limits)


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
