"""Runs side by side: what is drawn is what was logged."""

import io
import math

import numpy as np
import pytest
from PIL import Image
from rl.tasks import DataError
from workshop.views.comparisons import HEALTH, plot_parts, plot_runs
from workshop.views.plots import COLOURS, Panel, png

RUNS = {
    "healthy": [{"step": 1, "reward": 0.5, "entropy": 0.9}, {"step": 2, "reward": 0.6, "entropy": 0.8}],
    "sick": [{"step": 1, "reward": 0.4, "frac_reward_zero_std": 1.0}],
}


def lines(axes) -> dict[str, list[float]]:
    return {line.get_label(): list(line.get_ydata()) for line in axes.get_lines()}


def test_each_logged_measure_has_a_panel_and_each_run_a_line():
    plot = plot_runs(RUNS)
    panels = {axes.get_title(loc="left"): lines(axes) for axes in plot.figure.axes}
    assert panels.keys() == {panel.title for panel in HEALTH if panel.title != "Completions cut off"}
    assert panels["Reward"] == {"healthy": [0.5, 0.6], "sick": [0.4]}
    assert panels["Groups that teach nothing"]["healthy"] == []
    assert "Reward" in repr(plot) and plot._repr_png_().startswith(b"\x89PNG")


def test_runs_without_any_of_the_measures_are_refused():
    with pytest.raises(DataError, match="nothing to plot"):
        plot_runs({"empty": [{"step": 1, "loss": 0.1}]})


def test_bars_are_made_of_their_parts():
    plot = plot_parts(
        {"one": {"weights": 2.0, "cache": 0.0, "optimizer": 4.0}, "two": {"weights": 1.0}},
        "GB",
        {"24 GB": 24},
    )
    (axes,) = plot.figure.axes
    widths = [[bar.get_width() for bar in part] for part in axes.containers]
    assert widths == [[2.0, 1.0], [4.0, 0.0]]
    assert [bar.get_x() for bar in axes.containers[1]] == [2.0, 1.0]
    assert "one 6, two 1" in repr(plot)


def test_a_notebooks_picture_keeps_the_colours_of_thin_lines():
    steps = range(80)
    runs = {
        f"run {n}": [{"step": s, "reward": math.sin(s / 9 + n)} for s in steps] for n in range(len(COLOURS))
    }
    picture = Image.open(io.BytesIO(png(plot_runs(runs, (Panel("reward", "Reward", "mean reward"),)).figure)))
    found = np.array(picture.convert("RGB")).reshape(-1, 3)
    for colour in COLOURS:
        wanted = np.array([int(colour[place : place + 2], 16) for place in (1, 3, 5)])
        assert np.abs(found.astype(int) - wanted).max(axis=1).min() <= 12, colour


def test_percent_is_drawn_from_nothing_to_all():
    history = [{"step": step, "cpu": 40.0 + step} for step in range(5)]
    (axes,) = plot_runs({"W&B": history}, (Panel("cpu", "CPU", "percent of all cores"),)).figure.axes
    assert axes.get_ylim() == (-5, 105)


def test_what_a_process_holds_keeps_its_colour():
    def colours(parts):
        legend = plot_parts({"a": parts}, "MB").figure.legends[0]
        handles = zip(legend.get_texts(), legend.get_patches(), strict=True)
        return {text.get_text(): patch.get_facecolor() for text, patch in handles}

    few, all_parts = (
        {"parameters": 1.0, "optimizer": 2.0},
        {"parameters": 1.0, "gathered": 1.0, "optimizer": 1.0},
    )
    assert colours(few).items() <= colours(all_parts).items()
