"""Read a finished run back from MLflow and from W&B, in one form, to lay the two side by side.

W&B keeps a run as a log in the job's outputs, also one that goes online. Its own `wandb leet inspect --json` prints that log,
so nothing has to be uploaded or downloaded to be looked at.
"""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from workshop.errors import WorkshopError
from workshop.jobs.outputs import JobOutput
from workshop.views.comparisons import plot_runs
from workshop.views.plots import Panel, Plot
from workshop.views.tracked_runs import open_run

# The machine's load: name here -> name in MLflow, name in W&B. The first GPU stands for all.
SYSTEM = {
    "cpu": ("system/cpu_utilization_percentage", "cpu"),
    "memory": ("system/system_memory_usage_percentage", "memory_percent"),
    "gpu": ("system/gpu_0_utilization_percentage", "gpu.0.gpu"),
    "gpu_memory": ("system/gpu_0_memory_usage_percentage", "gpu.0.memoryAllocated"),
}
SYSTEM_PANELS = (
    Panel("cpu", "CPU", "percent of all cores"),
    Panel("memory", "Memory of the machine", "percent"),
    Panel("gpu", "First GPU", "percent of the time busy"),
    Panel("gpu_memory", "Memory of the first GPU", "percent"),
)


class TrackerError(WorkshopError):
    """W&B has no run of the job, or cannot be read."""


@dataclass(frozen=True)
class TrackedRun:
    """What a tracker kept of one run.

    Attributes:
        metrics: the last value of each metric, by the trainer's own name.
        history: one dict for each logged step, with `step`.
        system: samples of the machine's load in percent, with `step`: seconds since the first of them.
    """

    name: str
    metrics: dict[str, float] = field(repr=False)
    history: list[dict] = field(repr=False)
    system: list[dict] = field(repr=False)


def read_mlflow(output: JobOutput, tracking_uri: str | None) -> TrackedRun:
    """The MLflow run of a training job: where the session tracks (`ws.tracking_uri`), else in the job's own output.

    Raises TrackedRunError when there is none.
    """
    with open_run(output, tracking_uri) as (client, run):
        return _from_mlflow(client, run)


def _from_mlflow(client: MlflowClient, run: Run) -> TrackedRun:
    metrics = run.data.metrics
    by_step: dict[int, dict] = {}
    samples: dict[str, list[tuple[float, float]]] = {}
    wanted = {mlflow_name: name for name, (mlflow_name, _) in SYSTEM.items()}
    for key in metrics:
        if key.startswith("system/") and key not in wanted:
            continue
        for point in client.get_metric_history(run.info.run_id, key):
            if key in wanted:
                samples.setdefault(wanted[key], []).append((point.timestamp / 1000, point.value))
            else:
                by_step.setdefault(point.step, {"step": point.step})[key] = point.value
    samples["cpu"] = sorted(samples.get("cpu", []))[1:]  # psutil's first answer is always 0
    return TrackedRun(
        run.info.run_name,
        {key: value for key, value in metrics.items() if not key.startswith("system/")},
        [by_step[step] for step in sorted(by_step)],
        _samples(samples),
    )


def read_wandb(data: Path | str) -> TrackedRun:
    """The W&B run among a job's outputs (`output.data`).

    Raises TrackerError when there is none, or more than one, or wandb cannot read it.
    """
    log = _log(data)
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(log)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    if done.returncode:
        raise TrackerError(f"`wandb leet inspect` cannot read {log}: {done.stderr.strip()[-500:]}")
    name, metrics, by_step = log.parent.name, {}, {}
    samples: dict[str, list[tuple[float, float]]] = {}
    for record in map(json.loads, done.stdout.splitlines()):
        if record["type"] == "run":
            name = record["run"].get("display_name") or name
        elif record["type"] == "history":
            items = {
                key.removeprefix("train/"): value
                for key, value in record["history"]["item"].items()
                if isinstance(value, int | float) and not key.startswith("_")
            }
            metrics.update(items)
            if "global_step" in items:
                step = int(items.pop("global_step"))
                by_step.setdefault(step, {"step": step}).update(items)
        elif record["type"] == "stats":
            moment = datetime.fromisoformat(record["stats"]["timestamp"]).timestamp()
            for key, (_, wandb_name) in SYSTEM.items():
                if wandb_name in record["stats"]["item"]:
                    samples.setdefault(key, []).append((moment, record["stats"]["item"][wandb_name]))
    metrics.pop("global_step", None)
    return TrackedRun(name, metrics, [by_step[step] for step in sorted(by_step)], _samples(samples))


def completion_steps(data: Path | str) -> list[int]:
    """The training steps whose completions are there, in order: those that this job did, since its checkpoint.

    Raises TrackerError when there are none.
    """
    steps = sorted({int(step) for rows in _completion_tables(data) for step in rows["step"]})
    if not steps:
        raise TrackerError(
            f"There is no table of completions under {data}: set log_completions: true. A job whose checkpoint held all steps "
            "did none, and has none."
        )
    return steps


def completions_at(data: Path | str, step: int) -> pd.DataFrame:
    """The completions of one training step with their rewards and advantages, as TRL's log_completions kept them.

    A job that prompts conversationally logs prompt and completion as lists of messages; the last message's text is shown.
    Raises TrackerError when that step's table is not there.
    """
    for rows in _completion_tables(data):
        rows = rows[rows["step"].astype(int) == step]
        if len(rows):
            texts = {name: rows[name].map(_last_text) for name in ("prompt", "completion")}
            return rows.assign(**texts).drop(columns="step").reset_index(drop=True)
    steps = completion_steps(data)
    raise TrackerError(
        f"There is no table of completions of step {step} under {data}; steps {steps[0]} to {steps[-1]} are."
    )


def _completion_tables(data: Path | str) -> Iterator[pd.DataFrame]:
    for path in (_log(data).parent / "files" / "media" / "table").glob("completions_*.table.json"):
        table = json.loads(path.read_text(encoding="utf-8"))
        rows = pd.DataFrame(table["data"], columns=table["columns"])
        if len(rows) and "step" in rows:
            yield rows


def compare_trackers(runs: dict[str, TrackedRun], names: list[str]) -> pd.DataFrame:
    """The last value of each named metric in each tracker: a row for each metric."""
    return pd.DataFrame(
        {tracker: {name: run.metrics.get(name) for name in names} for tracker, run in runs.items()}
    )


def plot_system(runs: dict[str, TrackedRun]) -> Plot:
    """The machine's load during a run, one line for each tracker that sampled it.

    Raises DataError when none of them did.
    """
    return plot_runs(
        {name: run.system for name, run in runs.items()},
        SYSTEM_PANELS,
        x_label="seconds since the first sample",
    )


def _log(data: Path | str) -> Path:
    """W&B writes it whether the run goes online or not."""
    found = sorted(Path(data).glob("wandb/*run-*/*.wandb"))
    if len(found) != 1:
        raise TrackerError(
            f"There are {len(found)} W&B runs under {data}, one is needed: does the recipe's report_to name wandb?"
        )
    return found[0]


def _samples(by_name: dict[str, list[tuple[float, float]]]) -> list[dict]:
    first = min((moment for samples in by_name.values() for moment, _ in samples), default=0.0)
    return [
        {"step": moment - first, name: value}
        for name, samples in by_name.items()
        for moment, value in sorted(samples)
    ]


def _last_text(cell: object) -> str:
    return (
        str(cell[-1]["content"])
        if isinstance(cell, list) and cell and isinstance(cell[-1], dict)
        else str(cell)
    )
