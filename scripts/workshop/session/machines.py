"""What a recipe runs on: its row of the module's machines.yaml, with the changes that the notebook asks for.

machine = read_machine("machines.yaml", recipe, task=task, **machine_changes)
Compute(instance_type=machine.instance_type, instance_count=machine.instance_count)
"""

import dataclasses
import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workshop.errors import WorkshopError

# Of a job's output: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_OutputDataConfig.html
COMPRESSIONS = ("GZIP", "NONE")


class MachineError(WorkshopError):
    """machines.yaml has no row for a recipe, or a row or a change to it is not as it should be."""


@dataclass(frozen=True)
class Machine:
    """What a job with a recipe is started with; a notebook shows it as a table."""

    instance_type: str
    instance_count: int
    process_count: int  # training processes on each instance; on GPUs, one for each
    task: str  # the problems: rl.tasks
    max_hours: float  # of each job: SageMaker stops it then
    requirements: str | None = "requirements.txt"  # None: the image holds everything
    image: str = ""  # "repository:tag" of AWS's registry; empty: what the SDK finds for the instance type
    own_image: bool = False  # only the image that container/ builds will do
    compression_type: str = "GZIP"  # of the job's output; NONE: file by file
    accelerate_config: str = ""  # 02
    pair_source: str = ""  # 01

    @property
    def max_seconds(self) -> int:
        """`max_hours` as SageMaker takes it."""
        return round(self.max_hours * 3600)

    def _shown(self) -> dict[str, Any]:
        return {
            key: value for key, value in dataclasses.asdict(self).items() if value not in ("", False, "GZIP")
        }

    def __str__(self) -> str:
        return "\n".join(f"{key:<18} {value}" for key, value in self._shown().items())

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        rows = "".join(
            f"<tr><th {left}>{key}</th><td {left}>{html.escape(str(value))}</td></tr>"
            for key, value in self._shown().items()
        )
        return f"<table><tbody>{rows}</tbody></table>"


def read_machine(path: Path | str, recipe: str, **changes: Any) -> Machine:
    """The row `recipe` of the file, with `changes`; a change that is "" or None leaves the row's value.

    Raises MachineError: no such row, an unknown key, or a value of the wrong kind.
    """
    rows = read_machines(path)
    if recipe not in rows:
        raise MachineError(f"{path} has no row {recipe!r}. It has: {', '.join(rows)}.")
    changed = {key: value for key, value in changes.items() if value not in ("", None)}
    return _machine(f"{recipe} with {changed}" if changed else recipe, {**rows[recipe], **changed})


def read_machines(path: Path | str) -> dict[str, dict[str, Any]]:
    """All rows of the file, by recipe. Raises MachineError."""
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError) as error:
        raise MachineError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(row, dict) for row in content.values()):
        raise MachineError(f"{path} must have one mapping for each recipe.")
    for recipe, row in content.items():
        _machine(f"{path}, {recipe}", row)
    return content


def _machine(where: str, row: dict[str, Any]) -> Machine:
    fields = {field.name: field for field in dataclasses.fields(Machine)}
    problems = [f"unknown key {key!r} (known: {', '.join(fields)})" for key in row if key not in fields]
    for name, field in fields.items():
        if name not in row:
            if field.default is dataclasses.MISSING:
                problems.append(f"{name} is missing")
            continue
        value = row[name]
        kind: Any = int | float if field.type is float else field.type
        if not isinstance(value, kind) or (
            isinstance(value, bool) and kind is not bool
        ):  # True is an int, too
            problems.append(f"{name} is {value!r}, which is no {getattr(field.type, '__name__', field.type)}")
        elif isinstance(value, int | float) and kind is not bool and value <= 0:
            problems.append(f"{name} is {value!r}: it must be above 0")
    if (compression := row.get("compression_type", "GZIP")) not in COMPRESSIONS:
        problems.append(f"compression_type is {compression!r}: it must be {' or '.join(COMPRESSIONS)}")
    if problems:
        raise MachineError(f"{where}: {'; '.join(problems)}.")
    return Machine(**row)
