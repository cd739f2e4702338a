"""A run in MLflow and in Weights & Biases: opened, told what is trained on what, closed.

The recipe's `report_to` names the trackers; transformers' own callbacks send them the training metrics. This module
opens the runs before that, adds what was trained on what, and logs the evaluations. Each tracker has a thread of its own
(tracker_thread.py), so that none can hold up or end a job. From the environment:

| variable | meaning, and what holds without it |
|---|---|
| MLFLOW_TRACKING_URI | a store or server (tracking_uri.py); without it an sqlite file among the job's outputs |
| MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT | else the recipe's `experiment` |
| WANDB_MODE | else online with a key and offline without |
| WANDB_SECRET_NAME | name of the secret that holds the W&B key (job.secrets) |
| WANDB_DIR | else the job's outputs |
| JOB_TRACKING_SECONDS | how long the job waits for a tracker at its start and at its end: 60 |
| WORKSHOP_GIT_REVISION | revision of the workshop that the job was started from |
"""

import atexit
import dataclasses
import importlib.util
import json
import logging
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast

from compat.mlflow_store import create_experiment
from rl.evaluation import Evaluation

from job.arguments import RunArguments
from job.container import is_main_process, output_data_dir, print_line
from job.record import SUMMARY
from job.secrets import read_secret
from job.tracker_thread import Tracker, patience
from job.tracking_uri import contact_problem, is_arn, own_store, uri_problem

_SQLITE = "sqlite:///"
SYSTEM_METRICS_SECONDS = 5  # between two samples of CPU, memory and GPUs
COLUMNS = (
    "index",
    "question",
    "answer",
    "decoding",
    "sample",
    "completion",
    "extracted",
    "correct",
    "formatted",
)


trackers: dict[str, Tracker] = {}  # those of this process, by name; only the main process has any


class Reporting(Protocol):
    """Where a trainer reports to: transformers' TrainingArguments, or 05's VerlJob."""

    report_to: Any  # a list of trackers' names
    run_name: str | None


class TrackingError(Exception):
    """A tracker that the recipe asks for cannot be used; the message says what to change."""


def start_tracking(job: RunArguments, config: Reporting, *, data_fingerprint: str) -> None:
    """Opens a run in each tracker that `config.report_to` names. Call it before the trainer is made.

    A server or store that cannot be used does not end the job: the run is kept among the job's outputs instead.

    Raises:
        TrackingError: a tracker is not installed, or MLflow's server is named wrongly.
        job.secrets.SecretError: the secret with a tracker's key cannot be read.
    """
    if not is_main_process():
        return
    facts = {
        "data_sha256": data_fingerprint,
        "git_revision": os.environ.get("WORKSHOP_GIT_REVISION", "unknown"),
        "job_name": os.environ.get("TRAINING_JOB_NAME", "none"),
    }
    for name, start in (("mlflow", _start_mlflow), ("wandb", _start_wandb)):
        if name in config.report_to:
            if importlib.util.find_spec(name) is None:
                raise TrackingError(
                    f"report_to names {name}, which is not installed: add it to requirements.txt."
                )
            start(job, config.run_name, facts)
    # Whatever way the script ends before finish_tracking, its runs do not look finished.
    atexit.register(_end_runs, succeeded=False)


def _start_mlflow(job: RunArguments, run_name: str | None, facts: dict[str, str]) -> None:
    import mlflow

    own = own_store(output_data_dir())
    uri = os.environ.get("MLFLOW_TRACKING_URI") or own
    if problem := uri_problem(uri):
        raise TrackingError(f"MLFLOW_TRACKING_URI: {problem}")
    if is_arn(uri) and importlib.util.find_spec("sagemaker_mlflow") is None:
        raise TrackingError(f"{uri} needs sagemaker-mlflow: add it to the job's requirements.txt.")
    # MLflow's own are 120 s and seven retries for each call.
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", f"{max(1, round(patience() / 6))}")
    os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
    tracker = trackers["mlflow"] = Tracker("mlflow", check=_check_store)

    def open_in(uri: str) -> None:
        mlflow.set_tracking_uri(uri)
        if problem := contact_problem(uri):
            raise TrackingError(problem)
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", job.experiment)
        if uri.startswith(_SQLITE):
            create_experiment(Path(uri.removeprefix(_SQLITE)), experiment)
        mlflow.set_experiment(experiment)
        mlflow.start_run(
            run_name=run_name,
            tags={"mlflow.source.git.commit": facts["git_revision"]},
            log_system_metrics=True,
        )
        mlflow.log_params(
            {**facts, **{f"job.{key}": value for key, value in dataclasses.asdict(job).items()}}
        )

    def start() -> None:
        try:
            open_in(uri)
        except Exception as error:  # of MLflow, SQLAlchemy, boto or a plugin
            if uri == own:
                raise
            while mlflow.active_run():  # it was opened, and then the store was lost
                mlflow.end_run("FAILED")
            open_in(own)
            said = str(error) if isinstance(error, TrackingError) else f"{uri}: {error}"
            tracker.moved(said, kept_in=own.removeprefix(_SQLITE))

    tracker.open(start)


