"""An MLflow experiment in an sqlite store that several jobs share (MLflow 3.17.2).

Two things go wrong without help. MLflow's own lock around the making of its tables lies among temporary files, of which
each job has its own, so two jobs that make the tables at once both fail. And an experiment that is made without a
location keeps its artifacts in the current folder, which a job loses.
"""

from pathlib import Path


def create_experiment(store: Path, name: str) -> None:
    """Makes the experiment in the sqlite file `store`, which MLflow must be set to, unless it is there."""
    import mlflow
    from filelock import FileLock

    store = store.absolute()
    store.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(store.with_name(f"{store.name}.lock")):
        if mlflow.get_experiment_by_name(name) is None:
            mlflow.create_experiment(name, artifact_location=(store.parent / "artifacts" / name).as_uri())
