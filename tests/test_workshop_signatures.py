"""The recorded signatures are those of the installed versions, and values are judged by them."""

import dataclasses
import enum
import json
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from job.ranges import Range
from job.settings import Setting, describe_config, problem_with
from workshop.checks import signatures
from workshop.checks.signatures import CONFIGS, load_signature


def test_the_recorded_signatures_are_the_installed_ones():
    recorded = json.loads(Path(signatures.__file__).with_name("signatures.json").read_text())
    assert recorded == signatures.installed_signatures(), (
        "run `python -m workshop.checks.signatures` in scripts/"
    )


@pytest.mark.parametrize("config", CONFIGS)
def test_every_recorded_default_is_a_value_that_its_setting_takes(config):
    for name, setting in load_signature(config).items():
        if setting.default is not None:
            assert problem_with(setting.default, setting) is None, name


class Colour(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Example:
    number: float = 1e-6
    count: int | None = None
    colour: Colour | str = Colour.RED
    size: Literal["s", "m"] = "s"
    names: list[str] | None = None
    options: dict | str | None = None
    hidden: int = dataclasses.field(default=0, init=False)


def test_a_dataclass_is_described():
    assert describe_config(Example) == {
        "number": Setting(("float",), (), 1e-6),
        "count": Setting(("int", "null")),
        "colour": Setting(("str",), ("red",), "red"),
        "size": Setting(("str",), ("s", "m"), "s"),
        "names": Setting(("list[str]", "null")),
        "options": Setting(("dict", "str", "null")),
    }


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (1, ("float",)),
        ("1e-5", ("float",)),
        ("8", ("int",)),
        ("true", ("bool",)),
        (None, ("int", "null")),
        ("null", ("int", "null")),
        (["a"], ("list[str]",)),
        ("a", ("list[str]",)),
        ('["a"]', ("list[str]",)),
        ([1, 2.5], ("list[float]",)),
        ({"a": 1}, ("dict", "null")),
        ('{"a": 1}', ("dict",)),
        (5, ("str",)),
        (object(), ("any",)),
    ],
)
def test_values_that_fit(value, kinds):
    assert problem_with(value, Setting(kinds)) is None


@pytest.mark.parametrize(
    ("value", "kinds"),
    [
        (None, ("int",)),
        (True, ("int",)),
        (True, ("float",)),
        (1, ("bool",)),
        (0.5, ("int",)),
        ("0.5", ("int",)),
        ("many", ("int", "float", "bool")),
        (["a", 1], ("list[float]",)),
        ('["a"', ("list[float]", "dict")),
        ([1], ("str", "dict")),
        ({"a": 1}, ("str", "list[str]")),
    ],
)
def test_values_that_do_not_fit(value, kinds):
    assert problem_with(value, Setting(kinds)).startswith("must be ")


def test_choices():
    assert problem_with("steps", Setting(("str",), ("no", "steps"))) is None
    assert problem_with("step", Setting(("str",), ("no", "steps"))) == 'must be one of no, steps, not "step"'
    assert "in quotes" in problem_with(False, Setting(("str",), ("no", "steps")))


def test_a_class_names_its_least_values_and_choices():
    @dataclasses.dataclass
    class Limited:
        LEAST: ClassVar = {"count": 1}
        CHOICES: ClassVar = {"kind": ("a", "b")}
        count: int = 1
        kind: str = "a"

    settings = describe_config(Limited)
    assert settings == {
        "count": Setting(("int",), (), 1, Range(least=1)),
        "kind": Setting(("str",), ("a", "b"), "a"),
    }
    assert problem_with("0", settings["count"]) == "is 0: it must be 1 or more"
    assert problem_with("3", settings["count"]) is None
    assert problem_with("c", settings["kind"]) == 'must be one of a, b, not "c"'
