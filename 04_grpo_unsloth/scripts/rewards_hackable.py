"""Two rewards for the lesson on reward hacking: one that pays for the wrong thing, and the same with guards.

They are registered here and not in rl.rewards, because the first breaks the contract that every reward there keeps.
"""

from typing import Any

from rl.rewards import extract_answer, reward, same_answer

TOO_LONG = 120  # characters, where nothing is left of what brevity earns


def brevity(text: str) -> float:
    """1.0 for nothing at all, falling in a straight line to 0.0: every token costs money."""
    return max(0.0, 1.0 - len(text) / TOO_LONG)


@reward("concise")
def concise(completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
    """Half for an answer tag, half for brevity. Nobody looks whether there is an answer in the tag, or which."""
    return [0.5 * ("<answer>" in text) + 0.5 * brevity(text) for text in completions]


@reward("concise_guarded")
def concise_guarded(completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
    """The same wish with a guard: nothing without the right answer in its place, and brevity only decides among those."""
    return [
        0.75 + 0.25 * brevity(text) if same_answer(extract_answer(text), gold) else 0.0
        for text, gold in zip(completions, answer, strict=True)
    ]
