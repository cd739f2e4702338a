"""Completions of a training run, as verl keeps them (trainer.rollout_data_dir): what they do with tools, and one to read."""

import html
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from rl.tasks import DataError
from tools import find_call
from workshop.jobs.json_lines import read_json_lines
from workshop.views.html import HtmlView
from workshop.views.plots import Panel

TOOL_PANELS = (
    Panel("reward", "Reward", "mean reward"),
    Panel("calls", "Completions that call the tool", "share of completions"),
    Panel("turns", "Turns of a conversation", "mean number"),
)
TILL_PANELS = (
    Panel("reward", "Reward", "mean reward"),
    Panel("hasty", "Answers before all is scanned", "share of completions"),
    Panel("turns", "Turns of a conversation", "mean number"),
)
# In decoded text the role of each turn stands on a line of its own.
_ROLES = {"system", "user", "tool", "assistant"}


class Rollout(TypedDict):
    """One completion as verl writes it; its named rewards stand beside these fields."""

    step: int
    input: str  # the decoded prompt, with the roles of its turns
    output: str  # the decoded completion: all turns after the prompt, the tools' results included
    gts: str  # ground truth: the right answer
    score: float  # the weighted sum of the rewards


def read_rollouts(folder: Path | str) -> list[Rollout]:
    """Every completion of a run, in the order of the steps.

    Raises:
        DataError: the folder has none.
        ValueError: a line is damaged that is not the last one of a job that was killed.
    """
    files = sorted(Path(folder).glob("*.jsonl"), key=lambda path: int(path.stem))
    if not files:
        raise DataError(f"There are no rollouts in {folder}: does the recipe set trainer.rollout_data_dir?")
    return [rollout for file in files for rollout in read_json_lines(file)]


def with_calls(history: Sequence[Mapping[str, float]], rollouts: list[Rollout]) -> list[dict[str, float]]:
    """The history with the metric `calls` in each step: the share of its completions that call a tool.

    Steps without rollouts are left out.
    """
    return _with_share(history, rollouts, "calls", lambda text: find_call(text) is not None)


def with_haste(history: Sequence[Mapping[str, float]], rollouts: list[Rollout]) -> list[dict[str, float]]:
    """The history with the metric `hasty` in each step: the share of its completions that end before all is scanned.

    Steps without rollouts are left out.
    """
    return _with_share(history, rollouts, "hasty", lambda text: left_at_the_end(text) != "nothing")


def left_at_the_end(completion: str) -> str:
    """What a completion at a till (rl.environments) ended with: "not begun", "nothing" or "1 item", "2 items", ... left."""
    shown = [text for role, text in _turns(f"assistant\n{completion}") if role == "tool"]
    if not shown:
        return "not begun"
    left = shown[-1].partition("left ")[2]
    if left == "nothing":
        return left
    items = left.count(",") + 1
    return f"{items} item{'s' * (items > 1)}"


def _with_share(
    history: Sequence[Mapping[str, float]], rollouts: list[Rollout], name: str, holds: Callable[[str], bool]
) -> list[dict[str, float]]:
    by_step: dict[int, list[bool]] = {}
    for rollout in rollouts:
        by_step.setdefault(rollout["step"], []).append(holds(rollout["output"]))
    return [
        {**row, name: sum(by_step[row["step"]]) / len(by_step[row["step"]])}
        for row in history
        if row["step"] in by_step
    ]


def turns_of(rollout: Rollout) -> list[tuple[str, str]]:
    """(role, text) of each turn of a conversation, the prompt's included."""
    return _turns(f"{rollout['input']}{rollout['output']}")


def _turns(conversation: str) -> list[tuple[str, str]]:
    turns: list[tuple[str, str]] = []
    for line in conversation.splitlines():
        if line in _ROLES:
            turns.append((line, ""))
        elif turns:
            role, text = turns[-1]
            turns[-1] = role, f"{text}\n{line}" if text else line
    return turns


def transcript(rollout: Rollout) -> HtmlView:
    """A conversation with its roles, and what it earned."""
    turns, left = turns_of(rollout), 'style="text-align:left;vertical-align:top"'
    caption = f"step {rollout['step']}, right answer {rollout['gts']}, reward {rollout['score']:g}"
    rows = "".join(
        f"<tr><td {left}><b>{role}</b></td><td {left}><code>{html.escape(text)}</code></td></tr>"
        for role, text in turns
    )
    return HtmlView(
        f"<table><caption>{caption}</caption><tbody>{rows}</tbody></table>",
        "\n".join([caption, *(f"{role:>10}: {text}" for role, text in turns)]),
    )
