"""Cells that do not apply to every recipe: the notebook skips them itself, and says why.

    tools_here = only_if(recipe in ("tiny", "smoke"), "tools.yaml is a recipe for CPUs")

and, as the first line of a cell that needs it:

    # RUN_IF tools_here

A cell runs as it stands, or shows the reason. The line is a comment, as nbval's are, so that all tools still read the
cell as Python.
"""

import html
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from workshop.errors import WorkshopError

_MARK = "# RUN_IF"
_LINE = re.compile(r"# RUN_IF (?P<name>\w+)\s*$")


class ConditionError(WorkshopError):
    """A cell's RUN_IF names something that is not a condition."""


@dataclass(frozen=True)
class Condition:
    """Whether some cells apply, and what a reader is told where they do not."""

    holds: bool
    otherwise: str

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return "applies" if self.holds else f"does not apply: {self.otherwise}"


@dataclass(frozen=True)
class Skipped:
    """What a skipped cell shows."""

    reason: str

    def __str__(self) -> str:
        return f"Skipped: {self.reason}"

    __repr__ = __str__

    def _repr_html_(self) -> str:
        return f'<div style="border-left:4px solid #8a8a8a;padding-left:8px">Skipped: {html.escape(self.reason)}</div>'


def only_if(holds: bool, otherwise: str) -> Condition:
    """A condition for # RUN_IF: cells with it run if it `holds`, and show `otherwise` if not."""
    _listen()
    return Condition(bool(holds), otherwise)


def applied(lines: list[str], names: Mapping[str, Any]) -> list[str]:
    """The lines of a cell as they are to run, where `names` are the notebook's variables.

    Raises ConditionError when the first line is # RUN_IF with anything but the name of a condition.
    """
    if not lines or not lines[0].startswith(_MARK):
        return lines
    line = _LINE.match(lines[0])
    condition = names.get(line["name"]) if line else None
    if not isinstance(condition, Condition):
        raise ConditionError(
            f"{lines[0].strip()}: write {_MARK} and the name that only_if(...) was given, and run that cell first."
        )
    if condition:
        return lines
    return ["from workshop.session.conditions import Skipped\n", f"Skipped({condition.otherwise!r})\n"]


def _listen() -> None:
    """Let the running kernel, if this is one, heed # RUN_IF before it runs a cell."""
    try:
        from IPython.core.getipython import get_ipython
    except ModuleNotFoundError:
        return
    shell = get_ipython()
    if shell is not None and not any(
        hasattr(item, "when_cells") for item in shell.input_transformers_cleanup
    ):
        shell.input_transformers_cleanup.append(_transformer(shell.user_ns))


def _transformer(names: Mapping[str, Any]) -> Callable[[list[str]], list[str]]:
    def transform(lines: list[str]) -> list[str]:
        return applied(lines, names)

    transform.when_cells = True  # ty: ignore[missing-attribute]
    return transform
