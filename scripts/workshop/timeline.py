"""A picture of a job on Ray: which process did what, when. Drawn from the timeline.jsonl that the job wrote."""

import json
from pathlib import Path

from rl.tasks import DataError

from workshop.comparisons import COLOURS
from workshop.plots import GREY, INK, Plot, clean, new_figure

# Ray's class of a process -> what it is called in the picture, in this order from top to bottom
ROLES = {
    "AgentLoopWorker": "agent loop",
    "Server": "rollout server",
    "RewardLoopWorker": "rewards",
    "WorkerDict": "training process",
}
# part of a method's name -> what it does
WORK = {
    "generate": "write completions",
    "compute_score": "score them",
    "log_prob": "their log probabilities",
    "update_actor": "learn",
    "update_weights": "hand over the weights",
    "save_checkpoint": "save a checkpoint",
}


def read_timeline(path: Path | str) -> list[dict]:
    """Stretches of work: {"host", "worker", "call", "start", "end", "calls"}, times in s. Raises DataError."""
    try:
        return [json.loads(line) for line in Path(path).read_text(encoding="utf-8").splitlines()]
    except FileNotFoundError as error:
        raise DataError(
            f"There is no {path}: a job of 05_grpo_verl writes it when its training ends."
        ) from error


def plot_timeline(stretches: list[dict], *, first_step: int, steps: int = 2) -> Plot:
    """A line for each process, a bar for each stretch of work, over so many steps.

    A step goes from one hand-over of weights to the next; the rollout gets the first weights before the first step.

    Raises DataError when the job did not get that far.
    """
    known = [
        {**stretch, "role": role, "work": work}
        for stretch in stretches
        for role, work in [(_match(stretch["call"].split(".")[0], ROLES), _match(stretch["call"], WORK))]
        if role and work
    ]
    one = next((item["worker"] for item in known if item["work"] == WORK["update_weights"]), None)
    handed = sorted(
        item["end"] for item in known if item["work"] == WORK["update_weights"] and item["worker"] == one
    )
    if len(handed) <= first_step + steps - 1:
        raise DataError(
            f"The timeline has {max(0, len(handed) - 1)} whole steps; steps {first_step} to {first_step + steps - 1} are not there."
        )
    start, end = handed[first_step - 1] - 0.05, handed[first_step + steps - 1] + 0.05
    rows = _rows(known)
    figure = new_figure(10.5, 1.3 + 0.42 * len(rows))
    axes = figure.subplots()
    for number, work in enumerate(WORK.values()):
        for y, worker in enumerate(rows):
            spans = [
                (max(item["start"], start) - start, min(item["end"], end) - max(item["start"], start))
                for item in known
                if item["worker"] == worker
                and item["work"] == work
                and start < item["end"]
                and item["start"] < end
            ]
            if spans:
                label = work if work not in axes.get_legend_handles_labels()[1] else None
                axes.broken_barh(spans, (y - 0.34, 0.68), color=COLOURS[number % len(COLOURS)], label=label)
    for time in handed[first_step : first_step + steps]:
        axes.axvline(time - start, color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), rows.values())
    axes.set_xlim(0, end - start)
    axes.invert_yaxis()
    axes.set_xlabel(
        f"seconds; dashed: the rollout has the weights of the next step (steps {first_step} to {first_step + steps - 1})"
    )
    clean(axes)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)
    return Plot(figure, f"{len(rows)} processes over {end - start:.1f} s: {', '.join(rows.values())}")


def phase_seconds(history: list[dict]) -> dict[str, float]:
    """Mean seconds of each part of a step, by verl's own names; `other` is what verl does not time."""
    names = dict.fromkeys(key for row in history for key in row if key.startswith("timing_s/"))
    parts = {
        name.removeprefix("timing_s/"): sum(row.get(name, 0.0) for row in history) / len(history)
        for name in names
    }
    whole = sum(row["step_time"] for row in history) / len(history)
    return {**parts, "other": max(0.0, whole - sum(parts.values()))}


def _match(text: str, table: dict[str, str]) -> str | None:
    return next((value for key, value in table.items() if key in text), None)


def _rows(known: list[dict]) -> dict[str, str]:
    """Name of each process by Ray's id of it, in the order of ROLES; with its host where there are several."""
    workers = {item["worker"]: item for item in known}
    hosts = sorted({item["host"] for item in known})
    rows = {}
    for role in ROLES.values():
        of_role = sorted((item["host"], worker) for worker, item in workers.items() if item["role"] == role)
        for number, (host, worker) in enumerate(of_role):
            name = f"{role} {number}" if len(of_role) > 1 else role
            rows[worker] = f"{name}, host {hosts.index(host) + 1}" if len(hosts) > 1 else name
    return rows
