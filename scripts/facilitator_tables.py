"""The tables of docs/facilitator.md: what each recipe may cost, and the quotas that a number of people need.

    python scripts/facilitator_tables.py        # writes them into the page anew

Made from the modules' machines.yaml, the notebooks (which start jobs on two hosts, and on spot), the table of prices
(scripts/workshop/checks/instances.json) and docs/aws-jobs.md. Arithmetic, not measured.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from workshop.checks.instances import find_instance
from workshop.checks.machine_checks import job_quotas
from workshop.folders import REPOSITORY
from workshop.session.machines import Machine, read_machine, read_machines

PAGE = REPOSITORY / "docs" / "facilitator.md"
JOBS_PAGE = REPOSITORY / "docs" / "aws-jobs.md"
TOTALS_BEGIN, TOTALS_END = "<!-- totals -->", "<!-- end -->"  # in it
PEOPLE = (1, 10, 20, 40)


@dataclass(frozen=True)
class Row:
    """One recipe of one module."""

    module: str  # its number
    recipe: str
    machine: Machine
    most_hosts: int  # of the notebook's largest job
    spot: bool  # whether the notebook starts a spot job too


def rows() -> Iterator[Row]:
    """All recipes of all modules that have a machines.yaml, in order."""
    for path in sorted(REPOSITORY.glob("[0-9][0-9]_*/machines.yaml")):
        (notebook,) = path.parent.glob("*.ipynb")
        cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
        code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
        for recipe in read_machines(path):
            machine = read_machine(path, recipe)
            # A cell that spreads the job over two hosts applies where there is more than one process to spread.
            spreads = bool(re.search(r"hosts=2,", code)) and machine.process_count > 1
            most = max(machine.instance_count, 2 if spreads else 1)
            spot = (
                "enable_managed_spot_training" in code and machine.process_count > 1
            )  # the same cells of 03
            yield Row(path.parent.name[:2], recipe, machine, most, spot)


def cost_table() -> str:
    """A row for each machine of each module: the recipes that run on it, and what one job of theirs costs at most."""
    grouped: dict[tuple, list[str]] = defaultdict(list)
    for row in rows():
        machine = row.machine
        grouped[(row.module, machine.instance_type, machine.instance_count, machine.max_hours)].append(
            row.recipe
        )
    lines = [
        "| module | recipe | machines | a job ends after | USD an hour | USD a job, at most |",
        "|---|---|---|---|---|---|",
    ]
    for (module, instance_type, count, hours), recipes in grouped.items():
        found = find_instance(instance_type)
        price = found.price if found else None
        dollars = ("?", "?") if price is None else (f"{price * count:,.2f}", f"{price * count * hours:,.2f}")
        names = ", ".join(recipes)
        lines.append(
            f"| {module} | {names} | {count} x {instance_type} | {hours:g} h | {dollars[0]} | {dollars[1]} |"
        )
    return "\n".join(lines)


def notebook_table() -> str:
    """What a whole notebook takes and costs with each GPU recipe: the table at the head of docs/aws-jobs.md."""
    text = JOBS_PAGE.read_text(encoding="utf-8")
    return text.partition(TOTALS_BEGIN)[2].partition(TOTALS_END)[0].strip()


def quota_table() -> str:
    """A row for each quota: its name in Service Quotas, who needs it, and its value by the number of people."""
    needs: dict[str, int] = defaultdict(int)
    users: dict[str, list[str]] = defaultdict(list)
    for row in rows():
        wanted = dict.fromkeys(job_quotas(row.machine.instance_type, spot=False), row.most_hosts)
        if row.spot:
            wanted |= dict.fromkeys(
                job_quotas(row.machine.instance_type, spot=True), row.machine.instance_count
            )
        for quota, hosts in wanted.items():
            needs[quota] = max(needs[quota], hosts)
            users[quota].append(f"{row.module} {row.recipe}")
    head = " | ".join(f"{people} {'person' if people == 1 else 'people'}" for people in PEOPLE)
    lines = [f"| quota | needed by | {head} |", "|---|---|" + "---|" * len(PEOPLE)]
    for quota in sorted(needs):
        values = " | ".join(str(needs[quota] * people) for people in PEOPLE)
        names = "all" if len(users[quota]) == len(list(rows())) else ", ".join(users[quota])
        lines.append(f"| {quota} | {names} | {values} |")
    return "\n".join(lines)


def price_sources() -> str:
    """Where the prices of the machines are from, as one line."""
    found = {find_instance(row.machine.instance_type) for row in rows()}
    return "; ".join(sorted({instance.price_source for instance in found if instance}))


def render(text: str) -> str:
    """The page's text with its tables made anew: each stands between <!-- NAME --> and <!-- end -->."""
    tables = {
        "notebooks": notebook_table(),
        "costs": cost_table(),
        "prices": price_sources(),
        "quotas": quota_table(),
    }
    for name, content in tables.items():
        text, count = re.subn(
            rf"(<!-- {name} -->\n).*?(<!-- end -->)",
            lambda match, content=content: f"{match[1]}{content}\n{match[2]}",
            text,
            flags=re.DOTALL,
        )
        assert count == 1, f"{PAGE.name} has no place for {name}"
    return text


def main(page: Path = PAGE) -> None:
    page.write_text(render(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
