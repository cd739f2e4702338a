"""Rewards that can be verified: what a completion earns, given the question's known answer.

Every reward is a function `fn(completions, answer, **kwargs) -> list[float]`, which is what TRL calls, with the data
set's columns as keyword arguments. To add one, write such a function over plain texts and put `@reward("name")` above
it: the decorator accepts TRL's conversational completions as well, and refuses a missing answer or a list of the wrong
length instead of training on it. verl calls `compute_score` instead, which uses the same functions.
"""

import functools
import inspect
import math
import re
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from rl.spelling import unknown_name

Reward = Callable[..., list[float]]
REWARDS: dict[str, Reward] = {}

NUMBER = re.compile(r"[-+]?(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?")
TOKEN_ESTIMATE = re.compile(r"[0-9]|[^\W\d]{1,4}|[^\w\s]")


class RewardError(Exception):
    """There is no such reward, it was called without what it needs, or it returned something that is no list of rewards."""


def reward(name: str) -> Callable[[Reward], Reward]:
    """Registers a reward under a name and guards it.

    The guarded function takes completions as plain texts or as lists of messages, treats None as an empty text, and

    Raises:
        RewardError: no answer for a completion; or not exactly one finite number for each completion (where a list
            of length 1 would reach every completion unseen: trl#6533).
    """

    def register(function: Reward) -> Reward:
        before = REWARDS.get(name)
        # A cell of a notebook that is run again defines the same function again.
        if before and _defined(inspect.unwrap(before)) != _defined(function):
            raise ValueError(f"There is a reward '{name}' already: choose another name.")

        @functools.wraps(function)
        def guarded(
            completions: Sequence[Any], answer: Sequence[str] | None = None, **kwargs: Any
        ) -> list[float]:
            texts = [completion_text(completion) for completion in completions]
            scores = function(completions=texts, answer=_known_answers(name, answer, len(texts)), **kwargs)
            if not isinstance(scores, list) or len(scores) != len(texts):
                got = f"{len(scores)} values" if isinstance(scores, list) else type(scores).__name__
                raise RewardError(
                    f"Reward '{name}' must return a list of {len(texts)} numbers, but returned {got}."
                )
            for position, score in enumerate(scores):
                if not isinstance(score, int | float) or not math.isfinite(score):
                    raise RewardError(
                        f"Reward '{name}' gave {score!r} to completion {position}, which is no number."
                    )
            return [float(score) for score in scores]

        guarded.__name__ = name  # TRL logs rewards/<name>/mean
        REWARDS[name] = guarded
        return guarded

    return register


def _defined(function: Any) -> tuple[str, str]:
    """Where a function was written down."""
    return function.__module__, function.__qualname__


def _known_answers(name: str, answer: Sequence[str] | None, count: int) -> list[str]:
    """One answer for each of `count` completions. Raises RewardError."""
    if answer is None or isinstance(answer, str) or len(answer) != count:
        got = "no 'answer' column" if answer is None else f"{len(answer)} answers"
        raise RewardError(f"Reward '{name}' needs one answer for each of {count} completions, but got {got}.")
    for position, gold in enumerate(answer):
        if gold is None or not str(gold).strip():
            raise RewardError(f"Reward '{name}': completion {position} has no known answer to compare with.")
    return list(answer)


def completion_text(completion: Any) -> str:
    """Text of a completion: a plain string, None, or a conversation (its assistant messages joined)."""
    if completion is None:
        return ""
    if isinstance(completion, str):
        return completion
    return "".join(message.get("content") or "" for message in completion)


def extract_answer(text: str) -> str | None:
    """The answer of a completion, or None unless there is exactly one `<answer>` block, after the thinking, and only
    white space behind it.

    Plain string search takes linear time on any text, which a pattern with `.*` does not.
    """
    text = text.rstrip()
    start, end = text.find("<answer>"), len(text) - len("</answer>")
    if (
        start < 0
        or not text.endswith("</answer>")
        or text.count("<answer>") > 1
        or text.count("</answer>") > 1
    ):
        return None
    before, inside = text[:start], text[start + len("<answer>") : end]
    if "<think>" in inside or "</think>" in inside:
        return None
    if (
        before.count("<think>") > 1
        or before.count("</think>") > 1
        or before.rfind("<think>") > before.rfind("</think>")
    ):
        return None
    return inside.strip()


def same_answer(given: str | None, gold: str) -> bool:
    """Whether two answers are the same text, or the same number ("1,568" and "1568.0")."""
    if given is None:
        return False
    given, gold = given.strip(), str(gold).strip()
    if given == gold:
        return True
    # No number worth comparing is this long, and Decimal keeps 28 digits only in arithmetic, not in comparison.
    if len(given) > 100 or not NUMBER.fullmatch(given) or not NUMBER.fullmatch(gold):
        return False
    return Decimal(given.replace(",", "")) == Decimal(gold.replace(",", ""))


