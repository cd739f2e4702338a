"""Every job of every notebook with every recipe, as AWS would get it: requests for the tests, a table for readers.

    python scripts/request_matrix.py          # writes tests/golden/requests/*.json and docs/aws-jobs.md
    python scripts/request_matrix.py 02       # one notebook's; the table is written when all are there

Each notebook is run from its first cell to its last with mode = "sagemaker". The SDK builds each request, uploads data and
source to a local endpoint, and calls CreateTrainingJob; there the call is kept back (request_keeper.py), looked at and
answered, so that the next cell can go on. What only looks at results finds made-up ones and may fail; what starts a job may
not. Each run is a process of its own, forked from one that has imported the SDK: that alone takes as long as all the rest.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import multiprocessing
import multiprocessing.connection
import os
import re
import subprocess
import sys
import tempfile
import traceback
from pathlib import Path
from typing import Any

import nbformat
from facilitator_tables import TOTALS_BEGIN, TOTALS_END
from local_sagemaker import client
from local_sagemaker.compat import sts_address
from rehearse_notebooks import studio_environment
from request_keeper import RequestKeeper, results
from run_notebooks import ROOT, find_notebooks
from workshop.checks.duration import in_words
from workshop.checks.instances import gpu_count, hourly_price
from workshop.session.machines import read_machines

GOLDEN = ROOT / "tests" / "golden" / "requests"
TABLE = ROOT / "docs" / "aws-jobs.md"
IMAGE_OF_ONES_OWN = "123456789012.dkr.ecr.us-east-1.amazonaws.com/rl-workshop-verl:verl-0.9.1-0123456789ab"
AT_ONCE = 2  # notebooks that run side by side
TIME_LIMIT = 30 * 60
# What cells and preflight import, most of it in the middle of something; imported once, before the runs are forked.
IMPORTED_FIRST = (
    "IPython.core.interactiveshell",
    "matplotlib.pyplot",
    "mlflow",
    "transformers.models.auto.tokenization_auto",
    "workshop",
)
STARTS_A_JOB = re.compile(r"\.train\(|run_job\(|preflight\(")


def recipes_of(notebook: Path) -> list[str]:
    """The recipes of machines.yaml for GPUs; those for CPUs run as they are in other tests, on this machine."""
    rows = read_machines(notebook.parent / "machines.yaml")
    return [recipe for recipe, row in rows.items() if gpu_count(row["instance_type"], client.REGION)]


def collect(notebooks: list[Path], folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """All jobs, in the notebook's order: module -> recipe -> jobs.

    Each has `section`, `name`, `request` (of CreateTrainingJob), `checks` (preflight's lines) and `seconds`, what it is
    estimated to take (None: not known).
    Raises RuntimeError with what the cell said if a cell that starts a job failed.
    """
    home, out = folder / "endpoint", folder / "jobs.json"
    endpoint = client.ensure_endpoint(home)
    try:
        environment = studio_environment(endpoint, folder) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        # The SDK validates its settings each time it looks one up. There are none, and the keeper sends no telemetry.
        environment["SAGEMAKER_USER_CONFIG_OVERRIDE"] = os.devnull
        run = subprocess.run(
            [sys.executable, __file__, "--record", str(out), *map(str, notebooks)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIME_LIMIT,
        )
    finally:
        client.shutdown(home)
    if run.returncode:
        raise RuntimeError(f"{run.stdout[-8000:]}\n{run.stderr[-8000:]}")
    return json.loads(out.read_text())


def record_all(notebooks: list[Path], folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """As `collect`, in the environment of this process; each notebook and recipe in a fork of it."""
    for name in IMPORTED_FIRST:
        importlib.import_module(name)
    for packed in (True, False):
        results(packed, {})  # model, pairs and evaluation are made once
    forks, runs = multiprocessing.get_context("fork"), {}
    for notebook in notebooks:
        for recipe in recipes_of(notebook):
            out = folder / f"{notebook.stem}-{recipe}.json"
            runs[notebook.parent.name, recipe] = (
                out,
                forks.Process(target=_write_jobs, args=(notebook, recipe, out)),
            )
    if failed := _run([process for _, process in runs.values()]):
        raise SystemExit(f"{failed} of {len(runs)} runs failed; what they said stands above.")
    found: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for (module, recipe), (out, _) in runs.items():
        found.setdefault(module, {})[recipe] = json.loads(out.read_text())
    return found


def _run(processes: list[Any]) -> int:
    """Start the processes, AT_ONCE at a time, and wait for all; returns how many of them failed."""
    running: list[Any] = []
    for process in processes:
        process.start()
        running.append(process)
        while len(running) == AT_ONCE:
            multiprocessing.connection.wait([each.sentinel for each in running])
            running = [each for each in running if each.is_alive()]
    for process in running:
        process.join()
    return sum(process.exitcode != 0 for process in processes)


def _write_jobs(notebook: Path, recipe: str, out: Path) -> None:
    try:
        with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
            out.write_text(json.dumps(record(notebook, recipe, Path(folder)), default=str))
    except BaseException:
        print(f"{notebook.parent.name}, {recipe}:\n{traceback.format_exc()}", file=sys.stderr, flush=True)
        raise SystemExit(1) from None


def record(notebook: Path, recipe: str, folder: Path) -> list[dict[str, Any]]:
    """Run the notebook's cells in this process, in a copy of its place under `folder`, and keep what it asks AWS for."""
    from IPython.core.interactiveshell import InteractiveShell

    place = folder / notebook.parent.name
    for path in (ROOT / "scripts", ROOT / "requirements.txt"):
        (folder / path.name).symlink_to(path)
    place.mkdir()
    for path in notebook.parent.iterdir():
        if path.suffix != ".ipynb" and not path.name.startswith("."):
            (place / path.name).symlink_to(path)
    os.chdir(place)
    sys.path.insert(0, str(place))
    sts_address.follow_endpoint(os.environ["AWS_ENDPOINT_URL"])  # as in the rehearsal's kernel
    keeper = RequestKeeper()
    shell = InteractiveShell.instance()
    shell.run_cell("import matplotlib; matplotlib.use('Agg')")
    assert shell.display_formatter
    # Nobody looks at the pictures, which take a third of the time.
    shell.display_formatter.active_types = ["text/plain"]
    shell.run_line_magic("xmode", "Plain")  # nobody looks at most of the errors, and colours take seconds
    section, failures = "", []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            section = (re.findall(r"^## (\d+\. .*)$", cell.source, re.MULTILINE) or [section])[-1]
            continue
        keeper.section, started = section, len(keeper.jobs)
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            result = shell.run_cell(cell.source)
        if not result.success:
            failures.append(f"{section}\n{cell.source}\n\n{shown.getvalue()[-4000:]}")
            starts = STARTS_A_JOB.search(cell.source) and len(keeper.jobs) == started
            if starts or not keeper.jobs:
                raise RuntimeError("\n\n".join(failures))
        if "parameters" in cell.metadata.get("tags", []):
            shell.user_ns |= {
                "mode": "sagemaker",
                "recipe": recipe,
                "train_problems": 256,
                "test_problems": 64,
            }
            if "image_uri" in shell.user_ns and read_machines("machines.yaml")[recipe].get("own_image"):
                shell.user_ns["image_uri"] = IMAGE_OF_ONES_OWN
            keeper.names = shell.user_ns
    os.chdir(ROOT)  # the place that this process is in goes with the folder
    return keeper.jobs


def golden_text(recipes: dict[str, list[dict[str, Any]]]) -> str:
    """A module's requests as the golden file has them."""
    requests = {
        recipe: [{key: job[key] for key in ("section", "name", "request")} for job in jobs]
        for recipe, jobs in recipes.items()
    }
    return json.dumps(requests, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def table_text(modules: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """docs/aws-jobs.md: what each cell starts, by recipe."""
    lines = [
        "# What the notebooks start on AWS",
        "",
        'Made by `scripts/request_matrix.py`, and checked by a test: each notebook is run with `mode = "sagemaker"` and each GPU recipe,',
        "up to the call of CreateTrainingJob, which is validated against botocore's model of the API and put through preflight. The",
        "hours are caps. Dollars are by the price table of [instances.json](../scripts/workshop/checks/instances.json); memory is what",
        "each GPU has to hold at most; what a job takes and costs is estimated as in",
        "[duration.py](../scripts/workshop/checks/duration.py): all of it arithmetic. **No job of this page has been run on AWS.**",
        "",
        "## A notebook from top to bottom",
        "",
        TOTALS_BEGIN,
        *_totals(modules),
        TOTALS_END,
    ]
    for module, recipes in sorted(modules.items()):
        lines += ["", f"## {module}"]
        for recipe, jobs in recipes.items():
            lines += [
                "",
                f"### {recipe}",
                "",
                "| section | job | on | processes | image | at most | about | memory |",
                "|---|---|---|---|---|---|---|---|",
            ]
            lines += [_row(job) for job in jobs]
    return "\n".join(lines) + "\n"


def _totals(modules: dict[str, dict[str, list[dict[str, Any]]]]) -> list[str]:
    """What all jobs of a notebook take, one after the other, and cost, by recipe."""
    lines = [
        "| module | recipe | jobs | take about | cost about | and at most |",
        "|---|---|---|---|---|---|",
    ]
    for module, recipes in sorted(modules.items()):
        for recipe, jobs in recipes.items():
            expected = [_expected(job) for job in jobs]
            known = [each for each in expected if each]
            seconds, dollars = (sum(column) for column in zip(*known, strict=True)) if known else (0.0, 0.0)
            some = "" if len(known) == len(jobs) else f" ({len(known)} of them)"
            most = sum(_most(job) for job in jobs)
            lines.append(
                f"| {module[:2]} | {recipe} | {len(jobs)} | {in_words(seconds)}{some} | ${dollars:,.2f}{some} | ${most:,.2f} |"
            )
    return lines


def _expected(job: dict[str, Any]) -> tuple[float, float] | None:
    """Seconds and dollars that the job probably takes, up to its cap; None where they cannot be estimated."""
    seconds = job["seconds"]
    if seconds is None:
        return None
    request = job["request"]
    seconds = min(seconds, request["StoppingCondition"]["MaxRuntimeInSeconds"])
    return seconds, seconds / 3600 * _hourly(job)


def _hourly(job: dict[str, Any]) -> float:
    resources = job["request"]["ResourceConfig"]
    return (hourly_price(resources["InstanceType"]) or 0.0) * resources["InstanceCount"]


def _most(job: dict[str, Any]) -> float:
    return _hourly(job) * job["request"]["StoppingCondition"]["MaxRuntimeInSeconds"] / 3600


def _row(job: dict[str, Any]) -> str:
    request, checks = job["request"], {check["name"]: check["detail"] for check in job["checks"]}
    resources = request["ResourceConfig"]
    image = request["AlgorithmSpecification"]["TrainingImage"].partition("/")[2]
    hours = request["StoppingCondition"]["MaxRuntimeInSeconds"] / 3600
    expected = _expected(job)
    about = f"{in_words(expected[0])}, ${expected[1]:,.2f}" if expected else ""
    memory = re.search(r"about (\d+ of \d+ GB)", checks.get("memory", ""))
    processes = re.search(r"processes each: (\d+)", checks.get("machines", ""))
    return (
        f"| {job['section']} | {job['name']} | {resources['InstanceCount']} x {resources['InstanceType']} "
        f"| {processes[1] if processes else ''} | {image} "
        f"| {hours:g} h, ${_most(job):,.2f} | {about} | {memory[1] if memory else ''} |"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="request_matrix.py"
    )
    parser.add_argument("notebooks", nargs="*", help="module numbers such as 02; all modules if none")
    parser.add_argument("--record", type=Path, metavar="FILE", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.record:
        with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
            found = record_all(find_notebooks(options.notebooks), Path(folder))
        options.record.write_text(json.dumps(found))
        return 0
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        found = collect(find_notebooks(options.notebooks), Path(folder))
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for module, recipes in found.items():
        (GOLDEN / f"{module}.json").write_text(golden_text(recipes), encoding="utf-8")
    if not options.notebooks:
        TABLE.write_text(table_text(found), encoding="utf-8")
    refused = [
        f"{module}, {recipe}, {job['section']}, {job['name']}: {check['name']}: {check['detail']}"
        for module, recipes in found.items()
        for recipe, jobs in recipes.items()
        for job in jobs
        for check in job["checks"]
        if check["status"] == "problem"
    ]
    print("\n".join(refused) or "Preflight refuses none of them.")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
