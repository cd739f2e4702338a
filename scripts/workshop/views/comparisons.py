"""Several runs in the same panels: which of them is well, and from which step on the others are not."""

from job.metrics import Metrics
from rl.tasks import DataError

from workshop.views.plots import COLOURS, GREY, INK, Panel, Plot, clean, dress, new_figure, points

# What a process holds keeps its colour from figure to figure, whichever parts there are.
_PLACES = {"parameters": 0, "gathered": 1, "gradients": 2, "optimizer": 3, "activations": 4, "kv cache": 5}
HEALTH = (
    Panel("reward", "Reward", "mean reward"),
    Panel("frac_reward_zero_std", "Groups that teach nothing", "share of groups"),
    Panel("completions/clipped_ratio", "Completions cut off", "share of completions"),
    Panel("entropy", "Entropy of the policy", "nats per token"),
)


def plot_runs(
    runs: dict[str, list[Metrics]],
    panels: tuple[Panel, ...] = HEALTH,
    columns: int = 2,
    x_label: str = "optimizer step",
) -> Plot:
    """One panel for each measure, one line for each run (name: history).

    Raises DataError when no run has logged any of the measures.
    """
    shown = [panel for panel in panels if any(points(history, panel.key)[0] for history in runs.values())]
    if not shown:
        raise DataError("There is nothing to plot: none of the runs has logged one of these measures.")
    rows = -(-len(shown) // columns)
    figure = new_figure(min(4.75 * columns, 9.5), 0.7 + 2.3 * rows)
    grid = list(figure.subplots(rows, columns, squeeze=False).flat)
    for axes, panel in zip(grid, shown, strict=False):
        for number, (name, history) in enumerate(runs.items()):
            steps, values = points(history, panel.key)
            axes.plot(steps, values, color=COLOURS[number % len(COLOURS)], linewidth=2, label=name)
        dress(axes, panel)
    for axes in grid[len(shown) :]:
        axes.remove()
    handles, labels = grid[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside upper left", ncols=len(labels), frameon=False, labelcolor=INK)
    figure.supxlabel(x_label, fontsize=10, color=INK)
    return Plot(figure, f"{', '.join(panel.title for panel in shown)} of {', '.join(runs)}")


def plot_parts(rows: dict[str, dict[str, float]], unit: str, limits: dict[str, float] | None = None) -> Plot:
    """A bar for each row, made of its parts (name: size), with thin lines at the named limits."""
    figure = new_figure(9.5, 1.3 + 0.42 * len(rows))
    axes = figure.subplots()
    names = [
        part
        for part in dict.fromkeys(part for parts in rows.values() for part in parts)
        if any(parts.get(part) for parts in rows.values())
    ]
    left = [0.0] * len(rows)
    for number, name in enumerate(names):
        sizes = [parts.get(name, 0.0) for parts in rows.values()]
        colour = COLOURS[_PLACES.get(name, number) % len(COLOURS)]
        axes.barh(list(rows), sizes, left=left, height=0.62, label=name, color=colour)
        left = [start + size for start, size in zip(left, sizes, strict=True)]
    for y, total in enumerate(left):
        axes.annotate(
            f"{total:.3g}", (total, y), (4, 0), textcoords="offset points", va="center", color=INK, zorder=4,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5},  # a limit may run through it
        )  # fmt: skip
    for name, size in (limits or {}).items():
        axes.axvline(size, color=GREY, linewidth=1, linestyle="--")
        axes.annotate(
            name, (size, 1), (0, 2), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="center", va="bottom", color=INK, fontsize=8,
        )  # fmt: skip
    axes.invert_yaxis()
    axes.set_xlabel(unit)
    clean(axes)
    axes.grid(axis="y", visible=False)
    axes.tick_params(axis="y", length=0)
    figure.legend(loc="outside upper left", ncols=len(names), frameon=False, labelcolor=INK)
    totals = ", ".join(f"{name} {total:.3g}" for name, total in zip(rows, left, strict=True))
    return Plot(figure, f"{unit}: {totals}")
