"""What a notebook shows of two evaluations: pass@1 with its interval, completions before and after side by side."""

import html
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest

from matplotlib.axes import Axes
from rl.comparison import check_same_problems, paired
from rl.evaluation import GREEDY, Completion, Evaluation, PassAtOne
from rl.statistics import Estimate
from rl.tasks import DataError

from workshop.errors import WorkshopError
from workshop.text_colours import BAD, GOOD
from workshop.views.html import HtmlView
from workshop.views.plots import BLUE, GREY, INK, VERMILLION, Plot, clean, new_figure

# (right before, right after) -> what training did to the problem
_CHANGES = {
    (False, True): "fixed",
    (True, False): "broken",
    (True, True): "still right",
    (False, False): "still wrong",
}
_LETTER = 0.014  # width of a letter of a label, as a share of the axis
_MARKS = {True: ("\u2713 right", GOOD), False: ("\u2717 wrong", BAD)}


class ReportError(WorkshopError):
    """Two evaluations cannot be compared: one is missing, or they are of different problems."""


def _both(before: Evaluation | None, after: Evaluation | None) -> tuple[Evaluation, Evaluation]:
    """The two. Raises ReportError: a job lacks one (it says why that may be), or they are of different problems."""
    if before is None or after is None:
        when = "before" if before is None else "after"
        raise ReportError(
            f"This job left no evaluation {when} training, so there is nothing to compare. A job that came near its "
            "time limit saves its model and ends without one: raise max_hours and run it again from its checkpoints "
            "(resume_from). Its summary and its log say whether that was so."
        )
    try:
        check_same_problems(before, after)
    except DataError as error:
        raise ReportError(str(error)) from error
    return before, after


def paired_comparison(before: Evaluation | None, after: Evaluation | None) -> HtmlView:
    """What differs between two evaluations of the same problems, in one line (rl.comparison.paired).

    Raises ReportError when the problems differ or a job left only one.
    """
    compared = paired(*_both(before, after))
    return HtmlView(f"<div>{html.escape(str(compared))}</div>", str(compared))


def plot_pass_at_1(before: Evaluation | None, after: Evaluation | None) -> Plot:
    """pass@1 before and after training, sampled and greedy, and pass@k of the k samples, with 95 % intervals.

    The intervals say how sure each value is. Whether training changed it is said by the lines below them, which compare
    the two problem by problem (rl.comparison.paired). Completions that were cut off count as wrong, so their share is
    written beside pass@1, unless it is 0. Raises ReportError when the problems differ or a job left only one.
    """
    before, after = _both(before, after)
    compared = paired(before, after)
    rows = _measures(before, after)
    figure = new_figure(7.5, 1.5 + 0.75 * len(rows))
    axes = figure.subplots()
    for y, (base, trained) in enumerate(rows.values()):
        _draw_estimate(axes, y - 0.16, base, f"before {_with_cut_off(before, base)}", VERMILLION)
        _draw_estimate(axes, y + 0.16, trained, f"after {_with_cut_off(after, trained)}", BLUE)
    axes.set_yticks(range(len(rows)), list(rows))
    axes.set_ylim(len(rows) - 0.5, -0.5)  # the first on top
    axes.set_xlim(0, 1)
    axes.set_xlabel(f"share of {before.greedy.n} held-out problems solved (bars: 95 % interval)", color=INK)
    difference = str(compared).replace("; ", "\n")
    figure.supxlabel(f"problem by problem, after - before: {difference}", fontsize=9, color=INK)
    clean(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GREY, alpha=0.2)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    texts = [
        f"{name.partition(chr(10))[0]} {_with_cut_off(before, base)} -> {_with_cut_off(after, trained)}"
        for name, (base, trained) in rows.items()
    ]
    return Plot(figure, f"before -> after training: {', '.join(texts)}; {compared}")


def _measures(before: Evaluation, after: Evaluation) -> dict[str, tuple[Estimate, Estimate]]:
    """Each measure's name, in two lines, with its values before and after; pass@k only where k is more than 1."""
    rows: dict[str, tuple[Estimate, Estimate]] = {
        "sampled pass@1\n(temperature 1)": (before.sampled, after.sampled),
        "greedy pass@1\n(most likely answer)": (before.greedy, after.greedy),
    }
    if (k := min(before.samples, after.samples)) > 1:
        rows[f"pass@{k}\n(any of {k} samples right)"] = (before.pass_at(k), after.pass_at(k))
    return rows


