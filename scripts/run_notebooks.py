"""Run the workshop's notebooks from top to bottom with papermill; show where it is, and end with a page of results.

    python scripts/run_notebooks.py                        # every notebook, its defaults
    python scripts/run_notebooks.py 02 -p recipe=small     # one, with a parameter
    python scripts/run_notebooks.py path/to/some.ipynb     # any other one
    python scripts/run_notebooks.py --at-once 2            # two side by side

Where there are more cores than two, and memory, several notebooks run side by side, as many as have two cores each.
Executed copies are kept under build/notebooks/, what their cells print under build/logs/, the figures of every run in
build/results.json; build/run.html shows this run. An endpoint that is already running is used and left running;
otherwise each notebook gets one of its own, which is stopped with it, so that runs side by side do not meet. Exit code:
0, 1 if a notebook failed, 2 for a wrong command line, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import math
import os
import signal
import sys
from datetime import UTC, datetime
from pathlib import Path

import papermill
import psutil
import yaml
from local_sagemaker import client
from local_sagemaker.home import home_folder
from runs.endpoints import own_endpoint
from runs.jobs import read_jobs
from runs.notebook import run_notebook
from runs.page import FILE as PAGE
from runs.page import write_page
from runs.progress import Progress
from runs.report import Run, make_report
from runs.times import keep_times, read_times, run_key
from workshop.views.results import ResultsError, read_results, results_table

ROOT = Path(__file__).resolve().parents[1]
# GiB of memory: of the notebook whose jobs take most, and of any other beside it.
LARGEST_GB, NOTEBOOK_GB = 11, 5


class UsageError(Exception):
    """The command line asks for something that does not exist."""


def find_notebooks(wanted: list[str]) -> list[Path]:
    """The workshop's notebooks whose folder starts with one of `wanted` (all if empty), or paths of others.

    Raises UsageError if one of `wanted` is neither.
    """
    modules = sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))
    found = [] if wanted else modules
    for name in wanted:
        if name.endswith(".ipynb") and Path(name).is_file():
            found.append(Path(name).resolve())
            continue
        matching = [path for path in modules if path.parent.name.startswith(name)]
        if not matching:
            known = ", ".join(path.parent.name for path in modules) or "none"
            raise UsageError(f"No notebook '{name}'. Modules with a notebook: {known}.")
        found += matching
    return list(dict.fromkeys(found))


def read_parameters(pairs: list[str]) -> dict[str, object]:
    """`name=value` pairs; values are read as YAML, so that numbers and booleans arrive as such."""
    parameters = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise UsageError(f"-p {pair}: write it as name=value.")
        try:
            parameters[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UsageError(f"-p {pair}: the value is not valid YAML: {error}") from error
    return parameters


def check_parameters(notebooks: list[Path], parameters: dict[str, object]) -> None:
    """Raise UsageError if a notebook lacks a parameter: papermill would inject it without any effect."""
    for notebook in notebooks:
        known = papermill.inspect_notebook(str(notebook))
        for name in parameters:
            if name not in known:
                has = ", ".join(known) or "none"
                raise UsageError(f"{notebook.name} has no parameter '{name}'. Its parameters: {has}.")


def side_by_side(notebooks: list[Path]) -> int:
    """How many run at once: two cores each, since a job has two processes, and the memory that they take.

    One where an endpoint is running already: it carries out one job at a time, whoever asks.
    """
    if client.find_endpoint():
        return 1
    cores = os.cpu_count() or 1
    room = 1 + int(max(0, psutil.virtual_memory().available / 2**30 - LARGEST_GB) // NOTEBOOK_GB)
    return max(1, min(len(notebooks), cores // 2, room))


def check_at_once(at_once: int) -> None:
    """Raise UsageError where so many cannot run side by side."""
    if at_once < 1:
        raise UsageError(f"--at-once {at_once}: at least one notebook has to run.")
    if at_once > 1 and client.find_endpoint():
        raise UsageError(
            f"--at-once {at_once}: an endpoint is running already, which carries out one job at a time. Stop it first: "
            "PYTHONPATH=scripts python -m local_sagemaker shutdown"
        )


async def run_all(
    notebooks: list[Path], parameters: dict[str, object], output: Path, runs: list[Run], at_once: int
) -> None:
    """Run them, `at_once` side by side; show where it is. `runs` gets what each came to, also if this is interrupted."""
    keys = [run_key(_name(notebook), parameters) for notebook in notebooks]
    times = read_times(output)
    last = [times.get(key) for key in keys]
    seconds = [moments[-1] if moments else math.inf for moments in last]
    order = list(range(len(notebooks)))
    if at_once > 1:  # so that none of the long ones is left alone at the end: later modules take longer
        order.sort(key=lambda number: (seconds[number], number), reverse=True)
    places = asyncio.Semaphore(at_once)
    with Progress([notebook.stem for notebook in notebooks], last, order, at_once) as progress:

        async def take_turn(number: int) -> None:
            notebook = notebooks[number]
            async with places:
                with _endpoint(output) as home:
                    run = Run(notebook, output / "notebooks" / notebook.name, 0.0, "interrupted")
                    run.log = _new_log(notebook, output)
                    runs.append(run)
                    started = progress.begin(number, run.log, home)
                    others = {other.parent.name for other in notebooks if other != notebook}
                    await _fill(run, parameters, output, home, started, others)
                    moments = progress.end(number, failed=run.failure is not None)
                if not run.failure:
                    keep_times(output, keys[number], moments)

        tasks = [asyncio.create_task(take_turn(number)) for number in order]
        try:
            await asyncio.gather(*tasks)
        finally:  # each ends its kernel and endpoint in peace: cancelled once, and waited for
            for task in tasks:
                if not task.cancelling():
                    task.cancel()
            await asyncio.wait(tasks)


def _endpoint(output: Path) -> contextlib.AbstractContextManager[Path]:
    return contextlib.nullcontext(home_folder()) if client.find_endpoint() else own_endpoint(output)


async def _fill(
    run: Run,
    parameters: dict[str, object],
    output: Path,
    home: Path,
    started: datetime,
    others: set[str],
) -> None:
    """Run the notebook of `run`, and put into `run` what it came to. `others` are modules that may run beside it."""
    results = run.notebook.parent / str(parameters.get("results_path", output / "results.json"))
    before = len(read_results(results))
    environment = {**os.environ, "LOCAL_SAGEMAKER_HOME": str(home)}
    assert run.log
    try:
        with open(run.log, "w", encoding="utf-8") as log:
            done = await run_notebook(run.notebook, parameters, output, log, environment=environment)
        run.failure = done.failure
    finally:
        ended = datetime.now(UTC)
        run.seconds = (ended - started).total_seconds()
        run.jobs = read_jobs(home, started, ended)
        run.records = [record for record in read_results(results)[before:] if record["module"] not in others]


def _new_log(notebook: Path, output: Path) -> Path:
    """A file of its own for what the cells print: that of a run beside this one, or before it, is not written into."""
    log = output / "logs" / f"{notebook.stem}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)
    return log


def summary_text(runs: list[Run]) -> str:
    """One line a notebook, and under a failed one what failed and where to read on."""
    lines = []
    for run in runs:
        lines.append(f"{'FAILED' if run.failure else 'ok':6} {_name(run.notebook)} ({run.seconds:.0f} s)")
        if run.failure:
            lines.append("  " + run.plain_failure.replace("\n", "\n  "))
            lines.append(f"  executed copy: {run.executed}")
    return "\n".join(lines)


def _name(notebook: Path) -> str:
    return f"{notebook.parent.name}/{notebook.name}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="run_notebooks.py"
    )
    parser.add_argument(
        "notebooks", nargs="*", help="module numbers such as 02, or paths; all modules if none"
    )
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="name=value")
    parser.add_argument(
        "--at-once", type=int, metavar="N", help="notebooks side by side; default: by cores and memory"
    )
    parser.add_argument("--output", type=Path, default=ROOT / "build", help="default: build/")
    options = parser.parse_intermixed_args(arguments)  # 02 -p a=1 03
    output = options.output.resolve()
    # So that the endpoint is stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))

    runs: list[Run] = []
    started = datetime.now(UTC)
    parameters: dict[str, object] = {}
    try:
        notebooks = find_notebooks(options.notebooks)
        parameters = read_parameters(options.parameters)
        check_parameters(notebooks, parameters)
        at_once = side_by_side(notebooks) if options.at_once is None else options.at_once
        check_at_once(at_once)
        asyncio.run(run_all(notebooks, parameters, output, runs, at_once))
    except (UsageError, ResultsError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted: the kernel and the endpoint of this run were stopped.", file=sys.stderr)
        if runs:
            print(f"What ran until then: {output / PAGE}", file=sys.stderr)
        return 130
    finally:
        if runs:  # also when it was interrupted
            modules = [path.stem for path in find_notebooks([])]
            runs.sort(key=lambda run: notebooks.index(run.notebook))
            write_page(make_report(runs, modules, parameters, started), output)
    if (output / "results.json").exists():
        print(f"\n{results_table(output / 'results.json')}")
    print(f"\n{summary_text(runs)}\n\nThe whole run on one page: {output / PAGE}")
    return 1 if any(run.failure for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
