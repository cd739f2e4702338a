"""Memory estimates (workshop.checks.memory) as a table."""

from dataclasses import asdict

from workshop.checks.memory import GB, Memory
from workshop.views.html import HtmlView, table


def memory_table(rows: dict[str, Memory]) -> HtmlView:
    """One line for each named estimate, in the unit that suits the largest."""
    unit, name = (GB, "GB") if max(memory.total for memory in rows.values()) > GB else (1e6, "MB")
    header = ("on each device", *next(iter(map(asdict, rows.values()))), "total")
    lines = [
        (label, *(f"{value / unit:.2f}" for value in asdict(memory).values()), f"{memory.total / unit:.2f}")
        for label, memory in rows.items()
    ]
    return table([text.replace("_", " ") for text in header], lines, caption=f"{name} on each device")
