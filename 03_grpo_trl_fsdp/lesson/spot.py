"""Take the machines of a spot job away on purpose, to see that it survives, and what it costs."""

import threading
import time
from typing import Any

from job.metrics import parse_metrics
from local_sagemaker import client
from matplotlib.ticker import MaxNLocator
from workshop.jobs.status import TERMINAL, LogReader, describe, job_name
from workshop.session.connection import WorkshopSession
from workshop.views.plots import BLUE, GREY, INK, VERMILLION, Plot, clean, new_figure

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
    thread = threading.Thread(target=_interrupt, args=(session.endpoint_url, name, step), daemon=True)
    thread.start()
    print(f"{name} loses its machine as soon as it has trained {step} steps.")
    return thread


def _interrupt(url: str, name: str, step: int) -> None:
    reader = LogReader(name)
    while describe(name)["TrainingJobStatus"] not in TERMINAL:
        metrics = [parse_metrics(line) for _, line in reader.new_events()]
        if any(entry and entry["step"] >= step for entry in metrics):
            client.call(url, "interrupt", name=name)
            return
        time.sleep(_POLL_S)


def logged_steps(job: Any) -> list[tuple[float, int]]:
    """Every optimizer step that a job's log reports, in order: seconds since the log's first line, and the step."""
    events = LogReader(job_name(job)).new_events()
    return [
        (moment - events[0][0], int(entry["step"]))
        for moment, line in events
        if (entry := parse_metrics(line))
    ]


def plot_attempts(steps: list[tuple[float, int]]) -> Plot:
    """When a job reported which step (`logged_steps`); steps that an interruption made it train again stand out."""
    first: list[tuple[float, int]] = []
    again: list[tuple[float, int]] = []
    for moment, step in steps:
        seen = {earlier for _, earlier in first}
        (again if step in seen else first).append((moment, step))
    figure = new_figure(9.5, 2.9)
    axes = figure.subplots()
    if again:  # the machine was lost after the last step of the first attempt, and before the first one trained again
        lost = max(moment for moment, _ in first if moment < again[0][0])
        axes.axvspan(lost, again[0][0], color=GREY, alpha=0.15, label="lost, and started anew", linewidth=0)
    for label, part, colour in (("trained", first, BLUE), ("trained again", again, VERMILLION)):
        if part:
            axes.plot(*zip(*part, strict=True), "o", color=colour, markersize=5, label=label)
    axes.set_xlabel("seconds since the first line of the log", color=INK)
    axes.set_ylabel("optimizer step", color=INK)
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)
    numbers = ", ".join(str(step) for _, step in again) or "none"
    return Plot(figure, f"Optimizer steps over time: {len(first)} trained; trained again: {numbers}")
