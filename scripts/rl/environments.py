"""Environments: what a model acts in for several turns. Each conversation has one of its own, which keeps a state.

An environment has the form of TRL's `environment_factory`: `reset` begins an episode and is given the row of the data as
keyword arguments; every other public method is a tool, with type hints and a docstring with an `Args:` block, from which the
schema comes that the model sees. Module 05 hands the same class to verl, which gives `reset` the question alone (environment_tools.py).
https://huggingface.co/docs/trl/openenv
"""

import random
import re
from collections.abc import Sequence

FEWEST_ITEMS, MOST_ITEMS = 2, 4
DEAREST = 9  # an item costs from 1 to so much
QUESTION = "Till {till}: what do {items} cost together?"
_QUESTION = re.compile(r"Till (\d+): what do (\d{3}(?:, \d{3})*) cost together\?")


class Till:
    """A till at which items are scanned one after the other. What they cost, only the till knows.

    It shows what the scanned items cost together and which are left. An item that is not left is refused and costs nothing.
    """

    def reset(self, question: str, **row: object) -> None:
        """Begins with nothing scanned; `question` says which till it is and what has been put on it.

        Raises ValueError if it says neither.
        """
        found = _QUESTION.fullmatch(question)
        if not found:
            raise ValueError(f"This question is not for a till: {question!r}. It has the form {QUESTION!r}.")
        self._till, self._left, self._total = int(found[1]), found[2].split(", "), 0

    def scan(self, item: str) -> str:
        """Scans one item.

        Args:
            item: its number, one of those that are left

        Returns:
            What the scanned items cost together, and which are left.
        """
        if item not in self._left:
            return f"Error: {item!s:.20} is not among them, left {self._shown_left()}"
        self._left.remove(item)
        self._total += price(self._till, item)
        return f"{self._total}, left {self._shown_left()}"

    def _shown_left(self) -> str:
        return ", ".join(self._left) or "nothing"


def price(till: int, item: str) -> int:
    """What an item costs at a till: always the same there."""
    return random.Random(f"till {till}, item {item}").randint(1, DEAREST)


def till_problem(drawn: random.Random, tills: Sequence[int]) -> tuple[str, str]:
    """A question for one of these tills, and its answer."""
    till = drawn.choice(tills)
    items = [
        str(number) for number in drawn.sample(range(100, 1000), drawn.randint(FEWEST_ITEMS, MOST_ITEMS))
    ]
    return QUESTION.format(till=till, items=", ".join(items)), str(sum(price(till, item) for item in items))
