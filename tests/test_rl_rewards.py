"""The contract that every entry of REWARDS keeps, then what each of them is for."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from rl.rewards import REWARDS, RewardError, compute_score, get_rewards, is_right, reward
from rl.tasks import TASKS, make_splits
from rl.verifiers import VERIFIERS, get_verifier

GOLD = "<think>2 + 6 = 8\n8 - 0 = 8\n8 + 1 = 9</think><answer>9</answer>"
EMPTY_THINKING = "<think></think><answer>9</answer>"
# What TRL passes besides completions and the data set's columns.
FROM_TRL = {
    "prompts": [],
    "trainer_state": None,
    "log_extra": None,
    "log_metric": None,
    "task": [],
    "index": [],
}


# Those of rl.rewards; a module of a lesson may have registered others in this process.
OWN = sorted(name for name, function in REWARDS.items() if function.__module__ == "rl.rewards")
LONGEST = 256  # tokens, for the rewards that look at length


@pytest.fixture(params=OWN)
def name(request):
    return request.param


def earns(name, completions, **columns):
    """What the reward gives, bound as a training script binds it."""
    (function,) = get_rewards([name], max_completion_length=LONGEST)
    return function(completions, **columns)


def messages(text):
    return [{"role": "assistant", "content": text}]


def test_gold_scores_one_plain_and_conversational(name):
    completions = [GOLD, EMPTY_THINKING, f"\n{GOLD}\n\n"]
    assert earns(name, completions, answer=["9"] * 3, **FROM_TRL) == [1.0] * 3
    assert earns(name, [messages(text) for text in completions], answer=["9"] * 3, **FROM_TRL) == [1.0] * 3


def test_a_cell_that_is_run_again_defines_its_reward_again():
    def define(value):
        @reward("of a cell")
        def of_a_cell(completions, answer, **kwargs):
            return [value] * len(completions)

    try:
        define(0.0)
        define(1.0)
        assert REWARDS["of a cell"]([GOLD], answer=["9"]) == [1.0]
        with pytest.raises(ValueError, match="There is a reward 'accuracy' already"):
            reward("accuracy")(lambda completions, answer, **kwargs: [0.0])
    finally:
        del REWARDS["of a cell"]


def test_gold_of_every_offline_task_scores_one(name):
    for task in sorted(TASKS.keys() - {"gsm8k"}):
        rows = make_splits(task, {"test": 30})["test"]
        completions = [f"<think>\n\n</think>\n<answer>{row['answer']}</answer>" for row in rows]
        assert earns(name, completions, answer=[row["answer"] for row in rows]) == [1.0] * len(rows)


def test_name_is_what_trl_logs(name):
    assert REWARDS[name].__name__ == name


@pytest.mark.parametrize(
    "text",
    [
        None,
        "",
        " ",
        "9",
        "é" * 50_000,
        "<answer>٩</answer>",
        "<answer>" + "9" * 100_000 + "</answer>",
        "<answer>1e999999999</answer>",
        "<answer>nan</answer>",
        "\ud800",
        "\0",
        [],
        [{"role": "assistant", "content": None}],
        [{"role": "assistant", "tool_calls": []}],
    ],
    ids=lambda text: repr(text)[:24],
)
def test_odd_completions_never_raise(name, text):
    (score,) = earns(name, [text], answer=["9"])
    assert 0.0 <= score <= 1.0


@pytest.mark.parametrize(
    "unit",
    [
        "<think>",
        "</think>",
        "<answer>",
        "</answer>",
        "<answer></answer>",
        "<think></think>",
        "1,",
        "9",
        " ",
        "\n",
        "<",
    ],
)
def test_linear_time(name, unit):
    def seconds(length):
        text = "<think>" + unit * (length // len(unit)) + "</think><answer>9</answer>"
        best = float("inf")
        for _ in range(3):
            started = time.perf_counter()
            earns(name, [text], answer=["9"])
            best = min(best, time.perf_counter() - started)
        return best

    # Sixteen times the text: 16 times as long if linear, 256 times if quadratic. The floor is for timer noise.
    assert seconds(1_600_000) < 100 * max(seconds(100_000), 1e-4)


@pytest.mark.parametrize("answer", [None, ["9"], ["9", "9", "9"], "99", ["9", None], ["9", ""], ["9", "  "]])
def test_missing_gold_answers_are_refused(name, answer):
    with pytest.raises(RewardError, match="answer"):
        earns(name, [GOLD, GOLD], answer=answer)


def test_works_from_a_worker_thread(name):
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(earns, name, [GOLD], answer=["9"]).result(timeout=60) == [1.0]


def test_serves_verl(name):
    scores = compute_score("any", GOLD, "9", rewards=[name], max_completion_length=LONGEST)
    assert scores == {"score": 1.0, name: 1.0}


@pytest.mark.parametrize(
    ("verifier", "given", "gold", "right"),
    [
        ("number", "\u22129", "-9", True),
        ("number", "nine", "9", False),
        ("choice", "(b)", "B", True),
        ("text", "PARIS.", "Paris", True),
        ("exact", "paris", "Paris", False),
        ("math", "\\frac{1}{2}", "0.5", True),
        ("math", "\\frac{1}{3}", "0.5", False),
    ],
)
def test_one_verdict_wherever_it_is_asked_for(verifier, given, gold, right):
    text = f"<think></think><answer>{given}</answer>"
    assert is_right(text, gold, VERIFIERS[verifier]) is right
    (function,) = get_rewards(["accuracy"], verifier=get_verifier(verifier))
    assert function([text, messages(text)], answer=[gold] * 2, **FROM_TRL) == [float(right)] * 2
    assert compute_score("any", text, gold, verifier=verifier)["score"] == float(right)
    assert not is_right(given, gold, VERIFIERS[verifier])  # not in its tags


def test_the_opening_of_the_template_reaches_accuracy_and_format():
    opened = "I write <answer>8</answer>. No.</think><answer>9</answer>"
    names = {"rewards": ["accuracy", "format"]}
    assert compute_score("any", opened, "9", **names)["score"] == 0.0
    assert compute_score("any", opened, "9", opening="<think>\n", **names)["score"] == 2.0


def test_soft_overlong_falls_from_80_percent_to_the_limit():
    (function,) = get_rewards(["soft_overlong"], max_completion_length=100)
    lengths = [0, 80, 85, 90, 99, 100, 200]
    ids = [[7] * length for length in lengths]
    scores = function(["text"] * len(ids), answer=["9"] * len(ids), completion_ids=ids)
    assert scores == pytest.approx([1.0, 1.0, 0.75, 0.5, 0.05, 0.0, 0.0])


def test_soft_overlong_is_eq_13_of_dapo_plus_one():
    """TRL's own version of the equation, shifted."""
    from trl.rewards import get_soft_overlong_punishment

    theirs = get_soft_overlong_punishment(max_completion_len=100, soft_punish_cache=20)
    ids = [[7] * length for length in range(130)]
    ours = REWARDS["soft_overlong"](
        ["x"] * 130, answer=["9"] * 130, completion_ids=ids, max_completion_length=100
    )
    assert ours == pytest.approx([score + 1 for score in theirs(completion_ids=ids)])


