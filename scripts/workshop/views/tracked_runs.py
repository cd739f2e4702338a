"""What MLflow kept of jobs: on a server or in a shared database if the session has one, else in each job's own output.

    tracked_runs([output, other], ws.tracking_uri, ["status", "params.learning_rate"])
    print(browse_runs(output, ws.tracking_uri))

A job's own database is never opened where it was fetched to. It is copied beside the fetched folder, and the copy's
artifacts, which the job knew by a path in its container, are pointed to where they are now.
"""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pandas as pd
from job.tracking_uri import OWN_STORE, contact_problem, is_arn, is_server, uri_problem

from workshop.errors import WorkshopError
from workshop.folders import REPOSITORY
from workshop.jobs.outputs import JobOutput

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


class TrackedRunError(WorkshopError):
    """MLflow has no run of the job, or cannot be reached."""


def tracked_runs(
    outputs: JobOutput | Sequence[JobOutput],
    tracking_uri: str | None = None,
    columns: Sequence[str] | None = None,
) -> pd.DataFrame:
    """The MLflow run of each job: a row for each, named by the job.

    Args:
        outputs: what `fetch_output` returned, of one job or of several.
        tracking_uri: the session's (`ws.tracking_uri`); None: each job's own output is read.
        columns: which to show, None where a run has no such value; default: all. They are named as
            `mlflow.search_runs` names them: status, start_time, params.<name>, metrics.<name> (the last value),
            tags.<name>.

    Raises TrackedRunError when a job has no run, or the server cannot be reached.
    """
    rows = {}
    for output in [outputs] if isinstance(outputs, JobOutput) else outputs:
        with open_run(output, tracking_uri) as (_, run):
            row = {
                "status": run.info.status,
                "start_time": pd.Timestamp(run.info.start_time, unit="ms", tz="UTC"),
            }
            for kind in ("params", "metrics", "tags"):
                row |= {f"{kind}.{name}": value for name, value in getattr(run.data, kind).items()}
            rows[output.name] = row
    table = pd.DataFrame.from_dict(rows, orient="index")
    return table if columns is None else table.reindex(columns=list(columns))


@contextmanager
def open_run(output: JobOutput, tracking_uri: str | None = None) -> Iterator["tuple[MlflowClient, Run]"]:
    """MLflow's client and the job's run, found by the job's name among the parameters, for as long as the block lasts.

    An interrupted job has a run for each attempt; the last one is given. Raises TrackedRunError.
    """
    import mlflow

    store = tracking_store(output, tracking_uri)
    before = mlflow.get_tracking_uri() if mlflow.is_tracking_uri_set() else None
    mlflow.set_tracking_uri(store)  # sagemaker-mlflow looks there, whatever the client is told
    try:
        if problem := contact_problem(store):
            raise TrackedRunError(problem)
        client = mlflow.MlflowClient()
        experiments = [experiment.experiment_id for experiment in client.search_experiments()]
        found = client.search_runs(
            experiments,
            filter_string=f"params.job_name = '{output.name}'",
            max_results=1,
            order_by=["attributes.start_time DESC"],
        )
        if not found:
            raise TrackedRunError(
                f"MLflow at {_shown(store)} has no run of {output.name}: does the recipe's report_to name mlflow, and "
                "did the job get as far as its first step?"
            )
        yield client, found[0]
    finally:
        mlflow.set_tracking_uri(cast(str, before))  # None unsets it


def tracking_store(output: JobOutput, tracking_uri: str | None = None) -> str:
    """The MLflow tracking URI under which the job's run is found. Raises TrackedRunError.

    A job that could not reach the session's MLflow keeps its run in its own output: there it is looked for first.
    """
    if not tracking_uri or (output.data and (output.data / OWN_STORE).is_file()):
        return f"sqlite:///{_copy_of_own_store(output)}"
    if problem := uri_problem(tracking_uri):
        raise TrackedRunError(problem)
    return tracking_uri


def browse_runs(output: JobOutput, tracking_uri: str | None = None) -> str:
    """Where to look at the job's run in MLflow's own pages, in a sentence."""
    store = tracking_store(output, tracking_uri)
    if is_arn(store):
        return "In SageMaker Studio, open MLflow in the applications, and there " + store.rpartition("/")[2]
    if is_server(store):
        return f"In a browser: {store}"
    return f"In the workshop's folder: .venv/bin/mlflow ui --backend-store-uri {_shown(store)}"


def _shown(store: str) -> str:
    """A database of this checkout by its path in it."""
    return store.replace(f"sqlite:///{REPOSITORY}{os.sep}", "sqlite:///")


def _copy_of_own_store(output: JobOutput) -> Path:
    """Makes the copy unless it is there: a finished job's output never changes."""
    if output.data is None or not (output.data / OWN_STORE).is_file():
        raise TrackedRunError(
            f"{output.name} kept no MLflow run in its output: does the recipe's report_to name mlflow? If the job logged "
            "to a server, pass its address: tracking_uri=..."
        )
    data = output.data.resolve()
    copy = data.with_name(OWN_STORE)
    if not copy.is_file():
        with tempfile.TemporaryDirectory(dir=data.parent) as folder:
            fresh = Path(folder) / OWN_STORE
            # With what an interrupted job left in the journal beside it.
            for path in data.glob(f"{OWN_STORE}*"):
                shutil.copy(path, folder)
            with closing(sqlite3.connect(fresh)) as database:
                _point_to(database, data)
            fresh.replace(copy)  # whole or not at all
    return copy


def _point_to(database: sqlite3.Connection, data: Path) -> None:
    """Replaces the container's output folder by `data` in all artifact locations."""
    for identifier, name, old in database.execute(
        "select experiment_id, name, artifact_location from experiments"
    ).fetchall():
        end = Path("/artifacts", name).as_uri().removeprefix("file://")  # as compat/mlflow_store.py makes it
        if not (old or "").endswith(end):
            continue
        new = data.as_uri() + end
        database.execute(
            "update experiments set artifact_location = ? where experiment_id = ?", (new, identifier)
        )
        database.execute(
            "update runs set artifact_uri = ? || substr(artifact_uri, ?) where experiment_id = ?",
            (new, len(old) + 1, identifier),
        )
    database.commit()
