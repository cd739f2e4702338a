"""What a notebook shows of 4 bits: blocks of weights packed by hand, and measurements.json, exports.json and gradients.json,
the reports of 04's measuring jobs."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from rl.statistics import McNemar, mcnemar, wilson_interval
from rl.tasks import DataError
from workshop.views.html import HtmlView, table
from workshop.views.plots import BLUE, COLOURS, GREY, INK, VERMILLION, Plot, clean, new_figure

MB = 1e6
_CHANCE = 0.05  # a p-value below it is taken for a difference


def plot_packed(blocks: dict[str, np.ndarray], through_4_bits: Callable[[np.ndarray], np.ndarray]) -> Plot:
    """Each block's weights before and after packing; the largest, which sets the scale, is left out.

    Args:
        blocks: title -> weights, of shape (n,).
        through_4_bits: gives a block as it is after it was packed and unpacked.
    """
    figure = new_figure(4.75 * len(blocks), 3.4)
    texts = []
    for axes, (title, weights) in zip(
        figure.subplots(1, len(blocks), sharey=True, squeeze=False).flat, blocks.items(), strict=True
    ):
        unpacked = through_4_bits(weights)
        usual = np.abs(weights) < np.abs(weights).max()
        before, after = weights[usual], unpacked[usual]
        error = np.linalg.norm(after - before) / np.linalg.norm(before)
        texts.append(f"{title}: error {error:.0%}, {len(set(after))} levels in use")
        axes.axline((0, 0), slope=1, color=GREY, linewidth=0.8)
        axes.plot(before, after, "o", color=BLUE, markersize=4)
        axes.set_title(texts[-1].replace(": ", "\n"), loc="left", fontsize=10, color=INK)
        axes.set_xlabel("weight", color=INK)
        axes.set_ylabel("after 4 bits", color=INK)
        clean(axes)
    return Plot(figure, "; ".join(texts))


def read_report(folder: Path | str, name: str) -> dict[str, Any]:
    """A JSON report out of a job's output folder (`fetch_output(...).data`).

    Raises:
        DataError: the job left no such report, or a damaged one.
    """
    path = Path(folder) / name
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        there = ", ".join(sorted(found.name for found in Path(folder).glob("*.json"))) or "none"
        raise DataError(f"There is no {name} in {folder} (reports there: {there}).") from error
    except ValueError as error:
        raise DataError(f"{path} is damaged: {error}") from error


def measurement_table(reports: dict[str, dict[str, Any]]) -> HtmlView:
    """A line for each model and precision. `reports` maps a model's title to its measurements.json."""
    header = (
        "model",
        "weights kept in",
        "bytes",
        "bytes a weight",
        "most held while loading",
        "most held in all",
        "a step",
        "loss",
    )
    rows = [
        (
            title,
            precision,
            f"{found['weights_bytes']:,}",
            f"{found['weights_bytes'] / report['parameters']:.2f}",
            f"{found['peak_bytes']['loaded'] / MB:,.0f} MB",
            f"{found['peak_bytes']['trained'] / MB:,.0f} MB",
            f"{found['step_seconds']:.2f} s",
            f"{found['loss']:.3f}",
        )
        for title, report in reports.items()
        for precision, found in report["precisions"].items()
    ]
    devices = ", ".join(sorted({report["device"] for report in reports.values()}))
    caption = f"measured on {devices}; loss: of one fixed batch, before any training"
    slow = [
        f"{title} in {precision}"
        for title, report in reports.items()
        for precision, found in report["precisions"].items()
        if not found["timed_steps"]
    ]
    if slow:
        caption += (
            f". {', '.join(slow)}: the time is that of the first step, which the others would have been below; this "
            "machine was too slow to time them"
        )
    return table(header, rows, caption=caption)


def plot_measurements(reports: dict[str, dict[str, Any]]) -> Plot:
    """A row of three panels for each model: bytes of the weights, peak memory, seconds a step."""
    figure = new_figure(9.5, 0.4 + 1.9 * len(reports))
    grid = figure.subplots(len(reports), 3, squeeze=False)
    texts = []
    for row, (title, report) in zip(grid, reports.items(), strict=True):
        found = report["precisions"]
        names = list(found)
        weights = [item["weights_bytes"] / MB for item in found.values()]
        moments = ("imported", "loaded", "trained")
        peaks = [[item["peak_bytes"][moment] / MB for moment in moments] for item in found.values()]
        seconds = [item["step_seconds"] for item in found.values()]
        _bars(row[0], names, [[0.0, size, size] for size in weights], "weights, MB")
        _bars(row[1], names, peaks, "peak memory, MB")
        _bars(row[2], names, [[0.0, size, size] for size in seconds], "a training step, s")
        row[0].set_ylabel(title, color=INK)
        texts.append(
            f"{title}: "
            + ", ".join(
                f"{n} {w:.3g} MB, at most {p[-1]:,.0f} MB held, {s:.2g} s"
                for n, w, p, s in zip(names, weights, peaks, seconds, strict=True)
            )
        )
    note = "memory: grey, before the model is loaded (Python, PyTorch, Unsloth); full colour, until it is; pale, in training"
    figure.supxlabel(note, fontsize=9, color=INK)
    return Plot(figure, "; ".join(texts))


