"""What a run of the notebooks came to: everything that its page shows, read from this run alone."""

import os
import platform
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path

import psutil
from seeds.machine import machine_name, revision

from runs.jobs import Job

# Of the notebook side.
PACKAGES = ("sagemaker", "boto3", "moto", "transformers", "mlflow", "jupyterlab", "papermill")
_ESCAPE_CODE = re.compile(r"\x1b\[[0-9;]*m")


@dataclass
class Run:
    """One executed notebook: where its executed copy is, and why it failed if it did."""

    notebook: Path
    executed: Path
    seconds: float
    failure: str | None
    log: Path | None = None
    jobs: list[Job] = field(default_factory=list)
    records: list[dict] = field(default_factory=list)  # that it appended to the results file

    @property
    def name(self) -> str:
        """What it is called on a terminal and on the page."""
        return self.notebook.stem

    @property
    def plain_failure(self) -> str:
        """The failure without a terminal's colours."""
        return _ESCAPE_CODE.sub("", self.failure or "")


@dataclass
class Report:
    """A whole run. `not_run` are the workshop's notebooks that it was not asked for, or did not come to."""

    started: datetime
    seconds: float
    parameters: dict[str, object]
    runs: list[Run]
    not_run: list[str]
    machine: str
    versions: dict[str, str]
    revision: str


def make_report(
    runs: list[Run], modules: list[str], parameters: dict[str, object], started: datetime
) -> Report:
    """The report of what ran since `started`; `modules` are the names of all of the workshop's notebooks."""
    ran = {run.name for run in runs}
    return Report(
        started=started,
        seconds=(datetime.now(UTC) - started).total_seconds(),
        parameters=parameters,
        runs=runs,
        not_run=[name for name in modules if name not in ran],
        machine=_machine(),
        versions=_versions(runs),
        revision=revision(),
    )


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return (
        f"{machine_name('local', '')}, {memory:.0f} GiB of memory, {platform.system()} {os.uname().release}"
    )


def _versions(runs: list[Run]) -> dict[str, str]:
    """The notebook side's packages, and what the jobs said of theirs; of several modules' versions, all."""
    found = {"python": {platform.python_version()}} | {name: {metadata.version(name)} for name in PACKAGES}
    for run in runs:
        for record in run.records:
            for name, version in record.get("versions", {}).items():
                found.setdefault(name, set()).add(str(version))
    return {name: ", ".join(sorted(versions)) for name, versions in found.items()}
