"""What a notebook shows of preference pairs, and of a DPO run: pairs side by side, their lengths, margin and accuracy.

And what training did to an answer, token by token.
"""

import difflib
import html
import json
import math
import re
from typing import Any, TypedDict

from job.metrics import Metrics
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator
from rl.preferences import Pair, normal_form
from workshop.views.html import HtmlView
from workshop.views.plots import BLUE, GREY, INK, VERMILLION, Plot, clean, new_figure, points

_MARK = {"chosen": "#cde8f6", "rejected": "#fadfcb"}  # backgrounds; the words stay readable without colour
_WORDS = re.compile(r"\s+|\w+|[^\w\s]")


class Answer(TypedDict):
    """An answer under some model, as the job writes it down: its tokens, and the natural logarithm of each one's probability."""

    tokens: list[str]
    log_probs: list[float]


def show_pairs(pairs: list[Pair], n: int = 4) -> HtmlView:
    """The first `n` pairs, chosen beside rejected, with what only one of them says marked (in text: in [brackets]).

    Shown is what is trained on: the answers in which the two sides differ, and what was said before them.
    """
    rows, lines = [], []
    for pair in map(normal_form, pairs[:n]):
        chosen, rejected = _difference(_text(pair["chosen"][0]), _text(pair["rejected"][0]))
        asked = _exchange(pair)
        question = html.escape(asked).replace("\n", "<br>")
        cells = [f"{question}<br><b>answer: {html.escape(pair['answer'])}</b>"]
        for side, parts in (("chosen", chosen), ("rejected", rejected)):
            marked = "".join(
                f'<mark style="background:{_MARK[side]};color:inherit">{html.escape(text)}</mark>'
                if only_here
                else html.escape(text)
                for text, only_here in parts
            )
            tokens = f"({pair[f'{side}_tokens']} tokens)" if f"{side}_tokens" in pair else ""
            cells.append(f'{tokens}<pre style="white-space:pre-wrap;margin:2px 0">{marked}</pre>')
        style = 'style="text-align:left;vertical-align:top"'
        rows.append(f"<tr>{''.join(f'<td {style}>{cell}</td>' for cell in cells)}</tr>")
        lines += [
            asked,
            *(f"  {name}: {_bracketed(parts)}" for name, parts in _named(chosen, rejected)),
        ]
    head = "".join(f'<th style="text-align:left">{name}</th>' for name in ("problem", "chosen", "rejected"))
    return HtmlView(
        f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(rows)}</tbody></table>", "\n".join(lines)
    )


def _exchange(pair: Pair) -> str:
    """The question, or all that was said before the answers where that is more; without a system prompt."""
    turns = [message for message in pair["prompt"] if message["role"] != "system"]
    if len(turns) < 2:
        return pair["question"]
    return "\n".join(f"{message['role']}: {_text(message)}" for message in turns)


def _text(message: Any) -> str:
    """What a message says, and below it the tools that it calls."""
    calls = [call.get("function", call) for call in message.get("tool_calls") or ()]
    called = [f"calls {call['name']}({json.dumps(call.get('arguments', {}))})" for call in calls]
    return "\n".join([message["content"], *called] if message["content"] else called)


def _named(chosen: list, rejected: list) -> list[tuple[str, list]]:
    return [("chosen", chosen), ("rejected", rejected)]


def _difference(first: str, second: str) -> tuple[list[tuple[str, bool]], list[tuple[str, bool]]]:
    """Both texts in pieces, each with whether the other text lacks it there."""
    words = _WORDS.findall(first), _WORDS.findall(second)
    sides: tuple[list, list] = ([], [])
    for tag, a, b, c, d in difflib.SequenceMatcher(None, *words, autojunk=False).get_opcodes():
        for side, found, start, end in ((0, words[0], a, b), (1, words[1], c, d)):
            if start < end:
                sides[side].append(("".join(found[start:end]), tag != "equal"))
    return sides


def _bracketed(parts: list[tuple[str, bool]]) -> str:
    return "".join(f"[{text}]" if only_here else text for text, only_here in parts).replace("\n", " ; ")


def plot_lengths(pairs: list[Pair], max_length: int) -> Plot:
    """Histogram of prompt + answer, in tokens, of chosen and rejected, with their 95th percentiles and `max_length`.

    Raises ValueError when the pairs have no lengths; the jobs that make pairs add them.
    """
    if not pairs or "chosen_tokens" not in pairs[0]:
        raise ValueError("These pairs have no lengths: the jobs that make pairs count them.")
    figure = new_figure(8.5, 3.2)
    axes = figure.subplots()
    totals = {
        side: sorted(pair["prompt_tokens"] + pair[f"{side}_tokens"] for pair in pairs)
        for side in ("chosen", "rejected")
    }
    longest = max(max_length, *(lengths[-1] for lengths in totals.values()))
    bins = [longest * step / 40 for step in range(42)]
    texts = []
    for (side, lengths), colour in zip(totals.items(), (BLUE, VERMILLION), strict=True):
        p95 = lengths[math.ceil(0.95 * len(lengths)) - 1]
        cut = sum(length > max_length for length in lengths)
        texts.append(f"{side}: 95 % have at most {p95} tokens, {cut} of {len(lengths)} would be cut")
        axes.hist(lengths, bins=bins, color=colour, alpha=0.55, label=texts[-1])
        axes.axvline(p95, color=colour, linestyle="--", linewidth=1.2)
    axes.axvline(max_length, color=INK, linewidth=1.5)
    axes.annotate(
        "max_length",
        (max_length, axes.get_ylim()[1]),
        xytext=(-5, -12),
        ha="right",
        textcoords="offset points",
        color=INK,
        fontsize=9,
    )
    axes.set_xlabel("prompt + answer, tokens (dashed: 95th percentile)")
    axes.set_ylabel("pairs")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    clean(axes)
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    return Plot(figure, "; ".join(texts))


