"""How a model answers: it thinks first, answers directly, or leaves the tags out. And whether its steps are true.

Training that rewards right answers changes pass@1 in two ways: a habit becomes more frequent, or a habit becomes more
often right. Counting both says which of the two it was.
"""

import re
from dataclasses import dataclass

from rl.answers import END_THINK, THINK
from rl.evaluation import GREEDY, SAMPLED, Completion, Evaluation

HABITS = THINKS, DIRECT, UNFORMATTED = "thinks", "answers directly", "not in the format"

# "2 + 6 = 8", "8 - 9 + 1 = 0": whole numbers, no longer than int() takes. A pattern without a second way to match.
_STEP = re.compile(r"(-?[0-9]{1,30}(?: ?[+-] ?-?[0-9]{1,30})+) ?= ?(-?[0-9]{1,30})")


@dataclass(frozen=True)
class Habit:
    """Completions of one habit.

    Attributes:
        count: how many there are.
        share: their share of all completions of the decoding.
        right: the share of them that is correct; None where there are none.
    """

    count: int
    share: float
    right: float | None


def habit(item: Completion) -> str:
    """Which of HABITS a scored completion shows.

    It thinks where it is in the format asked for and something stands between the think tags, answers directly where
    nothing does. Not in the format is all the rest: no tags, some of them, text beside them, or cut off before the last.
    """
    if not item["formatted"]:
        return UNFORMATTED
    return THINKS if thinking(item["completion"]) else DIRECT


def habits(evaluation: Evaluation) -> dict[str, dict[str, Habit]]:
    """Decoding (sampled, greedy) -> habit -> how frequent it is, and how often right. All habits are there."""
    return {
        decoding: _habits([item for item in evaluation.completions if item["decoding"] == decoding])
        for decoding in (SAMPLED, GREEDY)
    }


def _habits(items: list[Completion]) -> dict[str, Habit]:
    verdicts = {name: [item["correct"] for item in items if habit(item) == name] for name in HABITS}
    return {
        name: Habit(len(found), len(found) / len(items), sum(found) / len(found) if found else None)
        for name, found in verdicts.items()
    }


def thinking(text: str) -> str:
    """What a completion has between its think tags, without them; empty where the tags are empty or never closed."""
    return text.rpartition(END_THINK)[0].replace(THINK, "\n").replace(END_THINK, "\n").strip()


def steps(text: str) -> list[str]:
    """The lines of a completion's thinking that are a sum or a difference, as chain_sum's are: "3 + 4 = 7"."""
    return [line.strip() for line in thinking(text).splitlines() if _STEP.fullmatch(line.strip())]


def false_steps(text: str) -> list[str]:
    """Those of its steps that are wrong: "3 + 4 = 8". Says nothing about a step that adds the wrong numbers rightly."""
    return [line for line in steps(text) if not _is_true(line)]


def _is_true(step: str) -> bool:
    terms, _, result = step.replace(" ", "").partition("=")
    signed = terms.replace("--", "+").replace("+-", "-")
    return sum(map(int, re.findall(r"[+-]?[0-9]+", signed))) == int(result)


def false_step_share(evaluation: Evaluation, decoding: str) -> float | None:
    """Share of completions with a false step among those that think in steps; None where none does.

    Thinking in words, or in products, cannot be checked: it is not counted, as neither true nor false.
    """
    texts = [
        item["completion"]
        for item in evaluation.completions
        if item["decoding"] == decoding and habit(item) == THINKS and steps(item["completion"])
    ]
    return sum(bool(false_steps(text)) for text in texts) / len(texts) if texts else None
