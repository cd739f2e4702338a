"""Rewards: what a completion earns, given the question's known answer.

Every reward is a function `fn(completions, answer, **kwargs) -> list[float]`, which is what TRL calls, with the data
set's columns as keyword arguments. In recipes, messages and metrics it has one name. There are two ways to one of your own:

- any function that TRL takes, in a file beside the training script, named in the recipe as `file.function`. It gets what
  TRL gives it (conversations, where prompts are conversations) and may return None for "no opinion", or be async;
- a function over plain texts with `@reward("name")` above it: the decorator accepts conversations as well, and refuses a
  missing answer.

Both are refused a list of the wrong length or a value that is no number. verl calls `compute_score` instead, which gives
the same functions one completion at a time.
"""

import asyncio
import functools
import inspect
import json
import math
import re
import threading
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from rl.answers import completion_text, extract_answer, is_formatted
from rl.own_code import OwnCodeError, load_function
from rl.spelling import unknown_name
from rl.verifiers import Verifier, get_verifier, number

Reward = Callable[..., Any]  # to a list of float | None, or to an awaitable of one
REWARDS: dict[str, Reward] = {}

NOT_PASSED = (
    "prompt",
    "completion",
    "completion_ids",
    "completions",
    "prompts",
)  # columns whose names are taken
LARGEST = 1e18  # of a reward: float32 ends at 3.4e38, and the standard deviation of a group squares it
TOKEN_ESTIMATE = re.compile(r"[0-9]|[^\W\d]{1,4}|[^\w\s]")


class RewardError(Exception):
    """There is no such reward, it was called without what it needs, or it returned something that is no list of rewards."""


def reward(name: str) -> Callable[[Reward], Reward]:
    """Registers a reward under a name and guards it.

    The guarded function takes completions as plain texts or as lists of messages, treats None as an empty text, and

    Raises:
        RewardError: no answer for a completion; or not exactly one finite number (or None) for each completion (where
            a list of length 1 would reach every completion unseen: trl#6533).
        ValueError: the name is taken.
    """

    def register(function: Reward) -> Reward:
        if name == "score":
            raise ValueError("'score' is what the weighted sum is called: choose another name.")
        before = REWARDS.get(name)
        # A cell of a notebook that is run again defines the same function again.
        if before and _defined(inspect.unwrap(before)) != _defined(function):
            raise ValueError(f"There is a reward '{name}' already: choose another name.")

        def over_texts(completions: Sequence[Any], answer: Sequence[str] | None = None, **kwargs: Any) -> Any:
            texts = [completion_text(completion) for completion in completions]
            known = _known_answers(name, answer, len(texts))
            return _call(name, function, completions=texts, answer=known, **kwargs)

        REWARDS[name] = _guarded(name, function, over_texts)
        return REWARDS[name]

    return register