def _start_wandb(job: RunArguments, run_name: str | None, facts: dict[str, str]) -> None:
    import wandb

    secret = os.environ.get("WANDB_SECRET_NAME")
    if secret:
        os.environ["WANDB_API_KEY"] = read_secret(secret, "WANDB_API_KEY")
    folder = Path(os.environ.get("WANDB_DIR") or output_data_dir())
    folder.mkdir(parents=True, exist_ok=True)
    tracker = trackers["wandb"] = Tracker("wandb")

    def open_as(mode: str) -> None:
        wandb.init(
            project=os.environ.get("WANDB_PROJECT", job.experiment),
            name=run_name,
            config={**facts, "job": dataclasses.asdict(job)},
            dir=folder,
            mode=cast(Any, mode),
            # The job's log has its own place; source code and git state come from the workshop's revision.
            settings=wandb.Settings(
                console="off",
                disable_code=True,
                disable_git=True,
                silent=True,
                init_timeout=patience() / 2,
                finish_timeout=0.8 * patience(),
                finish_timeout_raises=True,
            ),
        )

    def start() -> None:
        mode = os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline")
        try:
            if mode == "online":
                _knock(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
            open_as(mode)
        except Exception as error:  # of W&B or of the network
            if mode != "online":
                raise
            open_as("offline")
            kept = f"{folder / 'wandb'}"
            tracker.moved(f"W&B cannot be used: {type(error).__name__}: {error}. `wandb sync` uploads.", kept)

    tracker.open(start)


def _check_store() -> None:
    """Raises FileNotFoundError: into a database that was deleted sqlite goes on writing, and nobody will read it."""
    import mlflow

    uri = mlflow.get_tracking_uri()
    if uri.startswith(_SQLITE) and not Path(uri.removeprefix(_SQLITE)).exists():
        raise FileNotFoundError(f"{uri.removeprefix(_SQLITE)} is no longer there")


def _knock(url: str) -> None:
    """Raises OSError if nobody answers at a server's address; W&B's client would try for minutes."""
    try:
        with urllib.request.urlopen(url, timeout=max(1.0, patience() / 6)):
            pass
    except urllib.error.HTTPError:
        pass  # an answer, too


def log_evaluation(name: str, evaluation: Evaluation | None) -> None:
    """Prints an evaluation's figures and sends them, and the table of its completions, to the open runs.

    Args:
        name: "before" or "after"; it prefixes the metrics and names the table.
        evaluation: None where the job's time cap left no time for it.
    """
    if not is_main_process():
        return
    if evaluation is None:
        print_line(f"[evaluation] {name}: left out, there is no time for it within the job's time cap")
        return
    print_line(f"[evaluation] {name}: pass@1 {evaluation.greedy}; {evaluation.sampled}")
    if cut_off := _cut_off(evaluation):
        print_line(f"[evaluation] {name}: {cut_off}")
    metrics = {}
    for rate in (evaluation.greedy, evaluation.sampled):
        metrics |= {
            f"{name}/pass_at_1_{rate.decoding}": rate.value,
            f"{name}/pass_at_1_{rate.decoding}_low": rate.low,
            f"{name}/pass_at_1_{rate.decoding}_high": rate.high,
            f"{name}/format_rate_{rate.decoding}": evaluation.format_rate[rate.decoding],
            f"{name}/completion_length_{rate.decoding}": evaluation.mean_completion_length[rate.decoding],
            f"{name}/cut_off_{rate.decoding}": evaluation.cut_off[rate.decoding],
        }
    completions = evaluation.completions

    def to_mlflow() -> None:
        import mlflow

        mlflow.log_metrics(metrics)
        table = {column: [item[column] for item in completions] for column in COLUMNS}
        mlflow.log_table(table, artifact_file=f"evaluation_{name}.json")

    def to_wandb() -> None:
        import wandb

        rows: Any = [[item[column] for column in COLUMNS] for item in completions]
        wandb.log({**metrics, f"{name}/completions": wandb.Table(columns=list(COLUMNS), data=rows)})

    _send({"mlflow": to_mlflow, "wandb": to_wandb})


def _cut_off(evaluation: Evaluation) -> str | None:
    """How many completions were cut off; None if none were."""
    parts = []
    for decoding in evaluation.cut_off:
        items = [item for item in evaluation.completions if item["decoding"] == decoding]
        if cut := sum(item["cut_off"] for item in items):
            parts.append(f"{cut} of {len(items)} {decoding}")
    if not parts:
        return None
    return f"{' and '.join(parts)} completions were cut off at eval_max_new_tokens, before they could answer"


def finish_tracking() -> None:
    """Closes the runs as successful. What a tracker did not get is said in summary.json, which is written before."""
    _end_runs(succeeded=True)
    summary = output_data_dir() / SUMMARY
    troubles = {name: tracker.trouble for name, tracker in trackers.items() if tracker.trouble}
    if troubles and summary.is_file():
        record = json.loads(summary.read_text()) | {"not_tracked": troubles}
        summary.write_text(json.dumps(record, indent=2) + "\n")
    trackers.clear()


def _end_runs(succeeded: bool) -> None:
    def end_mlflow() -> None:
        import mlflow

        mlflow.end_run("FINISHED" if succeeded else "FAILED")

    def end_wandb() -> None:
        import wandb

        folder = Path(wandb.run.dir).parent if wandb.run else None
        try:
            wandb.finish(exit_code=0 if succeeded else 1)
        except TimeoutError as error:
            raise TimeoutError(
                f"W&B has not taken all of it. `wandb sync {folder}` uploads the rest"
            ) from error

    # W&B does not say which steps it has: of an online run that ends without an answer any may be missing.
    for name, end, step in (("mlflow", end_mlflow, None), ("wandb", end_wandb, 0)):
        if name in trackers:
            trackers[name].close(end, step)


def log_metrics(metrics: dict[str, Any], step: int) -> None:
    """Sends a step's numbers to the open runs, for trainers that do not do it themselves."""
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}

    def to_mlflow() -> None:
        import mlflow

        mlflow.log_metrics(numbers, step=step)

    def to_wandb() -> None:
        import wandb

        wandb.log(numbers, step=step)

    _send({"mlflow": to_mlflow, "wandb": to_wandb}, step)


def _send(calls: dict[str, Callable[[], None]], step: int | None = None) -> None:
    for name, tracker in trackers.items():
        tracker.send(calls[name], step)
