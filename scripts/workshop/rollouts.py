"""Completions of a training run, as verl keeps them (trainer.rollout_data_dir): how many call a tool, and one to read."""

import html
import json
from pathlib import Path

from rl.tasks import DataError
from rl.tool_calls import find_call

from workshop.plots import Panel
from workshop.results import HtmlView

TOOL_PANELS = (
    Panel(("reward",), "Reward", "mean reward"),
    Panel(("calls",), "Completions that call the tool", "share of completions"),
    Panel(("turns",), "Turns of a conversation", "mean number"),
)
_TURNS = ("tool", "assistant")  # a decoded completion has the role of each later turn on a line of its own


def read_rollouts(folder: Path | str) -> list[dict]:
    """Every completion of a run, in order: {"step", "input", "output", "gts", "score", ...}. Raises DataError."""
    files = sorted(Path(folder).glob("*.jsonl"), key=lambda path: int(path.stem))
    if not files:
        raise DataError(f"There are no rollouts in {folder}: does the recipe set trainer.rollout_data_dir?")
    return [json.loads(line) for file in files for line in file.read_text(encoding="utf-8").splitlines()]


def with_calls(history: list[dict], rollouts: list[dict]) -> list[dict]:
    """The history with `calls` in each step: the share of its completions that call a tool."""
    by_step: dict[int, list[bool]] = {}
    for rollout in rollouts:
        by_step.setdefault(rollout["step"], []).append(find_call(rollout["output"]) is not None)
    return [
        {**row, "calls": sum(by_step[row["step"]]) / len(by_step[row["step"]])}
        for row in history
        if row["step"] in by_step
    ]


def turns_of(rollout: dict) -> list[tuple[str, str]]:
    """(role, text) of each turn of a conversation, the prompt's included."""
    roles = {"system", "user", *_TURNS}
    turns: list[tuple[str, str]] = []
    for line in f"{rollout['input']}{rollout['output']}".splitlines():
        if line in roles:
            turns.append((line, ""))
        elif turns:
            role, text = turns[-1]
            turns[-1] = role, f"{text}\n{line}" if text else line
    return turns


def transcript(rollout: dict) -> HtmlView:
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
