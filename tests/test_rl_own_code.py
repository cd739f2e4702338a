"""Rewards of one's own: as TRL calls them, as verl calls them, and what they may return."""

import asyncio
import inspect
import json
import math
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from own_rewards import DECORATED, MINE
from rl.rewards import RewardError, compute_score, get_rewards
from rl.verifiers import number
from trl.trainer.utils import get_callable_name, is_async_callable

PROMPT = [{"role": "user", "content": "What is it?"}]
# What TRL passes besides the columns.
FROM_TRL = {"trainer_state": None, "log_extra": None, "log_metric": None}


def conversation(text):
    return [{"role": "assistant", "content": text}]


def test_a_function_written_for_trl_gets_what_trl_gives_it(write):
    write("mine", MINE)
    (function,) = get_rewards(["mine.brevity"], verifier=number, opening="", max_completion_length=9)
    completions, ids = [conversation("ab"), conversation("abc")], [[1], [2, 3]]
    columns = {"answer": ["9", "8"], "topic": ["a", "b"], **FROM_TRL}
    given = {"prompts": [PROMPT, PROMPT], "completion_ids": ids, **columns}
    assert function(completions=completions, **given) == [-2.0, -3.0]
    (seen,) = sys.modules["mine"].seen
    assert seen == {"completions": completions, **given}
    assert seen["completions"] is completions and seen["prompts"] is given["prompts"]
    (function,) = get_rewards(["mine.prompts_first"])
    assert function(completions=completions, **given) == [121.0, 31.0]


@pytest.mark.parametrize(
    ("name", "scores"),
    [
        ("keywords_only", [1.0]),
        ("topic", [1.0]),
        ("weighted", [0.5]),
        ("partly", [3.0]),
        ("no_opinion", [2.0]),
    ],
)
def test_whatever_python_can_call(write, name, scores):
    write("mine", MINE)
    (function,) = get_rewards([f"mine.{name}"], verifier=number)
    assert get_callable_name(function) == f"mine.{name}"  # TRL logs rewards/mine.topic/mean
    assert function(completions=[conversation("a")], prompts=[PROMPT], topic=["a"], **FROM_TRL) == scores
    assert not is_async_callable(function)
    assert compute_score("any", "a", "9", {"columns": '{"topic": "a"}'}, rewards=[f"mine.{name}"]) == {
        "score": scores[0],
        f"mine.{name}": scores[0],
    }


@pytest.mark.parametrize(("name", "score"), [("later", 1.0), ("bound_later", 1.0), ("weighted_later", 0.25)])
def test_async_rewards(write, name, score):
    write("mine", MINE)
    (function,) = get_rewards([f"mine.{name}"], verifier=number)
    assert is_async_callable(function) and get_callable_name(function) == f"mine.{name}"
    assert asyncio.run(function(completions=[conversation("9")], answer=["9"], **FROM_TRL)) == [score]

    def through_verl():
        return compute_score("any", "9", "9", {}, rewards=["accuracy", f"mine.{name}"])["score"]

    assert through_verl() == score

    async def in_a_running_loop():  # as in a notebook
        return through_verl()

    assert asyncio.run(in_a_running_loop()) == score
    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(lambda _: through_verl(), range(64), timeout=60)) == {score}


def test_async_rewards_may_keep_a_connection(write):
    """TRL has one event loop for all calls, so that a client that was opened in the first still works in the second."""
    write(
        "mine",
        "import asyncio\nlock = None\n"
        "async def f(completions, **kwargs):\n"
        "    global lock\n"
        "    lock = lock or asyncio.get_running_loop()\n"
        "    assert lock is asyncio.get_running_loop()\n"
        "    return [1.0]\n",
    )
    with ThreadPoolExecutor(4) as pool:
        calls = pool.map(lambda _: compute_score("any", "a", "9", rewards=["mine.f"])["score"], range(20))
        assert set(calls) == {1.0}


def test_decorated_functions_get_texts_and_the_name_of_the_recipe(write):
    write("mine", DECORATED)
    words, verdicts = get_rewards(["mine.words", "mine.verdicts"], verifier=number)
    assert words([conversation("a b"), "c"], answer=["9", "9"]) == [2.0, 1.0]
    assert get_callable_name(words) == "mine.words"
    assert is_async_callable(verdicts)
    assert asyncio.run(verdicts([conversation("9.0")], answer=["9"])) == [1.0]
    scores = compute_score("any", "9.0", "9", rewards=["mine.words", "mine.verdicts"])
    assert scores == {"score": 2.0, "mine.words": 1.0, "mine.verdicts": 1.0}
    with pytest.raises(RewardError, match="needs one answer for each of 1 completions"):
        words(["a"])


NUMBERS = {
    "numpy scalars": [numpy.float32(0.5), numpy.int64(2)],
    "a numpy array": numpy.array([0.5, 2.0], dtype=numpy.float16),
    "a tensor": torch.tensor([0.5, 2.0], dtype=torch.bfloat16, requires_grad=True),
    "tensors": [torch.tensor(0.5), torch.tensor(2)],
    "a tuple": (0.5, 2),
    "booleans": [0.5, numpy.True_ + 1],
}


