"""The answer of a completion and its format, with all that thinking models and chat templates put around them."""

import time

import pytest
from rl.answers import completion_text, extract_answer, is_formatted
from rl.rewards import get_rewards
from rl.verifiers import number

OPENED = "<think>\n"  # DeepSeek-R1 distills, newer Qwen
EMPTY = "<think>\n\n</think>\n\n"  # Qwen3 without thinking

CASES = [
    # opening, completion, answer, formatted
    ("", "<think>2 + 7 = 9</think><answer>9</answer>", "9", True),
    ("", "<think></think><answer>9</answer>", "9", True),
    ("", "\n<think>\na\nb\n</think>\n\n<answer>\n 9 \n</answer>\n ", "9", True),
    ("", "<think>wrong</think><answer>no number</answer>", "no number", True),
    ("", "<answer>9</answer>", "9", False),  # no thinking: right, though not in the format
    ("", "so it is 9\n<answer>9</answer>", "9", False),
    ("", "<think></think>So: <answer>9</answer>", "9", False),
    ("", "So: <think></think><answer>9</answer>", "9", False),
    # Thinking that names the tags
    ("", "<think>I write <answer>8</answer> at the end. No, 9.</think><answer>9</answer>", "9", True),
    ("", "<think>First <think>, then </think>, then <answer>.</think><answer>9</answer>", "9", True),
    ("", "<think>I close with </think> and write <answer>8</answer>. So:</think><answer>9</answer>", "9", True),
    ("", "<think>a <think>b</think> <answer>8</answer> c <think>d</think> e</think><answer>9</answer>", "9", True),
    ("", "<think></think></think><answer>9</answer>", "9", True),
    # A block of the model's own, then the one asked for
    ("", "<think>long</think>\n\n<think>short</think>\n<answer>9</answer>", "9", True),
    ("", "<think>long</think>So: <think>short</think><answer>9</answer>", "9", False),
    # The template has opened the thinking
    (OPENED, "2 + 7 = 9</think><answer>9</answer>", "9", True),
    (OPENED, "2 + 7 = 9\n</think>\n\n<think>short</think><answer>9</answer>", "9", True),
    (OPENED, "<think>2 + 7 = 9</think><answer>9</answer>", "9", True),
    (OPENED, "I write <answer>8</answer>. No!</think><answer>9</answer>", "9", True),
    (OPENED, "</think><answer>9</answer>", "9", True),
    (OPENED, "<answer>9</answer>", None, False),  # an answer inside the thinking only
    (OPENED, "9</think>9", None, False),
    ("", "opened by a template that nobody knows of</think><answer>9</answer>", "9", False),
    ("", "</think><answer>9</answer>", "9", False),  # closed, and never opened
    # The template has put in an empty block
    (EMPTY, "<think>2 + 7 = 9</think><answer>9</answer>", "9", True),
    (EMPTY, "<answer>9</answer>", "9", True),
    (EMPTY, "So: <answer>9</answer>", "9", False),
    (EMPTY, "<answer>8</answer><think></think><answer>9</answer>", None, False),
    # Thinking that is never closed
    ("", "<think>it is <answer>9</answer>", None, False),
    (OPENED, "it is <answer>9</answer>", None, False),
    ("", "<think></think><think><answer>9</answer>", None, False),
    ("", "<think>2 + 7", None, False),
    # Two answers, one of them before the thinking, behind it, between two blocks
    ("", "<answer>8</answer><answer>9</answer>", None, False),
    ("", "<think></think><answer>8</answer> <answer>9</answer>", None, False),
    ("", "<answer>8</answer><think></think><answer>9</answer>", None, False),
    ("", "<answer>8</answer></think><answer>9</answer>", None, False),
    ("", "<think>a</think><answer>8</answer><think>b</think><answer>9</answer>", None, False),
    (OPENED, "a</think><answer>8</answer><think>b</think><answer>9</answer>", None, False),
    ("", "<think></think><answer><answer>9</answer></answer>", None, False),
    ("", "<think></think><answer>8<answer>9</answer>", None, False),
    ("", "<think></think><answer>8</answer>9</answer>", None, False),
    # In another place than behind the thinking
    ("", "<answer>9</answer><think></think>", None, False),
    ("", "<think><answer>9</answer></think>", None, False),
    ("", "<answer><think></think>9</answer>", None, False),
    # Text behind it, or not closed
    ("", "<think></think><answer>9</answer>.", None, False),
    ("", "<think></think><answer>9</answer></answer>", None, False),
    ("", "<think></think><answer>9", None, False),
    ("", "9</answer>", None, False),
    ("", "</answer><answer>", None, False),
    ("", "<think></think><answer></answer>", "", False),
    ("", "<think></think><answer> \n</answer>", "", False),
    ("", "", None, False),
    (OPENED, "", None, False),
]  # fmt: skip


@pytest.mark.parametrize(("opening", "text", "answer", "formatted"), CASES)
def test_answer_and_format(opening, text, answer, formatted):
    assert extract_answer(text, opening) == answer
    assert is_formatted(text, opening) is formatted
    accuracy, form = get_rewards(["accuracy", "format"], opening=opening, verifier=number)
    conversation = [{"role": "assistant", "content": text}]
    assert accuracy([text, conversation], answer=["9", "9"]) == [float(answer == "9")] * 2
    assert form([text, conversation], answer=["9", "9"]) == [float(formatted)] * 2


@pytest.mark.parametrize("opening", ["", OPENED, EMPTY])
@pytest.mark.parametrize(
    "unit",
    ["<think>", "</think>", "<answer>", "</answer>", "<answer></answer>", "<think></think>", "<think>a</think><answer>", "<", " ", "</think><think>"],
)  # fmt: skip
def test_linear_time(opening, unit):
    long = unit * (100_000 // len(unit))
    started = time.process_time()
    for text in (
        long,
        f"<think>{long}</think><answer>9</answer>",
        f"<think></think><answer>{long}</answer>",
        f"{long}9",
    ):
        extract_answer(text, opening)
        is_formatted(text, opening)
    assert time.process_time() - started < 1


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        (None, ""),
        ("a", "a"),
        ([], ""),
        ([{"role": "assistant", "content": "a"}], "a"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"content": "a"}], "a"),
        ([{"role": "assistant", "reasoning_content": "b", "content": "a"}], "<think>b</think>a"),
        (
            [
                {
                    "role": "assistant",
                    "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
                }
            ],
            "ab",
        ),
        (
            [
                {"role": "assistant", "content": "a", "tool_calls": []},
                {"role": "tool", "content": "<answer>7</answer>"},
                {"role": "assistant", "content": "b"},
            ],
            "ab",
        ),
    ],
)
def test_text_of_a_completion(completion, text):
    assert completion_text(completion) == text
