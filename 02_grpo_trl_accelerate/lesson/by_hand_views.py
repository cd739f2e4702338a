"""What a notebook shows of a step worked out by hand: the check against the log, a group, a completion, and the clipping."""

import dataclasses
import math

import numpy as np
from lesson.by_hand import (
    Step,
    advantages,
    clipped,
    log_probability,
    ratio,
    step_advantages,
    token_kl,
    token_losses,
    token_weights,
    total_reward,
)
from lesson.by_hand_comparison import Comparison, compare
from rl.tasks import DataError
from workshop.views.html import HtmlView, table
from workshop.views.plots import BLUE, GREY, INK, VERMILLION, Plot, clean, new_figure

TEXT = 100  # characters of a problem or a completion in a table
TICKS = (0.1, 0.2, 0.5, 0.8, 1, 1.2, 2, 5, 10)  # of a ratio


def comparison_table(step: Step) -> HtmlView:
    """A line for each number of the step: by hand, as the trainer logged it, and whether the two are equal.

    Raises:
        DataError: the run's loss has a part that is not worked out by hand.
    """
    found = compare(step)
    rows = [
        (
            one.name,
            *(_digits(value, one) for value in (one.by_hand, one.logged)),
            "yes" if one.equal else f"NO, {abs(one.by_hand - one.logged):.1e} apart",
        )
        for one in found
    ]
    equal = sum(one.equal for one in found)
    caption = (
        f"step {step.number} ({_kind(step)}): {equal} of {len(found)} numbers are equal to the digits shown"
    )
    return table(("", "by hand", "trainer logged", "equal"), rows, caption)


def group_table(step: Step, group: int) -> HtmlView:
    """A line for each completion of a group, from 0: its rewards and advantage, and what it adds to this step's loss.

    Raises:
        DataError: no such group, or as `comparison_table`.
    """
    size = step.settings["num_generations"]
    if not 0 <= group < len(step.completions) // size:
        raise DataError(
            f"Step {step.number} has groups 0 to {len(step.completions) // size - 1}, and no {group}."
        )
    total, advantage = total_reward(step.rewards, step.settings["reward_weights"]), advantages(step)
    shares = (token_weights(step) * token_losses(step)).sum(axis=1)
    probability = log_probability(step.policy, step.mask)
    rows = []
    for number in range(group * size, (group + 1) * size):
        (here,) = np.nonzero(step.position == number)
        of_step = (
            [f"{probability[here[0]]:.3f}", f"{shares[here[0]]:+.5f}"] if len(here) else ["", "another step"]
        )
        rows.append(
            (
                _short(step.completions[number]),
                str(step.lengths[number]),
                *(f"{value:.3g}" for value in step.rewards[number]),
                f"{total[number]:.4g}",
                f"{advantage[number]:+.4f}",
                *of_step,
            )
        )
    names = [
        f"{name} x {weight:g}"
        for name, weight in zip(step.settings["reward_names"], step.settings["reward_weights"], strict=True)
    ]
    header = ("completion", "tokens", *names, "reward", "advantage", "log-probability", "adds to the loss")
    problem = f"{_short(step.problems[group * size])} ({step.answers[group * size]})"
    return table(header, rows, f"step {step.number}, group {group}: {problem}")


def token_table(step: Step, completion: int, most: int = 100) -> HtmlView:
    """A completion of this step, from 0, token by token: its ratio, whether it still counts, what it adds to the loss.

    Policy, sampler and reference are the token's log-probabilities under each; KL is k3, times the ratio where the loss has it so.

    Args:
        most: rows that are shown; the tokens behind them are in the last row's sum.

    Raises:
        DataError: the step has no such completion, or as `comparison_table`.
    """
    if not 0 <= completion < len(step.position):
        raise DataError(
            f"Step {step.number} has completions 0 to {len(step.position) - 1}, and no {completion}."
        )
    below, above = (np.broadcast_to(mask, step.mask.shape)[completion] for mask in clipped(step))
    ratios = np.broadcast_to(ratio(step), step.mask.shape)[completion]
    shares = (token_weights(step) * token_losses(step))[completion]
    advantage = float(step_advantages(step)[completion, 0])
    columns = {
        "policy": step.policy[completion],
        "sampler": step.sampler[completion],
        "ratio": ratios,
        "advantage": np.full(len(shares), advantage),
    }
    if step.reference is not None:
        columns |= {"reference": step.reference[completion], "KL": token_kl(step)[completion]}
    rows = [
        (
            repr(text)[1:-1].replace(" ", "·"),  # HTML would show no space
            *(_fixed(values[t], 4) for values in columns.values()),
            _verdict(step, below[t], above[t]),
            f"{shares[t]:+.2e}",
        )
        for t, text in enumerate(step.tokens[completion])
    ]
    hidden = f"{len(rows) - most} tokens more" if len(rows) > most else ""
    total = ("all", *[""] * len(columns), hidden, f"{shares.sum():+.2e}")
    where = f"completion {completion} (group {step.group[completion]}, process {step.process[completion]})"
    return table(
        ("token", *columns, "clipped", "adds to the loss"),
        [*rows[:most], total],
        f"log-probabilities in step {step.number}, {where}: {_short(step.problems[step.position[completion]])}",
    )