def is_formatted(text: str) -> bool:
    """Whether a completion is `<think>...</think><answer>...</answer>`, each tag once, with nothing outside the tags.

    The thinking may be empty or have many lines; the answer may not be empty.
    """
    text = text.strip()
    thinking, closed, rest = text.removeprefix("<think>").partition("</think>")
    if not text.startswith("<think>") or not closed or "<think>" in thinking or "<answer>" in thinking:
        return False
    return rest.lstrip().startswith("<answer>") and bool(extract_answer(text))


@reward("accuracy")
def accuracy(completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
    """1.0 for the right answer, else 0.0."""
    return [
        float(same_answer(extract_answer(text), gold)) for text, gold in zip(completions, answer, strict=True)
    ]


@reward("format")
def format_tags(completions: list[str], answer: list[str], **kwargs: Any) -> list[float]:
    """1.0 for thinking and an answer in their tags, else 0.0, whatever the answer is."""
    return [float(is_formatted(text)) for text in completions]


@reward("soft_overlong")
def soft_overlong(
    completions: list[str],
    answer: list[str],
    completion_ids: Sequence[Sequence[int]] | None = None,
    max_completion_length: int | None = None,
    **kwargs: Any,
) -> list[float]:
    """1.0 up to 80 % of the longest completion allowed, then falling in a straight line to 0.0 at that length.

    This is eq. 13 of DAPO (arXiv 2503.14476) plus one, with its proportion of punished to allowed lengths. GRPO compares
    completions of one group, so the constant changes nothing; it makes a good completion earn 1.0, as elsewhere.
    Lengths are in tokens: of `completion_ids`, which TRL passes, else estimated from the text.

    Raises:
        RewardError: `max_completion_length` was not bound (see `get_rewards`).
    """
    if max_completion_length is None:
        raise RewardError(
            "Reward 'soft_overlong' needs the longest completion allowed, in tokens: "
            'get_rewards(["soft_overlong"], max_completion_length=...).'
        )
    if completion_ids is None:
        lengths = [len(TOKEN_ESTIMATE.findall(text)) for text in completions]
    else:
        lengths = [len(ids) for ids in completion_ids]
    punished = max(1.0, 0.2 * max_completion_length)
    return [min(1.0, max(0.0, (max_completion_length - length) / punished)) for length in lengths]


def get_rewards(names: Sequence[str], **bound: Any) -> list[Reward]:
    """The rewards with these names, in this order; `bound` values go to those that have such a parameter.

        get_rewards(["accuracy", "soft_overlong"], max_completion_length=128)

    Raises:
        RewardError: no names at all, or one that is not registered.
    """
    if not names:
        raise RewardError(f"rewards: name at least one of {', '.join(sorted(REWARDS))}.")
    return [_bind(name, bound) for name in names]


def _bind(name: str, bound: dict[str, Any]) -> Reward:
    if name not in REWARDS:
        raise RewardError(f"rewards: {unknown_name('reward', name, REWARDS)}")
    function = REWARDS[name]
    parameters = inspect.signature(function).parameters
    known = {key: value for key, value in bound.items() if key in parameters and value is not None}
    # A partial has no __name__, by which TRL names the metrics.
    return functools.wraps(function)(functools.partial(function, **known)) if known else function


def compute_score(
    data_source: str, solution_str: str, ground_truth: str, extra_info: dict | None = None, **kwargs: Any
) -> dict[str, float]:
    """Score of one completion for verl (`reward.custom_reward_function`), with each reward by its name.

    `extra_info` (or verl's `reward_kwargs`, which win) may hold `rewards`, a list of names (accuracy alone if absent),
    `reward_weights` (1.0 each) and values to bind, such as `max_completion_length`.

    Returns:
        {"score": the weighted sum, "<name>": each reward}.

    Raises:
        RewardError: unknown reward, not one weight for each, or `ground_truth` is missing.
    """
    settings = {**(extra_info or {}), **kwargs}
    names = list(settings.pop("rewards", ["accuracy"]))
    weights = list(settings.pop("reward_weights", [1.0] * len(names)))
    if len(weights) != len(names):
        raise RewardError(
            f"reward_weights: {len(weights)} weights for {len(names)} rewards ({', '.join(names)})."
        )
    functions = get_rewards(names, **settings)
    answer = None if ground_truth is None else [ground_truth]
    scores = {
        name: function(completions=[solution_str], answer=answer)[0]
        for name, function in zip(names, functions, strict=True)
    }
    return {"score": sum(w * s for w, s in zip(weights, scores.values(), strict=True)), **scores}
