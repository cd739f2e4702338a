"""Execute one notebook with papermill, in a process of its own that ends with whoever waits for it."""

import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import TextIO

import nbformat
import papermill
import yaml

from runs.report import Run

SOURCE_LINES_SHOWN = 6
LONGEST_LINE = 2**26  # bytes: a cell may print megabytes without a line's end
PAPERMILL = "import sys; sys.tracebacklimit = 0; from papermill.cli import papermill; papermill()"  # only the cell's own
KERNEL_NOISE = "Kernel is running over TCP without encryption"  # loopback, signed messages: nothing to do


async def run_notebook(
    notebook: Path,
    parameters: dict[str, object],
    output: Path,
    log: TextIO,
    *,
    kernel: str = "python3",
    environment: dict[str, str] | None = None,
) -> Run:
    """Execute one notebook in its own folder; the executed copy is kept, also after a failure.

    Args:
        log: where papermill's output goes.
        kernel: name of the kernel to run it in.
        environment: of the kernel; default: this process's.
    """
    if "results_path" in papermill.inspect_notebook(str(notebook)):
        parameters = {"results_path": str(output / "results.json"), **parameters}
    copies = output / "notebooks"
    copies.mkdir(parents=True, exist_ok=True)
    executed = copies / notebook.name
    print(f"=== {notebook.parent.name}/{notebook.name}", file=log, flush=True)
    started = time.monotonic()
    # Written under a private name while it runs: two runs side by side never write into one file.
    with tempfile.TemporaryDirectory(prefix=".running-", dir=copies) as folder:
        running = Path(folder) / notebook.name
        try:
            code = await _papermill(notebook, running, parameters, kernel, environment, log)
        finally:
            if running.exists():
                running.replace(executed)
                print(f"executed copy: {executed}", file=log, flush=True)
    failure = _failed_cell(executed) or (f"papermill ended with exit code {code}" if code else None)
    return Run(notebook, executed, time.monotonic() - started, failure)


async def _papermill(
    notebook: Path,
    executed: Path,
    parameters: dict[str, object],
    kernel: str,
    environment: dict[str, str] | None,
    log: TextIO,
) -> int:
    """Run papermill and pass its output on; returns its exit code. Cancelled, it ends papermill and the kernel.

    In a session of its own: Ctrl-C reaches only this process, which then ends the other in order.
    """
    command = [sys.executable, "-c", PAPERMILL, str(notebook), str(executed), "--cwd", str(notebook.parent)]
    command += ["--kernel", kernel, "--log-output", "--no-progress-bar"]
    if parameters:
        command += ["--parameters_yaml", yaml.safe_dump(parameters)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        start_new_session=True,
        env=environment,
        limit=LONGEST_LINE,
    )
    output = process.stdout
    assert output  # it is a pipe
    try:
        async for line in output:
            text = line.decode(errors="replace")
            if KERNEL_NOISE not in text:
                print(text, end="", file=log, flush=True)
        return await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()  # nbclient then shuts the kernel down
            await output.read()
            await process.wait()


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
