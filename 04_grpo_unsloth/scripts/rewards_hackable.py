"""Two rewards for the lesson on reward hacking: one that pays for the wrong thing, and the same with guards.

A file of own rewards, as any other beside a train.py: a recipe names them rewards_hackable.concise and
rewards_hackable.concise_guarded.
"""

from typing import Any

from rl.answers import completion_text
from rl.rewards import is_right
from rl.verifiers import Verifier, number

TOO_LONG = 120  # characters, where nothing is left of what brevity earns


def brevity(text: str) -> float:
    """1.0 for nothing at all, falling in a straight line to 0.0: every token costs money."""
    return max(0.0, 1.0 - len(text) / TOO_LONG)


def concise(completions: list[Any], **kwargs: Any) -> list[float]:
    """Half for an answer tag, half for brevity. Nobody looks whether there is an answer in the tag, or which."""
    return [0.5 * ("<answer>" in text) + 0.5 * brevity(text) for text in map(completion_text, completions)]


def concise_guarded(
    completions: list[Any], answer: list[str], verifier: Verifier = number, opening: str = "", **kwargs: Any
) -> list[float]:
    """The same wish with a guard: nothing without the right answer in its place, and brevity only decides among those."""
    texts = map(completion_text, completions)
    return [
        0.75 + 0.25 * brevity(text) if is_right(text, gold, verifier, opening) else 0.0
        for text, gold in zip(texts, answer, strict=True)
    ]
