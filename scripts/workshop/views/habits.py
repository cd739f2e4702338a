"""How models answer, side by side: which habit is how frequent, and how often each is right."""

from matplotlib.axes import Axes
from matplotlib.patches import Patch
from rl.evaluation import GREEDY, SAMPLED, Evaluation
from rl.habits import DIRECT, HABITS, THINKS, UNFORMATTED, Habit, false_step_share, habits
from rl.statistics import Estimate
from rl.tasks import DataError

from workshop.views.html import HtmlView, table
from workshop.views.plots import COLOURS, GREY, INK, Plot, clean, new_figure

# A habit keeps its colour, whichever of them the models have, with the text that can be read on it.
_COLOURS = {THINKS: (COLOURS[0], "white"), DIRECT: (COLOURS[5], INK), UNFORMATTED: ("#cfcfcf", INK)}
_NOTHING = "\u2013"  # there is nothing to measure
_NARROW, _TOO_NARROW = 0.13, 0.05  # a part of a bar that holds only its share, and one that holds no text


def habits_table(evaluations: dict[str, Evaluation]) -> HtmlView:
    """Two rows for each model (name: evaluation), sampled and greedy: its habits, and what comes of them.

    `false steps` is the share of thinking with a wrong sum in it, among thinking that has sums at all (rl.habits).
    pass@1 and pass@k have their 95 % intervals over problems; k is the least number of samples that a model has, of those
    with more than one: pass@k of another k could not be compared.
    Raises DataError when there is no evaluation.
    """
    _check(evaluations)
    # One sample of a problem makes no pass@k: it would be pass@1, which is there already.
    k = min((found.samples for found in evaluations.values() if found.samples > 1), default=1)
    header = ["decoding", "model", *HABITS, "right when it thinks", "false steps", "pass@1"]
    header += [f"pass@{k}"] if k > 1 else []
    rows = []
    for decoding in (SAMPLED, GREEDY):
        for name, evaluation in evaluations.items():
            found = habits(evaluation)[decoding]
            row = [decoding, name, *(_percent(found[habit].share) for habit in HABITS)]
            row += [_percent(found[THINKS].right), _percent(false_step_share(evaluation, decoding))]
            row.append(_interval(evaluation.sampled if decoding == SAMPLED else evaluation.greedy))
            if k > 1:
                measured = decoding == SAMPLED and evaluation.samples >= k
                row.append(_interval(evaluation.pass_at(k)) if measured else _NOTHING)
            rows.append(row)
    explained = "false steps: of the thinking with sums in it, what has a wrong one"
    return table(header, rows, caption=f"{_sizes(evaluations, SAMPLED)}; {explained}")


def plot_habits(evaluations: dict[str, Evaluation], decoding: str = SAMPLED) -> Plot:
    """A bar for each model (name: evaluation), made of its habits; in each part its share, and how much of it is right.

    Raises DataError when there is no evaluation, or another decoding than "sampled" or "greedy".
    """
    _check(evaluations)
    if decoding not in (SAMPLED, GREEDY):
        raise DataError(f"decoding is {SAMPLED!r} or {GREEDY!r}, not {decoding!r}.")
    found = {name: habits(evaluation)[decoding] for name, evaluation in evaluations.items()}
    figure = new_figure(9.5, 1.2 + 0.6 * len(found))
    axes = figure.subplots()
    for name, parts in found.items():
        _draw_bar(axes, name, parts)
    keys = [Patch(color=_COLOURS[habit][0], label=habit) for habit in HABITS]
    figure.legend(handles=keys, loc="outside upper left", ncols=len(HABITS), frameon=False, labelcolor=INK)
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    axes.set_xlabel(f"share of {decoding} completions ({_sizes(evaluations, decoding)})", color=INK)
    clean(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GREY, alpha=0.2)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    return Plot(
        figure, f"{decoding}: " + "; ".join(f"{name} {_text(parts)}" for name, parts in found.items())
    )


def _draw_bar(axes: Axes, name: str, parts: dict[str, Habit]) -> None:
    left = 0.0
    for habit in HABITS:
        part, (colour, ink) = parts[habit], _COLOURS[habit]
        axes.barh([name], [part.share], left=left, height=0.68, color=colour)
        right = f"\n{_percent(part.right)} right" if part.share >= _NARROW else ""
        if part.share >= _TOO_NARROW:
            middle = (left + part.share / 2, name)
            axes.annotate(
                f"{_percent(part.share)}{right}", middle, color=ink, fontsize=9, ha="center", va="center"
            )
        left += part.share


def _text(parts: dict[str, Habit]) -> str:
    return ", ".join(
        f"{habit} {_percent(part.share)}" + (f" ({_percent(part.right)} right)" if part.count else "")
        for habit, part in parts.items()
    )


def _percent(share: float | None) -> str:
    """A share as a percentage; a dash where there is nothing that it could be a share of."""
    return _NOTHING if share is None else f"{share:.1%}"


def _interval(measured: Estimate) -> str:
    return f"{measured.value:.3f} [{measured.low:.3f}, {measured.high:.3f}]"


def _sizes(evaluations: dict[str, Evaluation], decoding: str) -> str:
    """Problems, and of sampled decoding the samples of each: one number where all have the same, else all in order."""
    problems = "/".join(map(str, dict.fromkeys(found.greedy.n for found in evaluations.values())))
    samples = "/".join(map(str, dict.fromkeys(found.samples for found in evaluations.values())))
    return f"{problems} problems" + (f", samples of each: {samples}" if decoding == SAMPLED else "")


def _check(evaluations: dict[str, Evaluation]) -> None:
    missing = [name for name, evaluation in evaluations.items() if evaluation is None]
    if not evaluations or missing:
        raise DataError(
            f"There is no evaluation{' of ' + ', '.join(missing) if missing else ''} to show. A job that came near its "
            "time limit ends without one: its summary and its log say whether that was so."
        )
