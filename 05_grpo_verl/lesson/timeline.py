"""A picture of a job on Ray: which process did what, when. Drawn from the timeline.jsonl that the job wrote."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from rl.tasks import DataError
from verl_timeline import Stretch
from workshop.jobs.json_lines import read_json_lines
from workshop.views.comparisons import COLOURS
from workshop.views.plots import GREY, INK, Plot, clean, new_figure

MARGIN_S = 0.05  # shown before the first step and after the last one
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


class RoleStretch(Stretch):
    """A stretch of work of a process that the picture shows."""

    role: str  # a value of ROLES
    work: str  # a value of WORK


def read_timeline(path: Path | str) -> list[Stretch]:
    """The stretches of work in a job's timeline.jsonl.

    Raises:
        DataError: there is no such file.
        ValueError: a line is damaged that is not the last one of a job that was killed.
    """
    try:
        return read_json_lines(Path(path))
    except FileNotFoundError as error:
        raise DataError(
            f"There is no {path}: a job of 05_grpo_verl writes it when its training ends."
        ) from error


def plot_timeline(stretches: list[Stretch], *, last_step: int, steps: int = 2) -> Plot:
    """A line for each process, a bar for each stretch of work, over the last `steps` steps, or as many as there are.

    A step goes from one hand-over of weights to the next; the rollout gets the first weights before the first step. The
    steps are counted from the end, where the job was at `last_step`: of a long job Ray has dropped the first ones, and a job
    that went on from a checkpoint begins in the middle.

    Raises:
        DataError: there is no whole step.
    """
    shown = _with_roles(stretches)
    handed_over = _hand_overs(shown)[-steps - 1 :]
    if len(handed_over) < 2:
        raise DataError(
            "The timeline has no whole step: two hand-overs of weights, and what is between them."
        )
    start, end = handed_over[0] - MARGIN_S, handed_over[-1] + MARGIN_S
    rows = _rows(shown)
    figure = new_figure(10.5, 1.3 + 0.42 * len(rows))
    axes = figure.subplots()
    for number, work in enumerate(WORK.values()):
        for y, worker in enumerate(rows):
            spans = [
                (max(item["start"], start) - start, min(item["end"], end) - max(item["start"], start))
                for item in shown
                if (item["worker"], item["work"]) == (worker, work)
                and start < item["end"]
                and item["start"] < end
            ]
            if spans:
                label = work if work not in axes.get_legend_handles_labels()[1] else None
                axes.broken_barh(spans, (y - 0.34, 0.68), color=COLOURS[number % len(COLOURS)], label=label)
    for time in handed_over[1:]:
        axes.axvline(time - start, color=GREY, linewidth=1, linestyle="--")
    axes.set_yticks(range(len(rows)), rows.values())
    axes.set_xlim(0, end - start)
    axes.invert_yaxis()
    first_step = last_step - len(handed_over) + 2
    which = f"step {last_step}" if first_step == last_step else f"steps {first_step} to {last_step}"
    axes.set_xlabel(f"seconds; dashed: the rollout has the weights of the next step ({which})")
    clean(axes)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    figure.legend(loc="outside upper left", ncols=3, frameon=False, labelcolor=INK)
    return Plot(figure, f"{len(rows)} processes over {end - start:.1f} s: {', '.join(rows.values())}")


def _with_roles(stretches: list[Stretch]) -> list[RoleStretch]:
    """The stretches whose process is in ROLES and whose method is in WORK."""
    shown = []
    for stretch in stretches:
        role = _match(stretch["call"].split(".")[0], ROLES)
        work = _match(stretch["call"], WORK)
        if role and work:
            shown.append(RoleStretch(**stretch, role=role, work=work))
    return shown


def _hand_overs(shown: list[RoleStretch]) -> list[float]:
    """When the weights were handed over, in seconds (Unix time), by the clock of one process that does it."""
    updates = [item for item in shown if item["work"] == WORK["update_weights"]]
    return sorted(item["end"] for item in updates if item["worker"] == updates[0]["worker"])


def phase_seconds(history: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Mean seconds of each part of a step, by verl's own names; `other` is what verl does not time.

    Args:
        history: the metrics of the steps to average over, one or more.
    """
    names = dict.fromkeys(key for row in history for key in row if key.startswith("timing_s/"))
    parts = {
        name.removeprefix("timing_s/"): sum(row.get(name, 0.0) for row in history) / len(history)
        for name in names
    }
    whole = sum(row["step_time"] for row in history) / len(history)
    return {**parts, "other": max(0.0, whole - sum(parts.values()))}


def _match(text: str, table: dict[str, str]) -> str | None:
    return next((value for key, value in table.items() if key in text), None)


def _rows(shown: list[RoleStretch]) -> dict[str, str]:
    """Name of each process by Ray's id of it, in the order of ROLES; with its host where there are several."""
    workers = {item["worker"]: item for item in shown}
    hosts = sorted({item["host"] for item in shown})
    rows = {}
    for role in ROLES.values():
        of_role = sorted((item["host"], worker) for worker, item in workers.items() if item["role"] == role)
        for number, (host, worker) in enumerate(of_role):
            name = f"{role} {number}" if len(of_role) > 1 else role
            rows[worker] = f"{name}, host {hosts.index(host) + 1}" if len(hosts) > 1 else name
    return rows
