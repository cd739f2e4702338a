"""Runs side by side: what is drawn is what was logged."""

import pytest
from rl.tasks import DataError
from workshop.views.comparisons import HEALTH, plot_parts, plot_runs

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