def plot_preferences(runs: dict[str, list[Metrics]]) -> Plot:
    """Margin, log-probabilities of chosen and rejected answers, and held-out pass@1 over training, a column a run.

    `runs` maps a title to a history that fetch_output() loaded. All columns share their axes. The margin and the
    log-probabilities are those of the validation pairs, which the run was not trained on.
    """
    figure = new_figure(4.4 * len(runs) + 0.8, 7.2)
    grid = figure.subplots(3, len(runs), sharex=True, sharey="row", squeeze=False)
    ends = []
    for column, (title, history) in enumerate(runs.items()):
        margin, logps, accuracy = grid[:, column]
        _line(margin, history, "eval_rewards/margins", BLUE)
        _line(logps, history, "eval_logps/chosen", BLUE, "chosen")
        _line(logps, history, "eval_logps/rejected", VERMILLION, "rejected")
        _line(accuracy, history, "eval_pass_at_1", BLUE)
        accuracy.set_ylim(-0.03, 1.03)
        accuracy.set_xlabel("optimizer step", color=INK)
        margin.set_title(title, loc="left", fontsize=11, color=INK)
        for axes in grid[:, column]:
            clean(axes)
        steps, margins = points(history, "eval_rewards/margins")
        shares = points(history, "eval_pass_at_1")[1]
        ends.append(f"{title}: margin {margins[-1]:.2f}, pass@1 {shares[-1]:.3f} (best {max(shares):.3f})")
    for axes, label in zip(
        grid[:, 0],
        (
            "margin of implicit rewards",
            "log-probability of an answer\n(nats, mean)",
            "pass@1, greedy,\nheld-out problems",
        ),
        strict=True,
    ):
        axes.set_ylabel(label, color=INK)
    return Plot(figure, "; ".join(ends))


def _line(axes: Axes, history: list[Metrics], key: str, colour: str, label: str | None = None) -> None:
    steps, values = points(history, key)
    axes.plot(steps, values, color=colour, linewidth=2, marker="o", markersize=4, clip_on=False)
    axes.set_xlim(-0.03 * steps[-1], 1.33 * steps[-1])  # room for the last value, right of the curve
    axes.set_xticks([tick for tick in axes.get_xticks() if 0 <= tick <= steps[-1]])
    axes.axhline(0, color=GREY, linewidth=0.6, alpha=0.5)
    text = f"{label} {values[-1]:.3g}" if label else f"{values[-1]:.3g}"
    axes.annotate(
        text,
        (steps[-1], values[-1]),
        xytext=(7, 0),
        textcoords="offset points",
        va="center",
        color=colour,
        fontweight="bold",
        fontsize=9,
    )


def plot_token_changes(before: Answer, after: dict[str, Answer]) -> Plot:
    """By how much each token of one answer became more or less probable, a panel for each run (title: the answer after it).

    Raises ValueError when the runs speak of another answer than `before`.
    """
    if any(answer["tokens"] != before["tokens"] for answer in after.values()):
        raise ValueError("These are different answers, so their tokens cannot be compared.")
    names = [token.replace("\n", "\\n") for token in before["tokens"]]
    figure = new_figure(9.5, 1.2 + 1.7 * len(after))
    panels = figure.subplots(len(after), 1, sharex=True, sharey=True, squeeze=False)[:, 0]
    texts = []
    for axes, (title, answer) in zip(panels, after.items(), strict=True):
        changes = [new - old for new, old in zip(answer["log_probs"], before["log_probs"], strict=True)]
        axes.bar(
            range(len(changes)), changes, color=[BLUE if change > 0 else VERMILLION for change in changes]
        )
        axes.axhline(0, color=GREY, linewidth=0.8)
        axes.set_title(
            f"{title}: {sum(changes):+.2f} nats for the whole answer", loc="left", fontsize=11, color=INK
        )
        clean(axes)
        least = min(range(len(changes)), key=changes.__getitem__)
        most = max(range(len(changes)), key=changes.__getitem__)
        texts.append(
            f"{title}: {sum(changes):+.2f} nats in all, most {changes[most]:+.2f} at {names[most]!r} (token {most + 1}), "
            f"least {changes[least]:+.2f} at {names[least]!r} (token {least + 1})"
        )
    panels[-1].set_xticks(range(len(names)), names, rotation=90)
    panels[-1].set_xlim(-1, len(names))
    figure.supylabel("change of log-probability (nats)", fontsize=10, color=INK)
    return Plot(figure, f"An answer of {len(names)} tokens. " + "; ".join(texts))
