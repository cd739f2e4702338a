"""What a notebook shows of two evaluations: pass@1 with its interval, completions before and after side by side."""

import html
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest

from rl.evaluation import GREEDY, Completion, Evaluation, PassAtOne

from workshop.errors import WorkshopError
from workshop.views.html import HtmlView
from workshop.views.plots import BLUE, GREY, INK, VERMILLION, Plot, clean, new_figure

# (right before, right after) -> what training did to the problem
_CHANGES = {
    (False, True): "fixed",
    (True, False): "broken",
    (True, True): "still right",
    (False, False): "still wrong",
}
_MARKS = {True: ("\u2713 right", "#00694d"), False: ("\u2717 wrong", "#b04a00")}


class ReportError(WorkshopError):
    """Two evaluations cannot be compared: one is missing, or they are of different problems."""


def _both(before: Evaluation | None, after: Evaluation | None) -> tuple[Evaluation, Evaluation]:
    """The two. Raises ReportError, which says why a job may lack one."""
    if before is None or after is None:
        when = "before" if before is None else "after"
        raise ReportError(
            f"This job left no evaluation {when} training, so there is nothing to compare. A job that came near its "
            "time limit saves its model and ends without one: raise max_hours and run it again from its checkpoints "
            "(resume_from). Its summary and its log say whether that was so."
        )
    return before, after


def plot_pass_at_1(before: Evaluation | None, after: Evaluation | None) -> Plot:
    """pass@1 before and after training, greedy and sampled, with 95 % Wilson intervals over the same problems.

    Where the two intervals of a pair do not touch, the difference is not chance. Completions that were cut off count as
    wrong, so their share is written beside the value, unless it is 0. Raises ReportError when a job left only one.
    """
    before, after = _both(before, after)
    figure = new_figure(7.5, 2.9)
    axes = figure.subplots()
    pairs = [(before.sampled, after.sampled), (before.greedy, after.greedy)]
    for y, (base, trained) in enumerate(pairs):
        for evaluation, measured, offset, colour, label in (
            (before, base, 0.14, VERMILLION, "before"),
            (after, trained, -0.14, BLUE, "after"),
        ):
            axes.plot(
                [measured.low, measured.high],
                [y + offset] * 2,
                color=colour,
                linewidth=2.5,
                alpha=0.5,
                clip_on=False,
            )
            axes.plot(measured.value, y + offset, "o", color=colour, markersize=8, clip_on=False)
            # Write towards the side with more room, so that no text leaves the picture.
            left = measured.value > 0.5
            axes.annotate(
                f"{label} {_with_cut_off(evaluation, measured)}",
                (measured.low if left else measured.high, y + offset),
                xytext=(-7 if left else 7, 0),
                textcoords="offset points",
                ha="right" if left else "left",
                va="center",
                color=colour,
                fontweight="bold",
            )
    axes.set_yticks(range(len(pairs)), [_decoding_name(base) for base, _ in pairs])
    axes.set_ylim(-0.5, len(pairs) - 0.5)
    axes.set_xlim(0, 1)
    axes.set_xlabel(
        f"pass@1: share of {before.greedy.n} held-out problems solved at the first try (bars: 95 % interval)"
    )
    clean(axes)
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=GREY, alpha=0.2)
    axes.tick_params(axis="y", length=0, labelcolor=INK)
    texts = [
        f"{base.decoding} {_with_cut_off(before, base)} -> {_with_cut_off(after, trained)}"
        for base, trained in pairs
    ]
    return Plot(figure, f"pass@1 before -> after training: {', '.join(texts)}")


def _with_cut_off(evaluation: Evaluation, measured: PassAtOne) -> str:
    """The value, and where completions were cut off, their share."""
    share = evaluation.cut_off.get(measured.decoding, 0.0)
    percent = f"{share:.0%}" if share >= 0.005 else "under 1%"
    return f"{measured.value:.3f}" + (f" ({percent} cut off)" if share else "")


def _decoding_name(measured: PassAtOne) -> str:
    return "greedy\n(most likely answer)" if measured.decoding == GREEDY else "sampled\n(temperature 1)"


def compare_completions(before: Evaluation | None, after: Evaluation | None, n: int = 6) -> HtmlView:
    """`n` problems with the greedy completion before and after training side by side, right or wrong marked.

    Takes problems of each kind in turn (fixed by training, broken by it, still right, still wrong), not the best
    looking ones; the caption counts all of them. Raises ReportError when the problems differ or a job left only one.
    """
    before, after = _both(before, after)
    first = {item["index"]: item for item in before.completions if item["decoding"] == GREEDY}
    second = {item["index"]: item for item in after.completions if item["decoding"] == GREEDY}
    if first.keys() != second.keys():
        raise ReportError(
            "The two evaluations are of different problems, so their completions cannot be paired."
        )
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
