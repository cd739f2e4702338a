"""What a notebook shows of measurements.json, exports.json and gradients.json, the reports of 04's measuring jobs."""

import json
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from rl.tasks import DataError
from workshop.views.comparisons import COLOURS
from workshop.views.html import HtmlView, table
from workshop.views.plots import BLUE, GREY, INK, VERMILLION, Plot, clean, new_figure

MB = 1e6


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
        "peak memory",
        "a step",
        "loss",
        "greedy pass@1",
    )
    rows = [
        (
            title,
            precision,
            f"{found['weights_bytes']:,}",
            f"{found['weights_bytes'] / report['parameters']:.2f}",
            f"{found['peak_bytes']['trained'] / MB:,.0f} MB",
            f"{found['step_seconds']:.2f} s",
            f"{found['loss']:.3f}",
            _rate(found["greedy"]),
        )
        for title, report in reports.items()
        for precision, found in report["precisions"].items()
    ]
    devices = ", ".join(sorted({report["device"] for report in reports.values()}))
    return table(
        header, rows, caption=f"measured on {devices}; loss: of one fixed batch, before any training"
    )


def plot_measurements(reports: dict[str, dict[str, Any]]) -> Plot:
    """A row of three panels for each model: bytes of the weights, peak memory, seconds a step."""
    figure = new_figure(9.5, 0.4 + 1.9 * len(reports))
    grid = figure.subplots(len(reports), 3, squeeze=False)
    texts = []
    for row, (title, report) in zip(grid, reports.items(), strict=True):
        found = report["precisions"]
        names = list(found)
        weights = [item["weights_bytes"] / MB for item in found.values()]
        imported = [item["peak_bytes"]["imported"] / MB for item in found.values()]
        grown = [
            item["peak_bytes"]["trained"] / MB - start
            for item, start in zip(found.values(), imported, strict=True)
        ]
        seconds = [item["step_seconds"] for item in found.values()]
        _bars(row[0], names, weights, "weights, MB")
        _bars(row[1], names, grown, "peak memory, MB", below=imported)
        _bars(row[2], names, seconds, "a training step, s")
        row[0].set_ylabel(title, color=INK)
        texts.append(
            f"{title}: "
            + ", ".join(f"{n} {w:.3g} MB, {s:.2g} s" for n, w, s in zip(names, weights, seconds, strict=True))
        )
    figure.supxlabel(
        "grey: held before the model is loaded (Python, PyTorch, Unsloth)", fontsize=9, color=INK
    )
    return Plot(figure, "; ".join(texts))


def export_table(report: dict[str, Any]) -> HtmlView:
    """A line for each export of an exports.json: what it is, its size, and what it can do after a reload."""
    rows = [("(before training)", "", _rate(report["base"]["greedy"]), "the untrained base")]
    rows += [
        (name, f"{found['bytes']:,}", _rate(found["greedy"]), found["note"])
        for name, found in report["exports"].items()
    ]
    return table(("export", "bytes", "greedy pass@1 after a reload", "what it is"), rows)


def plot_exports(report: dict[str, Any]) -> Plot:
    """pass@1 of each export after a reload with its 95 % interval; the dashed line is the untrained base."""
    exports = report["exports"]
    figure = new_figure(8.5, 0.9 + 0.42 * len(exports))
    axes = figure.subplots()
    base = report["base"]["greedy"]
    box = {"facecolor": "white", "edgecolor": "none", "pad": 1}
    for y, found in enumerate(exports.values()):
        rate = found["greedy"]
        kept = rate["low"] > base["high"]
        colour = BLUE if kept else VERMILLION
        # Wilson's ends can miss 0 and 1 by a rounding error.
        errors = [[max(0.0, rate["value"] - rate["low"])], [max(0.0, rate["high"] - rate["value"])]]
        axes.errorbar(
            rate["value"], y, xerr=errors, fmt="o" if kept else "X", color=colour, capsize=3, markersize=7
        )
        label = f"{rate['value']:.3f}" + ("" if kept else ": training lost")
        axes.annotate(
            label, (rate["high"], y), (6, 0), textcoords="offset points", va="center", color=colour, bbox=box
        )
    axes.axvline(base["value"], color=GREY, linestyle="--", linewidth=1)
    axes.annotate(
        "untrained", (base["value"], 1), (3, 2), xycoords=("data", "axes fraction"),
        textcoords="offset points", color=INK, fontsize=9,
    )  # fmt: skip
    axes.set_yticks(range(len(exports)), list(exports))
    axes.set_xlim(-0.03, 1.15)
    axes.set_xlabel(f"greedy pass@1 on {base['n']} held-out problems after a reload from disk")
    axes.invert_yaxis()
    clean(axes)
    return Plot(
        figure, "; ".join(f"{name} {found['greedy']['value']:.3f}" for name, found in exports.items())
    )


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


def _bars(
    axes: Axes, names: list[str], sizes: list[float], title: str, below: list[float] | None = None
) -> None:
    """One horizontal bar a precision with its total written at its end; `below` is drawn grey and first."""
    start = below or [0.0] * len(sizes)
    axes.barh(names, start, color=GREY, alpha=0.5, height=0.6)
    axes.barh(names, sizes, left=start, color=COLOURS[: len(names)], height=0.6)
    for y, (size, offset) in enumerate(zip(sizes, start, strict=True)):
        total = size + offset
        text = f"{total:,.0f}" if total >= 100 else f"{total:.3g}"
        axes.annotate(
            text, (total, y), (4, 0), textcoords="offset points", va="center", color=INK, fontsize=9
        )
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.set_xmargin(0.25)
    axes.invert_yaxis()
    clean(axes)
    axes.grid(axis="y", visible=False)


def _rate(measured: dict[str, Any]) -> str:
    return f"{measured['value']:.3f} [{measured['low']:.3f}, {measured['high']:.3f}]"
