"""Recorded runs over several seeds: one line and one band for each variant, and a run of today on top of them.

    recorded = read_recorded("recorded", "rates")
    plot_seeds(recorded, HEALTH, live={"3e-4": history})
    seeds_table(recorded, {"pass@1": "after/pass_at_1_sampled"})

scripts/record_seeds.py makes what is read here (docs/recorded-runs.md).
"""

import csv
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from job.metrics import Metrics
from matplotlib.axes import Axes
from rl.spelling import unknown_name
from rl.tasks import DataError

from workshop.views.html import HtmlView, table
from workshop.views.plots import (
    COLOURS,
    INK,
    Panel,
    Plot,
    dress,
    moving_mean,
    new_figure,
    points,
    smoothing_window,
)

_TEXTS = {"variant", "fingerprint", "recorded", "machine", "revision", "torch", "transformers", "trl", "verl"}
_DASHES = ("-", (0, (4, 1.5)), (0, (1, 1)))  # solid; more variants than colours: dashed, then dotted


@dataclass(frozen=True)
class Recorded:
    """An experiment's runs.

    Attributes:
        curves: variant -> seed -> history, as `fetch_output` has it: one dict a logged step.
        results: a row for each variant and seed: evaluations before and after, and what the run took.
    """

    experiment: str
    curves: dict[str, dict[int, list[Metrics]]] = field(repr=False)
    results: list[dict[str, Any]] = field(repr=False)

    @property
    def variants(self) -> list[str]:
        """In the order of experiments.yaml."""
        return list(dict.fromkeys(row["variant"] for row in self.results))

    def values(self, variant: str, column: str) -> list[float]:
        """A column of the results, one value a seed; seeds without it are left out."""
        rows = [row for row in self.results if row["variant"] == variant]
        return [row[column] for row in rows if column in row]

    def note(self, variants: Sequence[str] = ()) -> str:
        """How many seeds, when, and on what: "recorded: 3 seeds, 2026-11-26, Intel Xeon, 2 cores"."""
        rows = [row for row in self.results if not variants or row["variant"] in variants]
        seeds = [sum(row["variant"] == name for row in rows) for name in {row["variant"] for row in rows}]
        days = sorted({str(row["recorded"]) for row in rows if "recorded" in row})
        machines = dict.fromkeys(str(row["machine"]) for row in rows if "machine" in row)
        count = f"{min(seeds)} to {max(seeds)}" if min(seeds) < max(seeds) else str(min(seeds))
        when = " to ".join(dict.fromkeys([*days[:1], *days[-1:]]))
        return ", ".join(
            filter(None, [f"recorded: {count} seed{'s' * (count != '1')}", when, "; ".join(machines)])
        )


def recorded_files(folder: Path | str, experiment: str) -> tuple[Path, Path]:
    """Where an experiment's results and its curves are kept."""
    return Path(folder) / f"{experiment}.csv", Path(folder) / f"{experiment}-curves.csv"


def read_recorded(folder: Path | str, experiment: str) -> Recorded:
    """The runs of an experiment. Raises DataError when there are none, or a file is no table of them."""
    files = recorded_files(folder, experiment)
    results, curves = map(_read, files)
    if not results:
        raise DataError(f"{files[0]} holds no run.")
    histories: dict[str, dict[int, list[Metrics]]] = {}
    for row in results:
        histories.setdefault(row["variant"], {})[row["seed"]] = []
    for row in curves:
        metrics = {name: value for name, value in row.items() if name not in ("variant", "seed")}
        if row["seed"] in histories.get(row["variant"], {}):
            histories[row["variant"]][row["seed"]].append(metrics)
    return Recorded(experiment, histories, results)