def _guarded(name: str, function: Reward, call: Reward) -> Reward:
    """`call`, whose result is checked; it looks like `function`, and TRL logs it as rewards/<name>/mean."""
    # Of an object that is called like a function, __call__ says whether it is async.
    if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(function.__call__):

        @functools.wraps(function)
        async def guarded(completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
            return _scores(name, await call(completions=completions, **kwargs), len(completions))

    else:

        @functools.wraps(function)
        def guarded(completions: Sequence[Any], **kwargs: Any) -> list[float | None]:
            return _scores(name, call(completions=completions, **kwargs), len(completions))

    guarded.__name__ = name
    return guarded


def _call(name: str, function: Reward, /, **given: Any) -> Any:
    """Raises RewardError if a function asks for a column that the data has not, or does not take those that it has."""
    try:
        inspect.signature(function).bind(**given)
    except TypeError as error:
        raise RewardError(
            f"Reward '{name}': {error}. It is given {', '.join(given)}; as its last parameter, **kwargs takes what it does "
            "not ask for."
        ) from error
    return function(**given)


def _scores(name: str, result: Any, count: int) -> list[float | None]:
    """What a reward returned as `count` floats or None; numpy's and torch's numbers and vectors are taken too."""
    values = result.tolist() if hasattr(result, "tolist") else result
    if not isinstance(values, list | tuple) or len(values) != count:
        got = f"{len(values)} values" if isinstance(values, list | tuple) else type(result).__name__
        raise RewardError(f"Reward '{name}' must return a list of {count} numbers, but returned {got}.")
    scores: list[float | None] = []
    for position, value in enumerate(values):
        value = value.tolist() if hasattr(value, "tolist") else value
        if value is not None and (not isinstance(value, int | float) or not _is_finite(value)):
            raise RewardError(
                f"Reward '{name}' gave {value!r} to completion {position}, which is no number. "
                "Where it has no opinion, return None."
            )
        if value is not None and abs(value) > LARGEST:
            raise RewardError(
                f"Reward '{name}' gave {value:g} to completion {position}: trainers square rewards in 32 bits, and nothing above "
                f"{LARGEST:g} can be. Scale it; 0 to 1 is usual."
            )
        scores.append(None if value is None else float(value))
    return scores


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number that no float holds
        return False


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


def is_right(text: str, gold: str, verifier: Verifier, opening: str = "") -> bool:
    """The one verdict: whether a completion's answer is right. `opening`: see rl.templates."""
    given = extract_answer(text, opening)
    return given is not None and verifier(given, str(gold))


@reward("accuracy")
def accuracy(
    completions: list[str], answer: list[str], verifier: Verifier = number, opening: str = "", **kwargs: Any
) -> list[float]:
    """1.0 for the right answer, else 0.0."""
    return [
        float(is_right(text, gold, verifier, opening)) for text, gold in zip(completions, answer, strict=True)
    ]


@reward("format")
def format_tags(completions: list[str], answer: list[str], opening: str = "", **kwargs: Any) -> list[float]:
    """1.0 for thinking and an answer in their tags, else 0.0, whatever the answer is."""
    return [float(is_formatted(text, opening)) for text in completions]


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

        get_rewards(["accuracy", "my_rewards.brevity"], verifier=get_verifier("number"), max_completion_length=128)

    A name with a dot is a function of one's own, in a file beside the training script.

    Raises:
        RewardError: no names at all, one twice, or one that leads to no reward.
    """
    if not names:
        raise RewardError(f"rewards: name at least one of {', '.join(sorted(REWARDS))}.")
    for name in names:
        if list(names).count(name) > 1:
            raise RewardError(f"rewards: '{name}' stands there twice; weigh it with reward_weights instead.")
    return [_bind(_find(str(name)), bound) for name in names]


def _find(name: str) -> Reward:
    if name in REWARDS:
        return REWARDS[name]
    if "." not in name:
        raise RewardError(
            f"rewards: {unknown_name('reward', name, REWARDS)} "
            "A reward of your own is named file.function, and the file lies beside the training script."
        )
    try:
        function = load_function(name, "reward")
    except OwnCodeError as error:
        raise RewardError(f"rewards: {error}") from error
    guarded_already = function in REWARDS.values()
    return _guarded(name, function, function if guarded_already else functools.partial(_call, name, function))


def _bind(function: Reward, bound: dict[str, Any]) -> Reward:
    """The function with those of the values that it has parameters for; a column of the same name does not replace one."""
    parameters = inspect.signature(function).parameters
    known = {key: value for key, value in bound.items() if key in parameters and value is not None}
    if not known:
        return function
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def with_values(completions: Sequence[Any], **given: Any) -> list[float | None]:
            return await function(completions=completions, **{**given, **known})

    else:

        @functools.wraps(function)
        def with_values(completions: Sequence[Any], **given: Any) -> list[float | None]:
            return function(completions=completions, **{**given, **known})

    return with_values


def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: str,
    extra_info: dict[str, Any] | None = None,
    *,
    rewards: Sequence[str] = ("accuracy",),
    reward_weights: Sequence[float] | None = None,
    verifier: str = "number",
    **bound: Any,
) -> dict[str, float]:
    """Score of one completion for verl (`reward.custom_reward_function`, whose reward_kwargs are the rest).

    Args:
        extra_info: its "columns", JSON text of the data's row, reach the rewards as TRL's keyword arguments would.
        rewards: names, as in a recipe; `reward_weights`: one for each, 1.0 if not given; `verifier`: a name.
        bound: values for the rewards that have such a parameter, such as `opening` and `max_completion_length`.

    Returns:
        {"score": the weighted sum, "<name>": each reward}. Of a reward without an opinion the value is NaN, and the sum
        leaves it out, as TRL's does; if none has one, the sum is 0.

    Raises:
        RewardError: unknown reward, not one weight for each, or `ground_truth` is missing.
    """
    weights = [1.0] * len(rewards) if reward_weights is None else list(reward_weights)
    if len(weights) != len(rewards):
        raise RewardError(
            f"reward_weights: {len(weights)} weights for {len(rewards)} rewards ({', '.join(rewards)})."
        )
    # Python imports the files once a process; looking the functions up again takes 0.3 ms.
    functions = get_rewards(list(rewards), verifier=get_verifier(verifier), **bound)
    row = json.loads((extra_info or {}).get("columns", "{}"))
    columns = {name: [value] for name, value in row.items() if name not in NOT_PASSED}
    columns["prompts"] = [row.get("prompt", [])]
    columns["answer"] = None if ground_truth is None else [ground_truth]
    completion = [{"role": "assistant", "content": solution_str}]
    scores = {}
    for name, function in zip(rewards, functions, strict=True):
        result = function(completions=[completion], **columns)
        (score,) = waited_for(result) if inspect.iscoroutine(result) else result
        scores[name] = math.nan if score is None else score
    total = sum(w * s for w, s in zip(weights, scores.values(), strict=True) if not math.isnan(s))
    return {"score": total, **scores}


_starting = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None


def waited_for(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of an async reward, from any thread, also where an event loop runs already.

    There is one loop for the process, as in TRL, so that a reward can keep a connection from one call to the next.
    """
    global _loop
    with _starting:
        if _loop is None:
            _loop = asyncio.new_event_loop()
            threading.Thread(target=_loop.run_forever, daemon=True, name="rewards").start()
    return asyncio.run_coroutine_threadsafe(coroutine, _loop).result()