def export_table(report: dict[str, Any]) -> HtmlView:
    """A line for each export of an exports.json: its size, what it can do after a reload, and what it is.

    What it can do is compared problem by problem, with the base before training and with the first export.
    """
    base, exports = report["base"]["right"], report["exports"]
    first = next(iter(exports))
    rows = [("(before training)", "", _rate(base), "", "", "the base alone")]
    for name, found in exports.items():
        right = found["right"]
        beside = "" if name == first else _difference(mcnemar(exports[first]["right"], right))
        rows.append(
            (
                name,
                f"{found['bytes']:,}",
                _rate(right),
                _difference(mcnemar(base, right)),
                beside,
                found["note"],
            )
        )
    header = ("export", "bytes", "greedy pass@1", "against the base", f"against {first}", "what it is")
    return table(header, rows, f"after a reload from disk, {len(base)} problems; p: the exact McNemar test's")


def plot_exports(report: dict[str, Any]) -> Plot:
    """pass@1 of each export after a reload with its 95 % interval; the dashed line is the base before training.

    Training is kept where more problems are fixed than broken, and McNemar's test does not put that down to chance.
    """
    exports, base = report["exports"], report["base"]["right"]
    before = sum(base) / len(base)
    figure = new_figure(8.5, 0.9 + 0.42 * len(exports))
    axes = figure.subplots()
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    texts = []
    for y, (name, found) in enumerate(exports.items()):
        right, change = found["right"], mcnemar(base, found["right"])
        value, (low, high) = sum(right) / len(right), wilson_interval(sum(right), len(right))
        kept = change.fixed > change.broken and change.p_value < _CHANCE
        colour = BLUE if kept else VERMILLION
        # Wilson's ends can miss 0 and 1 by a rounding error.
        errors = [[max(0.0, value - low)], [max(0.0, high - value)]]
        axes.errorbar(value, y, xerr=errors, fmt="o" if kept else "X", color=colour, capsize=3, markersize=7)
        label = f"{value:.3f}" + ("" if kept else ": training lost")
        axes.annotate(
            label, (high, y), (6, 0), textcoords="offset points", va="center", color=colour, bbox=box
        )
        texts.append(f"{name} {label}")
    axes.axvline(before, color=GREY, linestyle="--", linewidth=1)
    axes.annotate(
        "before training", (before, 1), (3, 2), xycoords=("data", "axes fraction"),
        textcoords="offset points", color=INK, fontsize=9,
    )  # fmt: skip
    axes.set_yticks(range(len(exports)), list(exports))
    axes.set_xlim(-0.03, 1.15)
    axes.set_xlabel(f"greedy pass@1 on {len(base)} held-out problems after a reload from disk", color=INK)
    axes.invert_yaxis()
    clean(axes)
    return Plot(figure, f"greedy pass@1 after a reload: {'; '.join(texts)}; before training {before:.3f}")


def gradient_table(report: dict[str, Any]) -> HtmlView:
    """A line for each check of a gradients.json: cosine with the true gradients, or what backward ended with."""
    rows = [
        (
            found["model"],
            found["way"],
            f"{found['cosine']:.3f}" if found["error"] is None else "none",
            "" if found["error"] is None else f"backward fails: {found['error']}",
        )
        for found in report["checks"]
    ]
    where = (
        "on a CPU with AVX512-BF16"
        if report["trap"]
        else "here, where AVX512-BF16 is not in use: there is no trap"
    )
    caption = f"gradients after a generate, {where} (bitsandbytes {report['bitsandbytes']})"
    return table(("model", "loaded", "cosine with the true gradients", ""), rows, caption)


def _bars(axes: Axes, names: list[str], heights: list[list[float]], title: str) -> None:
    """One horizontal bar a precision with its total written at its end.

    Args:
        heights: for each precision three sizes, none below the one before: up to the first the bar is grey, up to the
            second it has its colour, up to the last that colour is pale.
    """
    ends = np.array(heights)
    axes.barh(names, ends[:, 0], color=GREY, alpha=0.5, height=0.6)
    for column, alpha in ((1, 1.0), (2, 0.45)):
        start, end = ends[:, column - 1], ends[:, column]
        if (end > start).any():  # a bar of no length would fix the axis' end
            axes.barh(names, end - start, left=start, color=COLOURS[: len(names)], height=0.6, alpha=alpha)
    for y, total in enumerate(ends[:, -1]):
        text = f"{total:,.0f}" if total >= 100 else f"{total:.3g}"
        axes.annotate(
            text, (total, y), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
        )
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xmargin(0.25)
    axes.invert_yaxis()
    clean(axes)
    axes.grid(axis="y", visible=False)


def _rate(right: list[bool]) -> str:
    low, high = wilson_interval(sum(right), len(right))
    return f"{sum(right) / len(right):.3f} [{low:.3f}, {high:.3f}]"


def _difference(change: McNemar) -> str:
    """ "81 fixed, 1 broken, p < 0.001"."""
    p = f"p = {change.p_value:.3f}" if change.p_value >= 0.001 else "p < 0.001"
    return f"{change.fixed} fixed, {change.broken} broken, {p}"