def _read(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        known = sorted(file.stem for file in path.parent.glob("*.csv") if not file.stem.endswith("-curves"))
        raise DataError(
            f"There is no {path}. Recorded there: {', '.join(known) or 'nothing'}. scripts/record_seeds.py records an "
            "experiment."
        )
    with open(path, encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    try:
        rows = [{name: _value(name, text) for name, text in line.items() if text} for line in lines]
    except (ValueError, TypeError) as error:
        raise DataError(f"{path} is no table of recorded runs: {error}") from error
    if not all({"variant", "seed"} <= row.keys() for row in rows):
        raise DataError(f"{path} is no table of recorded runs: a line has no variant or no seed")
    return rows


def _value(name: str, text: str) -> str | int | float:
    if name in _TEXTS:
        return text
    return int(text) if name in ("seed", "step") else float(text)


def plot_seeds(
    recorded: Recorded,
    panels: Sequence[Panel],
    live: Mapping[str, list[Metrics]] | None = None,
    *,
    variants: Sequence[str] = (),
    columns: int = 2,
    x_label: str = "optimizer step",
) -> Plot:
    """One panel for each measure: for each variant the mean of its seeds, and a band from the lowest to the highest.

    Before that each run becomes a moving mean over a tenth of what it logged, as in `plot_training`: a band of single steps
    would show how noisy a step is, and not how far seeds are apart.

    Args:
        live: variant -> history of a run that was just made, averaged alike and drawn bold on top in its variant's colour.
        variants: those to draw; all, if empty.

    Raises DataError: an unknown variant, or no run has logged any of the measures.
    """
    live, chosen = live or {}, _chosen(recorded, variants, live or {})
    shown = [panel for panel in panels if any(_lines(recorded, name, panel.key) for name in chosen)]
    chosen = [name for name in chosen if any(_lines(recorded, name, panel.key) for panel in shown)]
    if not shown:
        raise DataError("There is nothing to plot: none of the runs has logged one of these measures.")
    rows = -(-len(shown) // columns)
    width = min(4.75 * columns, 9.5)  # what a notebook shows without making it smaller
    figure = new_figure(width, 0.9 + 2.3 * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    window = 1
    for axes, panel in zip(grid, shown, strict=False):
        for number, name in enumerate(chosen):
            style = {
                "color": COLOURS[number % len(COLOURS)],
                "linestyle": _DASHES[number // len(COLOURS) % len(_DASHES)],
            }
            averaged = _draw_band(axes, name, _lines(recorded, name, panel.key), style)
            window = max(window, averaged)
            if name in live:
                steps, values = points(live[name], panel.key)
                axes.plot(
                    steps,
                    moving_mean(values, averaged),
                    linewidth=3,
                    label=f"{name}, live",
                    zorder=3,
                    **style,
                )
        dress(axes, panel)
    for axes in grid[len(shown) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    fit = int(width / (0.65 + 0.085 * max(map(len, labels))))  # inches: of the figure, of a name
    beside = {"ncols": max(1, min(len(labels), fit)), "frameon": False, "labelcolor": INK}
    figure.legend(handles, labels, loc="outside upper left", **beside)
    note = recorded.note(chosen)
    means = "moving means; " if window > 1 else ""
    bold = "; bold: live" if live else ""
    drawn = f"{x_label} ({means}line: mean of the seeds, band: lowest to highest{bold})"
    figure.supxlabel(f"{drawn}\n{note}", fontsize=9, color=INK)
    return Plot(figure, f"{', '.join(panel.title for panel in shown)} of {', '.join(chosen)}; {note}")


def _chosen(recorded: Recorded, variants: Sequence[str], live: Mapping[str, Any]) -> list[str]:
    for name in (*variants, *live):
        if name not in recorded.variants:
            raise DataError(f"{recorded.experiment}: {unknown_name('variant', name, recorded.variants)}")
    return list(dict.fromkeys([*variants, *live])) if variants else recorded.variants


def _lines(recorded: Recorded, variant: str, key: str) -> list[tuple[list[float], list[float]]]:
    """Steps and values of one measure, for each seed that has logged it."""
    found = [points(history, key) for history in recorded.curves[variant].values()]
    return [(steps, values) for steps, values in found if steps]


def _draw_band(
    axes: Axes, name: str, lines: list[tuple[list[float], list[float]]], style: dict[str, Any]
) -> int:
    """Draws a variant's mean and band; returns over how many points a run was averaged."""
    by_step: dict[float, list[float]] = {}
    window = max((smoothing_window(len(values)) for _, values in lines), default=1)
    for steps, values in lines:
        for step, value in zip(steps, moving_mean(values, window), strict=True):
            by_step.setdefault(step, []).append(value)
    steps = sorted(by_step)
    marker = "o" if len(steps) < 10 else None
    means = [statistics.fmean(by_step[step]) for step in steps]
    lowest, highest = ([pick(by_step[step]) for step in steps] for pick in (min, max))
    axes.plot(steps, means, linewidth=1.5, label=name, marker=marker, markersize=3, **style)
    axes.fill_between(steps, lowest, highest, color=style["color"], alpha=0.18, linewidth=0)
    return window


def seeds_table(recorded: Recorded, columns: Mapping[str, str], variants: Sequence[str] = ()) -> HtmlView:
    """A row for each variant: the mean over its seeds, and how far they are apart: the lowest and the highest.

    Args:
        columns: title -> column of the results, such as {"pass@1": "after/pass_at_1_sampled"}.
        variants: those to show; all that have any of the columns, if empty.

    Raises DataError: an unknown variant or column.
    """
    known = list(dict.fromkeys(name for row in recorded.results for name in row if name not in _TEXTS))
    for column in columns.values():
        if column not in known:
            raise DataError(f"{recorded.experiment}: {unknown_name('column', column, known)}")
    chosen = _chosen(recorded, variants, {})
    rows = [
        [name, *(_spread(recorded.values(name, column)) for column in columns.values())] for name in chosen
    ]
    shown = [row for row in rows if variants or any(row[1:])]
    spread = (
        "mean (lowest to highest seed); " if any("(" in text for row in shown for text in row[1:]) else ""
    )
    return table(["", *columns], shown, spread + recorded.note([row[0] for row in shown]))


def _spread(values: list[float]) -> str:
    """ "0.934 (0.912 to 0.951)"; a single value, or equal ones, without the brackets."""
    if not values:
        return ""
    digits = 3 if max(map(abs, values)) < 10 else 0
    mean, lowest, highest = (
        f"{number:,.{digits}f}" for number in (statistics.fmean(values), min(values), max(values))
    )
    return mean if lowest == highest else f"{mean} ({lowest} to {highest})"
