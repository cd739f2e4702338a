"""Two processes that make an MLflow experiment in one new store at once, as two jobs do.

A module of its own, so that the processes import MLflow and not the training libraries too.
"""

import multiprocessing
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def in_a_job_of_its_own(
    store: Path, temporary: Path, barrier: Any, results: Any, function: Callable[[Path, str], None]
) -> None:
    """Calls the function as a job would that has its own folder for temporary files; says what came of it."""
    os.environ["TMPDIR"] = str(temporary)  # as each job has its own
    tempfile.tempdir = None
    import mlflow

    mlflow.set_tracking_uri(f"sqlite:///{store}")
    barrier.wait()
    try:
        function(store, "shared")
        results.put("made")
    except Exception as error:
        results.put(f"{type(error).__name__}: {error}")


def bare(store: Path, name: str) -> None:
    """What a job would do without compat."""
    import mlflow

    mlflow.create_experiment(name)


def two_at_once(folder: Path, function: Callable[[Path, str], None]) -> list[str]:
    """What two processes with a folder for temporary files each say, which make an experiment in one new store."""
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    temporary = [folder / "a", folder / "b"]
    for path in temporary:
        path.mkdir(parents=True)
    processes = [
        context.Process(
            target=in_a_job_of_its_own, args=(folder / "mlflow.db", path, barrier, results, function)
        )
        for path in temporary
    ]
    for process in processes:
        process.start()
    said = [results.get(timeout=120) for _ in processes]
    for process in processes:
        process.join(timeout=60)
    return said
