"""The tiny model that knows a calculator: its conversations, its chat template, and what its card claims."""

import random

import build_tool_model
import pytest
from job.models import load_base
from model_cards import check_card
from rl.tasks import make_splits


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load_base("asset:tiny-tools")


@pytest.fixture(scope="module")
def measured(model_and_tokenizer):
    return build_tool_model.measure(*model_and_tokenizer)


def test_it_can_use_the_tool_but_mostly_does_not(measured):
    assert 0.15 <= measured["share_that_calls"] <= 0.50
    assert measured["calls_that_copy_the_sum"] >= 0.90
    assert measured["answers_that_copy_the_result"] >= 0.90
    assert measured["right_when_it_guesses"] <= 0.05


def test_card_gives_the_measured_figures(measured):
    rows = {
        "samples that call the calculator": "share_that_calls",
        "calls that copy the sum": "calls_that_copy_the_sum",
        "answers that copy the result": "answers_that_copy_the_result",
        "right when it guesses": "right_when_it_guesses",
    }
    check_card("tiny-tools", rows, measured, within=0.05)


def test_conversations_are_what_they_claim():
    rng, source = random.Random(0), build_tool_model.questions(seed=1, held_back=set())
    styles = set()
    for _ in range(500):
        question, expression, result = next(source)
        conversation, offered = build_tool_model.turns(question, expression, result, rng)
        assert eval(expression) == result and expression in question  # our own text of digits and signs
        if len(conversation) == 2:
            styles.add(conversation[1]["content"].split(">")[0].split(" ")[0])
            continue
        call, answer, final = conversation[1:]
        assert offered and call["tool_calls"][0]["function"]["arguments"] == {"expression": expression}
        failed = answer["content"].startswith("Error")
        styles.add("failed" if failed else "called")
        assert failed or answer["content"] == str(result)
        assert failed or final["content"] == f"<answer>{result}</answer>"
    assert styles == {"The", "<answer", "called", "failed"}


def test_held_back_questions_do_not_appear():
    rows = make_splits("long_sum", {"train": 50})["train"]
    assert {row["question"] for row in rows} <= build_tool_model.held_back_questions()
    source = build_tool_model.questions(seed=1, held_back=set())
    seen = {next(source)[0] for _ in range(50)}
    filtered = build_tool_model.questions(seed=1, held_back=seen)
    assert not seen & {next(filtered)[0] for _ in range(200)}


def test_chat_template_speaks_hermes(model_and_tokenizer):
    """A call as verl's `hermes` parser and Qwen's own models write it; adding messages only adds text."""
    _, tokenizer = model_and_tokenizer
    conversation, _ = build_tool_model.turns(
        "1 + 2 =", "1 + 2", 3, next(rng for rng in map(random.Random, range(99)) if _calls(rng))
    )
    texts = [
        tokenizer.apply_chat_template(conversation[:end], tools=[build_tool_model.CALCULATOR], tokenize=False)
        for end in range(1, 5)
    ]
    assert all(after.startswith(before) for before, after in zip(texts, texts[1:], strict=False))
    assert texts[0].startswith(
        "<|im_start|>system\nTools: calculator(expression)<|im_end|>\n<|im_start|>user\n"
    )
    call = build_tool_model.only_call(texts[1].split("assistant\n")[1].removesuffix("<|im_end|>\n"))
    assert call == {"name": "calculator", "arguments": {"expression": "1 + 2"}}
    assert texts[3].endswith(
        "<|im_start|>tool\n3<|im_end|>\n<|im_start|>assistant\n<answer>3</answer><|im_end|>\n"
    )


def _calls(rng: random.Random) -> bool:
    """Whether a random state leads to a call that succeeds, leaving the state as it was."""
    state = rng.getstate()
    conversation, _ = build_tool_model.turns("", "", 0, rng)
    rng.setstate(state)
    return len(conversation) == 4 and conversation[2]["content"] == "0"
