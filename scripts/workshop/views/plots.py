"""Draw training curves. Colours can be told apart by colour-blind readers (Okabe and Ito's palette)."""

import io
import math
from dataclasses import dataclass
from pathlib import Path

from job.metrics import Metrics
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

# Okabe and Ito's palette, without the yellow that is too light for lines.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
BLUE, VERMILLION, GREY, INK = *COLOURS[:2], "#8a8a8a", "#222222"
_SHADES = 7  # of each of these colours in a notebook's picture
_DPI = 110


@dataclass
class Plot:
    """A finished figure. A notebook shows it as PNG, a terminal as its one-line summary."""

    figure: Figure
    summary: str

    def _repr_png_(self) -> bytes:
        return png(self.figure)

    def __repr__(self) -> str:
        return self.summary

    def save(self, path: Path | str) -> Path:
        """Write the figure as PNG; return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png(self.figure))
        return path


@dataclass(frozen=True)
class Panel:
    """One curve: the name of the logged metric, its title, and the unit of y."""

    key: str
    title: str
    unit: str


# The four most telling curves of a GRPO run; KL is logged only with beta > 0, so there is a fifth to take its place.
PANELS = (
    Panel("reward", "Reward", "mean reward"),
    Panel("completions/mean_length", "Completion length", "tokens, mean"),
    Panel("entropy", "Entropy of the policy", "nats per token"),
    Panel("kl", "KL divergence from the base model", "nats per token"),
    Panel("frac_reward_zero_std", "Groups that teach nothing (all rewards equal)", "share of groups"),
)


def points(history: list[Metrics], key: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric; entries without it, or where it is not finite, are left out."""
    found = [(entry["step"], float(entry[key])) for entry in history if key in entry and "step" in entry]
    found = [(step, value) for step, value in found if math.isfinite(value)]
    return [step for step, _ in found], [value for _, value in found]


def moving_mean(values: list[float], window: int) -> list[float]:
    """Mean of each value and the up to `window` - 1 values before it."""
    means = []
    for end in range(1, len(values) + 1):
        recent = values[max(0, end - window) : end]
        means.append(sum(recent) / len(recent))
    return means


def smoothing_window(count: int) -> int:
    """Points to average for a curve of `count` points: about a tenth of it, 1 (no smoothing) below 10 points."""
    return 1 if count < 10 else max(3, round(count / 10))


def dress(axes: Axes, panel: Panel) -> None:
    """A panel's title, the unit of y, and the whole range where that is a share or percent; x are steps, which are whole."""
    axes.set_title(panel.title, loc="left", fontsize=11, color=INK)
    axes.set_ylabel(panel.unit, color=INK)
    if panel.unit.startswith("share"):
        axes.set_ylim(-0.05, 1.05)
    elif panel.unit.startswith("percent"):
        axes.set_ylim(-5, 105)
    axes.xaxis.set_major_locator(MaxNLocator("auto", steps=[1, 2, 5, 10], integer=True))
    clean(axes)


def draw_curve(axes: Axes, steps: list[float], values: list[float], panel: Panel) -> None:
    """One panel: every logged value thin, their moving mean bold, the last mean written at its end."""
    window = smoothing_window(len(values))
    means = moving_mean(values, window)
    marker = "o" if len(values) < 10 else None
    if window > 1:
        axes.plot(steps, values, color=BLUE, alpha=0.3, linewidth=1)
    axes.plot(steps, means, color=BLUE, linewidth=2, marker=marker, markersize=4, solid_capstyle="round")
    axes.annotate(
        f"{means[-1]:.3g}",
        (steps[-1], means[-1]),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        color=BLUE,
        fontweight="bold",
    )
    axes.set_xmargin(0.02)
    dress(axes, panel)


def clean(axes: Axes) -> None:
    """No frame where nothing is read off, a faint grid where something is."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(GREY)
    axes.tick_params(colors=INK, labelsize=9)
    axes.grid(axis="y", color=GREY, alpha=0.2, linewidth=0.8)
    axes.set_axisbelow(True)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of that size in inches, outside pyplot, so that a notebook shows it once and not twice."""
    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained", facecolor="white")


def png(figure: Figure) -> bytes:
    """The figure as PNG in the colours of this module and their lighter shades: a quarter of the size, which a notebook keeps
    for ever. A palette chosen for each picture mixes the colours of thin lines, and then they cannot be told apart.
    """
    full, small = io.BytesIO(), io.BytesIO()
    # Hinted, bold digits differ in shape with their position.
    with rc_context({"text.hinting": "no_hinting"}):
        figure.savefig(full, format="png")
    reduced = Image.open(full).convert("RGB").quantize(palette=_palette(), dither=Image.Dither.NONE)
    reduced.save(small, format="png", optimize=True)
    return small.getvalue()


def _palette() -> Image.Image:
    numbers = [255, 255, 255]
    for red_green_blue in map(to_rgb, (*COLOURS, GREY, INK)):
        for shade in range(1, _SHADES + 1):
            numbers += [round(255 * (1 - (1 - part) * shade / _SHADES)) for part in red_green_blue]
    palette = Image.new("P", (1, 1))
    palette.putpalette(numbers)
    return palette


def plot_training(history: list[Metrics]) -> Plot:
    """Curves of reward, completion length, entropy and KL over the optimizer's steps.

    `history` is what watch() returns or fetch_output() loads. KL is missing when the recipe's beta is 0 (no
    reference model); the share of groups whose rewards are all equal then takes its place.
    Raises ValueError when the history holds none of them.
    """
    curves = [(panel, *points(history, panel.key)) for panel in PANELS]
    curves = [curve for curve in curves if curve[1]][:4]
    if not curves:
        raise ValueError("There is nothing to plot: no entry of the history has a step and a reward.")
    rows = math.ceil(len(curves) / 2)
    figure = new_figure(9.5, 0.4 + 2.5 * rows)
    grid = list(figure.subplots(rows, 2, sharex=True, squeeze=False).flat)
    for axes, (panel, steps, values) in zip(grid, curves, strict=False):
        draw_curve(axes, steps, values, panel)
    for axes in grid[len(curves) :]:
        axes.remove()
    for axes in grid[: len(curves)][-2:]:  # the lowest of each column, also where nothing is drawn below it
        axes.tick_params(labelbottom=True)
    window = smoothing_window(len(curves[0][1]))
    note = f"   (thin: each logged step, bold: mean of the last {window})" if window > 1 else ""
    figure.supxlabel(f"optimizer step{note}", fontsize=10, color=INK)
    ends = [f"{panel.title} {values[0]:.3g} -> {values[-1]:.3g}" for panel, _, values in curves]
    return Plot(figure, f"Training curves over {curves[0][1][-1]} steps: {'; '.join(ends)}")