def weights_table(step: Step) -> HtmlView:
    """A token's weight in the step's shortest and its longest completion, and the loss, as GRPO, DAPO and Dr. GRPO have it.

    The losses of the tokens are the recipe's; only their weights change. In units of DAPO's, in which all tokens weigh the same.

    Raises:
        DataError: as `comparison_table`.
    """
    lengths, losses = step.mask.sum(axis=1), token_losses(step)
    shortest, longest = (
        int(pick(np.where(lengths > 0, lengths, fill))) for pick, fill in ((np.argmin, 10**9), (np.argmax, 0))
    )
    kinds = {
        name: token_weights(dataclasses.replace(step, settings=step.settings | {"loss_type": loss_type}))
        for name, loss_type in {"GRPO": "grpo", "DAPO": "dapo", "Dr. GRPO": "dr_grpo"}.items()
    }
    unit = kinds["DAPO"].max()
    header = (
        "",
        f"a token of the shortest completion ({lengths[shortest]} tokens)",
        f"a token of the longest ({lengths[longest]} tokens)",
        "loss",
    )
    rows = [
        (
            name,
            f"{weights[shortest].max() / unit:.2f}",
            f"{weights[longest].max() / unit:.2f}",
            _fixed((weights * losses).sum(), 5),
        )
        for name, weights in kinds.items()
    ]
    return table(
        header,
        rows,
        f"step {step.number}: what a token weighs, in units of DAPO's weight, and the loss that follows",
    )


def plot_clipping(steps: list[Step]) -> Plot:
    """A panel for each step: every token's ratio over its advantage. The tokens in orange have no gradient any more.

    Where a completion has one ratio (GSPO), a point is a completion. For CISPO orange are those whose ratio is capped.
    """
    figure = new_figure(9.5, 3.4)
    grid = figure.subplots(1, len(steps), sharey=True, squeeze=False)[0]
    texts, shown, apart = [], {0.75, 1.33}, np.random.default_rng(0)
    for axes, step in zip(grid, steps, strict=True):
        values = ratio(step)
        counts = step.mask if values.shape[1] > 1 else step.mask.any(axis=1, keepdims=True)
        advantage = np.broadcast_to(step_advantages(step), values.shape)[counts]
        below, above = clipped(step)
        stopped, values = (below | above)[counts], values[counts]
        # A little apart, since all tokens of a completion have one advantage; what lies outside, at the edge.
        x, y = advantage + apart.uniform(-0.04, 0.04, len(advantage)), np.clip(values, TICKS[0], TICKS[-1])
        axes.scatter(x[~stopped], y[~stopped], s=8, color=BLUE, alpha=0.5, linewidth=0)
        axes.scatter(x[stopped], y[stopped], s=14, color=VERMILLION, linewidth=0)
        for edge in _edges(step):
            axes.axhline(edge, color=GREY, linestyle="--", linewidth=1)
        axes.axvline(0, color=GREY, linewidth=0.8)
        text = f"{stopped.sum()} of {stopped.size} {'capped' if _is_cispo(step) else 'stopped'}"
        axes.set_title(f"step {step.number}: {text}", loc="left", fontsize=10, color=INK)
        axes.set_yscale("log")
        clean(axes)
        shown.update(y)
        texts.append(f"step {step.number} {text}, ratio {values.min():.3g} to {values.max():.3g}")
    grid[0].set_ylim(min(shown) / 1.05, max(shown) * 1.05)
    # The bounds, as the dashed lines have them, in the place of round numbers beside them.
    far = [tick for tick in TICKS if not 0.7 < tick < 1.4 or tick == 1]
    ticks = sorted({*far, *(round(edge, 2) for step in steps for edge in _edges(step))})
    grid[0].set_yticks([tick for tick in ticks if min(shown) <= tick <= max(shown)], minor=False)
    grid[0].yaxis.set_major_formatter("{x:g}")
    grid[0].minorticks_off()
    grid[0].set_ylabel("ratio: policy / sampler (log scale)", color=INK)
    figure.supxlabel(
        "advantage of the token's completion (dashed: where clipping begins; orange: beyond it;"
        f" ratios below {TICKS[0]:g} or above {TICKS[-1]:g} at the edge)",
        fontsize=10,
        color=INK,
    )
    return Plot(figure, "; ".join(texts))


def _edges(step: Step) -> list[float]:
    settings = step.settings
    if _is_cispo(step):
        return [settings["epsilon_high"]]
    return [1 - settings["epsilon_low"], 1 + settings["epsilon_high"]]


def _is_cispo(step: Step) -> bool:
    return step.settings["loss_type"] == "cispo"


def _verdict(step: Step, below: bool, above: bool) -> str:
    if not (below or above):
        return ""
    return "capped" if _is_cispo(step) else "below: no gradient" if below else "above: no gradient"


def _kind(step: Step) -> str:
    level = step.settings["importance_sampling_level"]
    return step.settings["loss_type"] + (", a ratio for each completion" if level == "sequence" else "")


def _digits(value: float, one: Comparison) -> str:
    """As many decimals as rounding leaves, so that two numbers which are equal look so."""
    decimals = max(0, -math.floor(math.log10(one.tolerance)) - 1) if one.tolerance else 6
    return _fixed(value, decimals)


def _fixed(value: float, decimals: int) -> str:
    """Without the minus of -0.000, which says nothing."""
    return f"{round(float(value), decimals) + 0.0:.{decimals}f}"


def _short(text: str) -> str:
    line = text.replace("\n", " ; ")
    return line if len(line) <= TEXT else line[: TEXT - 3] + "..."
