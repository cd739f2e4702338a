"""Rewards of one's own: as TRL calls them, as verl calls them, and what is said of those that cannot be had."""

import asyncio
import inspect
import json
import math
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
import torch
from rl.own_code import MissingPackage, OwnCodeError, load_function, source_digest
from rl.rewards import REWARDS, RewardError, compute_score, get_rewards
from rl.verifiers import number
from trl.trainer.utils import get_callable_name, is_async_callable

PROMPT = [{"role": "user", "content": "What is it?"}]
# What TRL passes besides the columns.
FROM_TRL = {"trainer_state": None, "log_extra": None, "log_metric": None}


def conversation(text):
    return [{"role": "assistant", "content": text}]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes a file beside the training script, as a notebook's cell does; it is forgotten afterwards."""
    monkeypatch.syspath_prepend(tmp_path)
    registered = dict(REWARDS)

    def file(name, content):
        path = tmp_path / f"{name.replace('.', '/')}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(content)
        monkeypatch.delitem(sys.modules, name, raising=False)
        return path

    yield file
    for name, module in list(sys.modules.items()):
        if (getattr(module, "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]
    REWARDS.clear()
    REWARDS.update(registered)


MINE = """
import asyncio
import functools
import threading

seen = []

def brevity(completions, **kwargs):
    seen.append({"completions": completions, **kwargs})
    return [-float(len(completion[0]["content"])) for completion in completions]

def prompts_first(prompts, completions, completion_ids, topic, **kwargs):
    return [len(p[0]["content"]) + 10 * len(i) + 100 * (t == "a") for p, i, t in zip(prompts, completion_ids, topic)]

def keywords_only(*, completions, **kwargs):
    return [1.0] * len(completions)

def topic(completions, topic, level=1, **kwargs):
    return [float(t in c[0]["content"]) * level for c, t in zip(completions, topic)]

def without_kwargs(completions):
    return [1.0] * len(completions)

async def later(completions, answer, **kwargs):
    await asyncio.sleep(0)
    return [float(c[0]["content"] == a) for c, a in zip(completions, answer)]

async def bound_later(completions, verifier, **kwargs):
    return [float(verifier(c[0]["content"], "9.0")) for c in completions]

def no_opinion(completions, **kwargs):
    return [None if c[0]["content"] == "?" else 2.0 for c in completions]

class Weighted:
    def __init__(self, weight): self.weight = weight
    def __call__(self, completions, **kwargs): return [self.weight] * len(completions)

class Later(Weighted):
    async def __call__(self, completions, **kwargs): return [self.weight] * len(completions)

weighted, weighted_later = Weighted(0.5), Later(0.25)
partly = functools.partial(topic, level=3)
"""

DECORATED = """
from rl.rewards import reward

@reward("words")
def words(completions, answer, topic=("",), **kwargs):
    return [float(len(text.split())) for text in completions]

@reward("verdicts")
async def verdicts(completions, answer, verifier, **kwargs):
    return [float(verifier(text, gold)) for text, gold in zip(completions, answer)]
"""


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


def test_from_eight_threads_a_file_is_imported_once(write):
    write(
        "mine",
        "import time\nimported = globals().get('imported', 0) + 1\ntime.sleep(0.2)\ndef f(completions, **kwargs): return [1.0]\n",
    )
    barrier = threading.Barrier(8)

    def score(_):
        barrier.wait(30)
        return compute_score("any", "a", "9", rewards=["mine.f", "accuracy"], verifier="text")["mine.f"]

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(score, range(8), timeout=60)) == [1.0] * 8
    assert sys.modules["mine"].imported == 1


WRONG = {
    "no file": ("nowhere.f", "", r"there is no file nowhere\.py beside the training script. Write it into .*scripts"),
    "no file in a folder": ("mine.deep.f", "", r"there is no file mine/deep\.py beside"),
    "no function": ("mine.brevty", "def brevity(): pass", r"unknown reward 'brevty'; did you mean 'brevity'\? \(in .*mine\.py\)"),
    "no function at all": ("mine.f", "x = 1", r"unknown reward 'f'; known: .*mine\.py"),
    "no callable": ("mine.x", "x = 1", r"reward 'mine\.x' is no function, but int in .*mine\.py"),
    "an error": ("mine.f", "x = 1\ny = x / 0\n", r"mine\.py, line 2, cannot be imported: ZeroDivisionError: division by zero"),
    "a syntax error": ("mine.f", "def f(:\n", r"mine\.py cannot be imported: SyntaxError: .*\(mine\.py, line 1\)"),
    "a script that ends": ("mine.f", "import sys\n\nsys.exit(2)\n", r"mine\.py, line 3, cannot be imported: SystemExit: 2"),
    "a package": ("mine.f", "\nimport no_such_package\n", r"mine\.py, line 2, needs 'no_such_package', which is neither a file"),
    "a package with the name's beginning": ("mine.f", "import min\n", r"mine\.py, line 1, needs 'min'"),
    "part of a package": ("mine.f", "import rl.no_such_part\n", r"needs 'rl.no_such_part'"),
    "a name that is none": ("mine.f()", "", r"write file.function, such as my_rewards.mine"),
    "a path": ("scripts/mine.py", "", r"write file.function, such as my_rewards.mine"),
    "a dot in front": (".f", "", r"write file.function"),
    "no dot": ("brevity", "", r"unknown reward 'brevity'; .*named file.function, and the file lies beside"),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content", "message"), WRONG.values(), ids=WRONG)
def test_what_cannot_be_had_is_said_in_words(write, name, content, message):
    write("mine", content)
    with pytest.raises(RewardError, match=rf"(?s)^rewards: .*{message}") as caught:
        get_rewards([name])
    missing = "needs '" in message
    assert isinstance(caught.value.__cause__, MissingPackage if missing else OwnCodeError) or "." not in name
    assert isinstance(caught.value.__cause__, MissingPackage) is missing


def test_a_file_that_could_not_be_imported_can_be_mended(write):
    write("mine", "1 / 0")
    with pytest.raises(OwnCodeError):
        load_function("mine.f", "reward")
    write("mine", "def f(completions, **kwargs): return [4.0]")
    (function,) = get_rewards(["mine.f"])
    assert function(["a"]) == [4.0]


def test_a_file_that_was_written_a_moment_ago_is_found(write):
    for count in range(20):  # within the resolution of the folder's time
        write(f"mine_{count}", f"def f(): return {count}")
        assert load_function(f"mine_{count}.f", "function")() == count


def test_a_cell_that_writes_its_file_anew_changes_the_reward(write):
    path = write("mine", DECORATED)
    (words,) = get_rewards(["mine.words"])
    assert words(["a b"], answer=["9"]) == [2.0]
    path.write_text(DECORATED.replace("float(len(", "10.0 * float(len("))
    (words,) = get_rewards(["mine.words"])
    assert words(["a b"], answer=["9"]) == [20.0]
    path.write_text("1 / 0")
    for _ in range(2):
        with pytest.raises(RewardError, match="line 1, cannot be imported: ZeroDivisionError"):
            get_rewards(["mine.words"])


def test_names_are_not_taken_twice(write):
    write("mine", MINE)
    for names in (["accuracy", "accuracy"], ["mine.topic", "accuracy", "mine.topic"]):
        with pytest.raises(
            RewardError, match=f"'{re.escape(names[0])}' stands there twice; weigh it with reward_weights"
        ):
            get_rewards(names)
    write("other", "from rl.rewards import reward\n@reward('accuracy')\ndef f(completions, **kwargs): pass\n")
    with pytest.raises(
        RewardError, match="other.py, line 2, cannot be imported: ValueError: There is a reward 'accuracy'"
    ):
        get_rewards(["other.f"])
    write("summed", "from rl.rewards import reward\n@reward('score')\ndef f(completions, **kwargs): pass\n")
    with pytest.raises(RewardError, match="'score' is what the weighted sum is called"):
        get_rewards(["summed.f"])


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


def test_the_digest_sees_the_files_that_a_file_imports(write):
    helper = write("beside", "LIMIT = 1\n")
    write(
        "mine",
        "import json\n\nfrom beside import LIMIT\n\ndef f(completions, **kwargs):\n    return [LIMIT]\n",
    )
    before = source_digest(["mine.f"])
    assert source_digest(["mine.f"]) == before
    helper.write_text("LIMIT = 2\n")
    assert source_digest(["mine.f"]) != before


def test_the_digest_is_of_the_files_that_are_named(write):
    path = write("mine", MINE)
    write("borrows", "from mine import topic\n")
    first = source_digest(["mine.topic", "borrows.topic", "mine.weighted", "mine.partly"])
    assert source_digest(["mine.weighted", "mine.partly", "borrows.topic", "mine.topic"]) == first
    borrowed = source_digest(["borrows.topic"])
    path.write_text(MINE + "# changed")
    assert source_digest(["borrows.topic"]) != borrowed
    with pytest.raises(OwnCodeError, match="there is no file"):
        source_digest(["nowhere.f"])
