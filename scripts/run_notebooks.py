"""Run the workshop's notebooks from top to bottom with papermill; show where it is, and end with a page of results.

    python scripts/run_notebooks.py                        # every notebook, its defaults
    python scripts/run_notebooks.py 02 -p recipe=small     # one, with a parameter
    python scripts/run_notebooks.py path/to/some.ipynb     # any other one

Executed copies are kept under build/notebooks/, what their cells print under build/logs/, the figures of every run in
build/results.json; build/run.html shows this run. An endpoint that is already running is used and left running;
otherwise this run starts its own and stops it at the end, so that runs side by side do not meet. Exit code: 0, 1 if a
notebook failed, 2 for a wrong command line, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

import nbformat
import papermill
import yaml
from local_sagemaker import client
from local_sagemaker.home import home_folder
from runs.jobs import read_jobs
from runs.page import FILE as PAGE
from runs.page import write_page
from runs.progress import Progress
from runs.report import Run, make_report
from runs.times import keep_times, read_times, run_key
from workshop.views.results import ResultsError, read_results, results_table

ROOT = Path(__file__).resolve().parents[1]
SOURCE_LINES_SHOWN = 6
PAPERMILL = "import sys; sys.tracebacklimit = 0; from papermill.cli import papermill; papermill()"  # only the cell's own
KERNEL_NOISE = "Kernel is running over TCP without encryption"  # loopback, signed messages: nothing to do


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


def run_notebook(
    notebook: Path,
    parameters: dict[str, object],
    output: Path,
    *,
    kernel: str = "python3",
    environment: dict[str, str] | None = None,
    log: TextIO | None = None,
) -> Run:
    """Execute one notebook in its own folder; the executed copy is kept, also after a failure.

    Args:
        kernel: name of the kernel to run it in.
        environment: of the kernel; default: this process's.
        log: where papermill's output goes; default: standard output.
    """
    if "results_path" in papermill.inspect_notebook(str(notebook)):
        parameters = {"results_path": str(output / "results.json"), **parameters}
    copies = output / "notebooks"
    copies.mkdir(parents=True, exist_ok=True)
    executed = copies / notebook.name
    print(f"=== {_name(notebook)}", file=log, flush=True)
    started = time.monotonic()
    # Written under a private name while it runs: two runs side by side never write into one file.
    with tempfile.TemporaryDirectory(prefix=".running-", dir=copies) as folder:
        running = Path(folder) / notebook.name
        try:
            code = _papermill(notebook, running, parameters, kernel, environment, log)
        finally:
            if running.exists():
                running.replace(executed)
                print(f"executed copy: {executed}", file=log, flush=True)
    failure = _failed_cell(executed) or (f"papermill ended with exit code {code}" if code else None)
    return Run(notebook, executed, time.monotonic() - started, failure)


def _papermill(
    notebook: Path,
    executed: Path,
    parameters: dict[str, object],
    kernel: str,
    environment: dict[str, str] | None,
    log: TextIO | None,
) -> int:
    """Run papermill and pass its output on; returns its exit code. Interrupted, it ends papermill and the kernel.

    A process of its own, in a session of its own: Ctrl-C reaches only this one, which then ends the other in order.
    """
    command = [sys.executable, "-c", PAPERMILL, str(notebook), str(executed), "--cwd", str(notebook.parent)]
    command += ["--kernel", kernel, "--log-output", "--no-progress-bar"]
    if parameters:
        command += ["--parameters_yaml", yaml.safe_dump(parameters)]
    process = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        start_new_session=True,
        env=environment,
    )
    output = process.stdout
    assert output  # it is a pipe
    try:
        for line in output:
            if KERNEL_NOISE not in line:
                print(line, end="", file=log, flush=True)
        return process.wait()
    finally:
        if process.poll() is None:
            process.terminate()  # nbclient then shuts the kernel down
            output.read()
            process.wait()


def _failed_cell(executed: Path) -> str | None:
    """What went wrong in an executed copy: the cell with an error, or the first one that never ran."""
    for cell in nbformat.read(executed, as_version=4).cells:
        if cell.cell_type != "code" or not cell.source.strip():
            continue
        errors = [output for output in cell.outputs if output.output_type == "error"]
        if errors:
            return f"In [{cell.execution_count}] failed:\n{_head(cell.source)}\n  {errors[0].ename}: {errors[0].evalue}"
        if cell.execution_count is None:
            return f"the kernel ended before this cell ran:\n{_head(cell.source)}"
    return None


def _head(source: str) -> str:
    lines = source.strip().splitlines()
    more = [f"... {len(lines) - SOURCE_LINES_SHOWN} more lines"] if len(lines) > SOURCE_LINES_SHOWN else []
    return "\n".join(f"    {line}" for line in lines[:SOURCE_LINES_SHOWN] + more)


@contextlib.contextmanager
def own_endpoint(output: Path) -> Iterator[Path]:
    """Give this run an endpoint of its own, and stop it with its jobs at the end, unless one is running; yields its home.

    Its buckets end with it, since no other endpoint serves that home: gigabytes, which lie in the jobs' folders as well.
    """
    if client.find_endpoint():
        yield home_folder()
        return
    before = os.environ.get("LOCAL_SAGEMAKER_HOME")
    folder = output / "local_sagemaker" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=folder))
    os.environ["LOCAL_SAGEMAKER_HOME"] = str(home)
    try:
        yield home
    finally:
        client.shutdown(home)
        shutil.rmtree(home / "s3", ignore_errors=True)
        if before is None:
            del os.environ["LOCAL_SAGEMAKER_HOME"]
        else:
            os.environ["LOCAL_SAGEMAKER_HOME"] = before


def run_all(notebooks: list[Path], parameters: dict[str, object], output: Path, runs: list[Run]) -> None:
    """Run them one after the other and show where it is; `runs` gets what each came to, also if this is interrupted."""
    keys = [run_key(_name(notebook), parameters) for notebook in notebooks]
    times = read_times(output)
    with (
        own_endpoint(output) as home,
        Progress(
            [notebook.stem for notebook in notebooks], [times.get(key) for key in keys], home
        ) as progress,
    ):
        for number, (notebook, key) in enumerate(zip(notebooks, keys, strict=True)):
            log = _new_log(notebook, output)
            results = notebook.parent / str(parameters.get("results_path", output / "results.json"))
            before = len(read_results(results))
            started = progress.begin(number, log)
            run = Run(notebook, output / "notebooks" / notebook.name, 0.0, "interrupted", log)
            runs.append(run)
            try:
                with open(log, "w", encoding="utf-8") as lines:
                    run = runs[-1] = run_notebook(notebook, parameters, output, log=lines)
                run.log = log
            finally:
                ended = datetime.now(UTC)
                run.seconds = (ended - started).total_seconds()
                run.jobs = read_jobs(home, started, ended)
                run.records = read_results(results)[before:]
            moments = progress.end(failed=run.failure is not None)
            if not run.failure:
                keep_times(output, key, moments)


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
        run_all(notebooks, parameters, output, runs)
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
            write_page(make_report(runs, modules, parameters, started), output)
    if (output / "results.json").exists():
        print(f"\n{results_table(output / 'results.json')}")
    print(f"\n{summary_text(runs)}\n\nThe whole run on one page: {output / PAGE}")
    return 1 if any(run.failure for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