@pytest.mark.parametrize("returned", NUMBERS.values(), ids=NUMBERS)
def test_numbers_of_all_kinds_are_taken(write, returned):
    write("mine", "returned = None\ndef f(completions, **kwargs): return returned\n")
    (function,) = get_rewards(["mine.f"])
    sys.modules["mine"].returned = returned
    scores = function(completions=["a", "b"])
    assert scores == [0.5, 2.0] and [type(score) for score in scores] == [float, float]


def test_no_opinion_is_none_in_trl_and_left_out_in_verl(write):
    write("mine", MINE)
    (function,) = get_rewards(["mine.no_opinion"])
    assert function(completions=[conversation("?"), conversation("!")]) == [None, 2.0]
    names = {"rewards": ["mine.no_opinion", "accuracy"], "reward_weights": [3.0, 1.0]}
    right = "<answer>9</answer>"
    assert compute_score("any", right, "9", **names)["score"] == 7.0
    write("mine", "def no_opinion(completions, **kwargs): return [None] * len(completions)\n")
    scores = compute_score("any", right, "9", **names)
    assert scores["score"] == 1.0 and math.isnan(scores["mine.no_opinion"])


REFUSED = {
    "nan": ([1.0, math.nan], "gave nan to completion 1, which is no number.*return None"),
    "numpy's nan": (numpy.array([numpy.nan, 1.0]), "gave nan to completion 0"),
    "infinite": (torch.tensor([1.0, math.inf]), "gave inf to completion 1"),
    "too few": ([1.0], "must return a list of 2 numbers, but returned 1 values"),
    "too many": (torch.ones(3), "but returned 3 values"),
    "one number": (1.0, "but returned float"),
    "a scalar": (torch.tensor(1.0), "but returned Tensor"),
    "nothing": (None, "but returned NoneType"),
    "two columns": (torch.ones(2, 1), r"gave \[1.0\] to completion 0"),
    "tensors of two": ([torch.ones(2), torch.ones(2)], r"gave \[1.0, 1.0\] to completion 0"),
    "text": (["1", "2"], "gave '1' to completion 0"),
    "complex": ([1j, 1j], "gave 1j"),
    "a dictionary": ({"a": 1.0, "b": 2.0}, "but returned dict"),
}


@pytest.mark.parametrize(("returned", "message"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_list_of_rewards_is_refused(write, returned, message):
    write("mine", "returned = None\ndef f(completions, **kwargs): return returned\n")
    (function,) = get_rewards(["mine.f"])
    sys.modules["mine"].returned = returned
    with pytest.raises(RewardError, match=f"Reward 'mine.f' .*{message}"):
        function(completions=["a", "b"])


def test_a_column_that_is_not_there_is_named(write):
    write("mine", MINE)
    (function,) = get_rewards(["mine.topic"])
    given = {"completions": ["a"], "prompts": [PROMPT], "answer": ["9"]}
    with pytest.raises(
        RewardError, match="'mine.topic': missing .* 'topic'. It is given completions, prompts, answer;"
    ):
        function(**given)
    with pytest.raises(RewardError, match="'mine.topic': missing .* 'topic'"):
        compute_score("any", "a", "9", {"columns": '{"subject": "a"}'}, rewards=["mine.topic"])
    (function,) = get_rewards(["mine.without_kwargs"])
    with pytest.raises(
        RewardError, match=r"'mine.without_kwargs': got an unexpected .*last parameter, \*\*kwargs"
    ):
        function(**given)


def test_verl_passes_columns_as_trl_does(write):
    write("mine", MINE)
    row = {
        "prompt": PROMPT, "question": "?", "answer": "8", "index": 3, "topic": "a", "completion": "x", "level": None,
    }  # fmt: skip
    extra = {"index": 3, "split": "train", "columns": json.dumps(row)}
    compute_score("any", "text", "9", extra, rewards=["mine.brevity"], opening="", max_completion_length=5)
    (seen,) = sys.modules["mine"].seen
    assert seen == {
        "completions": [conversation("text")], "prompts": [PROMPT], "answer": ["9"], "question": ["?"], "index": [3],
        "topic": ["a"], "level": [None],
    }  # fmt: skip


def test_bound_values_reach_those_that_ask_whatever_columns_there_are(write):
    write(
        "mine",
        "def f(completions, max_completion_length=1, opening=None, **kwargs):\n    return [max_completion_length]\n",
    )
    (function,) = get_rewards(["mine.f"], max_completion_length=7, opening="<think>")
    assert function(["a"]) == [7.0]
    assert function(["a"], max_completion_length=[3], opening=["e4 e5"]) == [7.0]
    (accuracy,) = get_rewards(["accuracy"], verifier=number, opening="")
    assert accuracy(["<answer>9</answer>"], answer=["9"], opening=["e4 e5"], verifier=["me"]) == [1.0]
    assert "completions" in inspect.signature(function).parameters