def _draw_estimate(axes: Axes, y: float, measured: Estimate, label: str, colour: str) -> None:
    """Its interval as a bar, its value as a dot, its label on the side with more room; above, where neither has enough."""
    axes.plot([measured.low, measured.high], [y, y], color=colour, linewidth=2.5, alpha=0.5, clip_on=False)
    axes.plot(measured.value, y, "o", color=colour, markersize=8, clip_on=False)
    left = measured.low > 1 - measured.high
    room = max(measured.low, 1 - measured.high)
    beside = room > 0.02 + _LETTER * len(label)
    axes.annotate(
        label,
        ((measured.low if left else measured.high) if beside else measured.value, y),
        xytext=((-7 if left else 7) if beside else 0, 0 if beside else 5),
        textcoords="offset points",
        ha="right" if left else "left",
        va="center" if beside else "bottom",
        color=colour,
        fontweight="bold",
    )


def _with_cut_off(evaluation: Evaluation, measured: Estimate) -> str:
    """The value, and where completions were cut off, their share."""
    share = evaluation.cut_off.get(measured.decoding, 0.0) if isinstance(measured, PassAtOne) else 0.0
    percent = f"{share:.0%}" if share >= 0.005 else "under 1%"
    return f"{measured.value:.3f}" + (f" ({percent} cut off)" if share else "")


def compare_completions(before: Evaluation | None, after: Evaluation | None, n: int = 6) -> HtmlView:
    """`n` problems with the greedy completion before and after training side by side, right or wrong marked.

    Takes problems of each kind in turn (fixed by training, broken by it, still right, still wrong), not the best
    looking ones; the caption counts all of them. Raises ReportError when the problems differ or a job left only one.
    """
    before, after = _both(before, after)
    first = {item["index"]: item for item in before.completions if item["decoding"] == GREEDY}
    second = {item["index"]: item for item in after.completions if item["decoding"] == GREEDY}
    kinds: dict[str, list[int]] = {kind: [] for kind in _CHANGES.values()}
    for index in sorted(first):
        kinds[_CHANGES[first[index]["correct"], second[index]["correct"]]].append(index)
    caption = f"{len(first)} problems: " + ", ".join(f"{len(found)} {kind}" for kind, found in kinds.items())
    chosen = list(_in_turn(kinds.values()))[:n]
    rows = [(first[index], second[index]) for index in chosen]
    return HtmlView(_completions_html(rows, caption), _completions_text(rows, caption))


def _in_turn(groups: Iterable[list[int]]) -> Iterator[int]:
    return (index for index in chain.from_iterable(zip_longest(*groups)) if index is not None)


def _completions_html(rows: list[tuple[Completion, Completion]], caption: str) -> str:
    left = 'style="text-align:left;vertical-align:top"'
    cells = "".join(
        f"<tr><td {left}>{html.escape(base['question'])}<br><b>answer: {html.escape(base['answer'])}</b></td>"
        f"<td {left}>{_completion_html(base)}</td><td {left}>{_completion_html(trained)}</td></tr>"
        for base, trained in rows
    )
    return (
        f"<table><caption>{html.escape(caption)}</caption><thead><tr><th {left}>problem</th>"
        f"<th {left}>before training</th><th {left}>after training</th></tr></thead><tbody>{cells}</tbody></table>"
    )


def _completion_html(item: Completion) -> str:
    mark, colour = _MARKS[item["correct"]]
    return (
        f'<b style="color:{colour}">{mark}</b> ({_length(item)})'
        f'<pre style="white-space:pre-wrap;margin:2px 0">{html.escape(item["completion"])}</pre>'
    )


def _completions_text(rows: list[tuple[Completion, Completion]], caption: str) -> str:
    lines = [caption]
    for base, trained in rows:
        lines += ["", f"{base['question']}  (answer: {base['answer']})"]
        for label, item in (("before", base), ("after", trained)):
            lines.append(f"  {label}, {_MARKS[item['correct']][0]}, {_length(item)}: {item['completion']!r}")
    return "\n".join(lines)


def _length(item: Completion) -> str:
    return f"{item['tokens']} tokens" + (", cut off" if item.get("cut_off") else "")
