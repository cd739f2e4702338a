"""What `measure_parallel.py` found, as tables and pictures: is it the same, who holds what, what is sent, who waits for whom."""

import json
import math
from pathlib import Path
from typing import Any

from rl.tasks import DataError
from workshop.views.comparisons import COLOURS
from workshop.views.html import HtmlView, table
from workshop.views.plots import INK, Plot, clean, new_figure

Report = dict[str, Any]  # as measure_parallel.py writes it
# What a weight belongs to, by a part of its name; the first that fits
_PARTS = (
    ("norm", "norms"),
    ("embed", "embedding and head"),
    ("output_layer", "embedding and head"),
    ("attn", "attention"),
    ("attention", "attention"),
    ("mlp", "MLP"),
)
_PHASES = {"forward": COLOURS[0], "backward": COLOURS[1]}


def read_parallel(path: Path | str) -> Report:
    """The report of a job that ran measure_parallel.py.

    Raises:
        DataError: there is none.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise DataError(f"There is no {path}: measure_parallel.py writes it when it is done.") from error


def equality_table(report: Report) -> HtmlView:
    """How far each layout is from one process: the largest differences of log-probabilities and of gradients."""
    rows = [
        (name, "2", "-", f"{found['gradient_difference']:.1e}", f"{found['largest_gradient']:.1f}")
        for name, found in ((f"by hand: {name}", found) for name, found in report["by_hand"].items())
    ]
    rows += [
        (
            name,
            str(len(found["parameters"])),
            f"{found['log_prob_difference']:.1e}",
            f"{found['gradient_difference']:.1e}",
            f"{found['largest_gradient']:.1f}",
        )
        for name, found in list(report["layouts"].items())[1:]
    ]
    head = ("", "processes", "log-probabilities", "gradients", "the largest gradient")
    return table(head, rows, "largest difference to one process")


def held_parts(report: Report, layouts: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Thousands of parameters that each process holds, by part of the model: rows for `workshop.plot_parts`."""
    rows = {}
    for name in layouts:
        for rank, held in enumerate(report["layouts"][name]["held"]):
            parts: dict[str, float] = {}
            for weight, shape in held.items():
                part = next(part for word, part in _PARTS if word in weight)
                parts[part] = parts.get(part, 0.0) + math.prod(shape) / 1e3
            layers = {weight.split("layers.")[1].split(".")[0] for weight in held if "layers." in weight}
            rows[f"{name}, process {rank}: {len(layers)} layers"] = parts
    return rows


def traffic_table(report: Report, layouts: tuple[str, ...]) -> HtmlView:
    """What process 0 hands to others in one forward and backward pass: calls and megabytes of each kind."""
    kinds = list(dict.fromkeys(kind for name in layouts for kind in report["layouts"][name]["sent"][0]))
    rows = []
    for name in layouts:
        sent = report["layouts"][name]["sent"][0]
        cells = [
            f"{sent[kind]['calls']} x, {sent[kind]['megabytes']:.2f} MB" if kind in sent else "-"
            for kind in kinds
        ]
        rows.append((name, *cells))
    return table(("", *kinds), rows, "what process 0 sends in one forward and backward pass")


def idle_share(stages: list[list[dict[str, Any]]]) -> float:
    """Share of the time of all stages in which they do not compute, from the first forward pass to the last backward."""
    start, end = _span(stages)
    busy = sum(interval["end"] - interval["start"] for stage in stages for interval in stage)
    return 1 - busy / (len(stages) * (end - start))


def bubble(stages: int, micro_batches: int) -> float:
    """The idle share of a pipeline whose stages all take equally long: (p - 1) / (m + p - 1).

    Narayanan et al. 2021, https://arxiv.org/abs/2104.04473, section 2.2.1, has (p - 1) / m, measured against the ideal time.
    """
    return (stages - 1) / (micro_batches + stages - 1)


def bubble_table(report: Report) -> HtmlView:
    """The measured idle share of a pipeline beside the formula's, for each number of micro batches."""
    rows = [
        (count, f"{idle_share(stages):.2f}", f"{bubble(len(stages), int(count)):.2f}")
        for count, stages in report["pipeline"].items()
    ]
    return table(("micro batches", "measured", "formula"), rows, "share of the time in which a stage waits")


def plot_pipeline(report: Report, micro_batches: int) -> Plot:
    """A line for each stage, a bar for each forward and backward pass of a micro batch, with its number."""
    stages = report["pipeline"][str(micro_batches)]
    start, end = _span(stages)
    figure = new_figure(10, 1.5 + 0.5 * len(stages))
    axes = figure.subplots()
    for y, stage in enumerate(stages):
        counts = dict.fromkeys(_PHASES, 0)
        for interval in stage:
            phase, length = interval["phase"], interval["end"] - interval["start"]
            counts[phase] += 1
            axes.barh(
                y,
                length * 1e3,
                left=(interval["start"] - start) * 1e3,
                height=0.66,
                color=_PHASES[phase],
                edgecolor="white",
                label=phase if counts[phase] == 1 and y == 0 else None,
            )
            middle = (interval["start"] + length / 2 - start) * 1e3
            axes.annotate(
                str(counts[phase]), (middle, y), ha="center", va="center", color="white", fontsize=8
            )
    axes.set_yticks(range(len(stages)), [f"stage {number}" for number in range(len(stages))])
    axes.invert_yaxis()
    axes.set_xlim(0, (end - start) * 1e3)
    axes.set_xlabel("milliseconds", color=INK)
    clean(axes)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK)
    share = idle_share(stages)
    return Plot(
        figure,
        f"{len(stages)} stages at work on {micro_batches} micro batches; {share:.0%} of the time they wait",
    )


def _span(stages: list[list[dict[str, Any]]]) -> tuple[float, float]:
    intervals = [interval for stage in stages for interval in stage]
    return min(interval["start"] for interval in intervals), max(interval["end"] for interval in intervals)
