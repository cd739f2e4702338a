"""Problems for a real language model: with which letter does a word begin?

It sees tokens and not letters, so it has to know how each of them is spelled. The words are the 2,315 five-letter ones that
reasoning-gym ships. Each prompt shows two solved problems first, as a conversation: the model has never seen our tags.
"""

from reasoning_gym.data.wordle_words import wordle_words
from rl.own_data import rows_from
from rl.tasks import Row

SHOWN = ("garden", "window")  # no five letters, so neither is a problem
HELD_OUT = 200


def make(seed: int) -> dict[str, list[Row]]:
    """Splits `train` and `test`, shuffled with the seed; answers are compared as the verifier `choice` does."""
    shown = [turn for word in SHOWN for turn in _turns(word)]
    conversations = [
        {"messages": [*shown, _turns(word)[0]], "answer": word[0].upper()}
        for word in sorted(set(wordle_words))
    ]
    splits = {"train": len(conversations) - HELD_OUT, "test": HELD_OUT}
    rows, _ = rows_from(conversations, splits=splits, seed=seed, verifier="choice")
    return rows


def _turns(word: str) -> list[dict[str, str]]:
    """A question and its answer, as a conversation has them."""
    return [
        {"role": "user", "content": f"First letter of {word}?"},
        {"role": "assistant", "content": f"<answer>{word[0].upper()}</answer>"},
    ]
