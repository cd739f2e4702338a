"""One measured value, and the CSV files that they are kept in: docs/bench/<bench>.csv."""

import csv
import functools
import os
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from seeds.machine import machine_name, revision
from workshop.folders import REPOSITORY

FOLDER = REPOSITORY / "docs" / "bench"
PACKAGES = ("torch", "transformers", "trl", "accelerate")


@dataclass(frozen=True)
class Row:
    """A value, with where and when it was measured."""

    case: str
    quantity: str
    value: float
    unit: str
    machine: str = ""
    versions: str = ""
    measured: str = ""  # date
    revision: str = ""
    load: str = ""  # processes that wanted a core in the minute before, those of the bench among them


def here(row: Row) -> Row:
    """The row with this machine, its load, the versions, the date and the revision."""
    today, load = f"{datetime.now(UTC):%Y-%m-%d}", f"{os.getloadavg()[0]:.1f}"
    return replace(row, **_here(), measured=today, load=load)


@functools.cache
def _here() -> dict[str, str]:
    versions = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    return {
        "machine": machine_name("local", ""),
        "versions": f"Python {platform.python_version()}, {versions}",
        "revision": revision(),
    }


def write_rows(bench: str, rows: Iterable[Row], folder: Path = FOLDER) -> Path:
    """Replace the bench's file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{bench}.csv"
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) | {"value": f"{row.value:.4g}"} for row in rows)
    return path


def read_rows(bench: str, folder: Path = FOLDER) -> list[Row]:
    """What was measured last; nothing if it never was."""
    path = folder / f"{bench}.csv"
    if not path.is_file():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return [Row(value=float(row.pop("value")), **row) for row in csv.DictReader(file)]


def by_case(rows: Iterable[Row], quantity: str) -> dict[str, list[float]]:
    """Values of a quantity, in the order they were measured."""
    found: dict[str, list[float]] = {}
    for row in rows:
        if row.quantity == quantity:
            found.setdefault(row.case, []).append(row.value)
    return found


def paired_ratios(ours: Sequence[float], theirs: Sequence[float]) -> list[float]:
    """Ratios of runs that followed one another, so that what slows the machine for minutes slows both; lowest first.

    Raises:
        ValueError: they are not pairs, or there are none.
    """
    if not ours:
        raise ValueError("there is no pair")
    return sorted(own / other for own, other in zip(ours, theirs, strict=True))
