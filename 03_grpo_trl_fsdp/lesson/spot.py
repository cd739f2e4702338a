"""Take the machines of a spot job away on purpose, to see that it survives."""

import threading
from typing import Any

from job.metrics import parse_metrics
from local_sagemaker import client
from workshop.jobs.status import TERMINAL, LogReader, describe, job_name
from workshop.session.connection import WorkshopSession

_POLL_S = 0.5


def interrupt_at_step(session: WorkshopSession, job: Any, step: int) -> threading.Thread | None:
    """Order an interruption as soon as a spot job's log shows that it has trained `step` steps.

    The order comes from a thread, which is returned, so that the notebook can go on to watch the job. A job that ends
    before it gets that far is left alone. On AWS nothing is done: there the service takes spot machines back when it
    needs them, and nobody can order it.
    """
    name = job_name(job)
    if session.endpoint_url is None:
        print(
            f"{name}: on AWS an interruption cannot be ordered. The service takes a spot instance back when it"
        )
        print("needs it, with two minutes' notice, and starts the job again when there is capacity.")
        return None
    thread = threading.Thread(
        target=_interrupt, args=(session.endpoint_url, name, step, threading.Event()), daemon=True
    )
    thread.start()
    print(f"{name} loses its machine as soon as it has trained {step} steps.")
    return thread


def _interrupt(url: str, name: str, step: int, pause: threading.Event) -> None:
    reader = LogReader(name)
    while describe(name)["TrainingJobStatus"] not in TERMINAL:
        metrics = [parse_metrics(line) for _, line in reader.new_events()]
        if any(entry and entry["step"] >= step for entry in metrics):
            client.call(url, "interrupt", name=name)
            return
        pause.wait(_POLL_S)