def test_soft_overlong_does_not_guess_the_limit():
    with pytest.raises(RewardError, match="'soft_overlong' needs the longest completion allowed"):
        REWARDS["soft_overlong"]([GOLD], answer=["9"])
    with pytest.raises(RewardError, match="'soft_overlong' needs the longest completion allowed"):
        compute_score("any", GOLD, "9", rewards=["soft_overlong"])


def test_soft_overlong_estimates_the_length_where_there_are_no_tokens():
    scores = REWARDS["soft_overlong"](["1 + 2 = 3", "1 " * 300], answer=["3", "3"], max_completion_length=100)
    assert scores == [1.0, 0.0]


def test_get_rewards_keeps_order_and_names_and_binds_what_fits():
    functions = get_rewards(["soft_overlong", "accuracy"], max_completion_length=10)
    assert [function.__name__ for function in functions] == ["soft_overlong", "accuracy"]
    long = [[7] * 10]
    assert [function([GOLD], answer=["9"], completion_ids=long) for function in functions] == [[0.0], [1.0]]


def test_unknown_rewards_are_refused_with_the_nearest():
    with pytest.raises(RewardError, match="did you mean 'accuracy'"):
        get_rewards(["acuracy"])
    with pytest.raises(RewardError, match="at least one of accuracy"):
        get_rewards([])
    with pytest.raises(RewardError, match="'speed'; known: accuracy, .*format"):
        compute_score("any", GOLD, "9", rewards=["speed"])


def test_compute_score_weighs_the_rewards():
    both = {"rewards": ["accuracy", "format"], "reward_weights": [1.0, 0.2]}
    wrong = "<think></think><answer>8</answer>"
    assert compute_score("any", wrong, "9", {"index": 3}, **both) == pytest.approx(
        {"score": 0.2, "accuracy": 0.0, "format": 1.0}
    )
    assert compute_score("any", wrong, "9") == {"score": 0.0, "accuracy": 0.0}
    short = {"rewards": ["soft_overlong"], "max_completion_length": 50}
    assert compute_score("any", "1 " * 99, "9", None, **short)["score"] == 0.0
    with pytest.raises(RewardError, match="3 weights for 2 rewards"):
        compute_score("any", wrong, "9", **{**both, "reward_weights": [1, 2, 3]})
    with pytest.raises(RewardError, match="answer"):
        compute_score("any", wrong, None)


@pytest.mark.parametrize(
    "returned", [[1.0], [], [1.0, float("nan")], [1.0, "1"], 1.0, None, {1.0: 1.0, 2.0: 2.0}, [True, "x"]]
)
def test_a_reward_that_returns_nonsense_is_refused(returned):
    @reward("nonsense")
    def nonsense(completions, answer, **kwargs):
        return returned

    try:
        with pytest.raises(RewardError, match="nonsense"):
            REWARDS["nonsense"]([GOLD, GOLD], answer=["9", "9"])
    finally:
        del REWARDS["nonsense"]


def test_an_error_inside_a_reward_is_not_swallowed():
    @reward("broken")
    def broken(completions, answer, **kwargs):
        raise ZeroDivisionError("my own bug")

    try:
        with pytest.raises(ZeroDivisionError, match="my own bug"):
            REWARDS["broken"]([GOLD], answer=["9"])
    finally:
        del REWARDS["broken"]


def test_a_name_can_be_registered_once():
    with pytest.raises(ValueError, match="already"):
        reward("accuracy")(lambda completions, answer, **kwargs: [])
