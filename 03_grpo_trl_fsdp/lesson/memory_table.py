"""Memory estimates (workshop.checks.memory) as a table."""

from dataclasses import asdict

from workshop.checks.memory import GB, Memory
from workshop.views.html import HtmlView, table


def memory_table(rows: dict[str, Memory]) -> HtmlView:
    """One line for each named estimate, in the unit that suits the largest; parts that none of them has are left out."""
    unit, name = (GB, "GB") if max(memory.total for memory in rows.values()) > GB else (1e6, "MB")
    parts = [
        name for name in asdict(next(iter(rows.values()))) if any(asdict(row)[name] for row in rows.values())
    ]
    header = ("on each device", *parts, "total")
    lines = [
        (label, *(f"{asdict(memory)[part] / unit:.2f}" for part in parts), f"{memory.total / unit:.2f}")
        for label, memory in rows.items()
    ]
    return table([text.replace("_", " ") for text in header], lines, caption=f"{name} on each device")
