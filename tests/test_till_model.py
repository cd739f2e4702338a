"""The tiny model at a till: its conversations, and what its card claims."""

import random
import re

import build_till_model
import pytest
from job.models import load_base
from model_cards import check_card
from rl.environments import Till
from rl.tasks import make_splits


@pytest.fixture(scope="module")
def model_and_tokenizer():
    return load_base("asset:tiny-till")


@pytest.fixture(scope="module")
def measured(model_and_tokenizer):
    return build_till_model.measure(*model_and_tokenizer)


def test_it_can_scan_but_is_hasty(measured):
    assert measured["share_that_scans"] >= 0.75
    assert measured["scans_of_what_is_left"] >= 0.95
    assert 0.6 <= measured["answers_although_something_is_left"] <= 0.9
    assert 0.08 <= measured["right"] <= 0.3


def test_card_gives_the_measured_figures(measured):
    rows = {
        "samples that scan": "share_that_scans",
        "scans of an item that is left": "scans_of_what_is_left",
        "answers behind a scan although something is left": "answers_although_something_is_left",
        "right": "right",
    }
    check_card("tiny-till", rows, measured, within=0.05)


def test_conversations_are_what_they_claim():
    rng, ends = random.Random(0), set()
    for _ in range(300):
        question, *turns = build_till_model.conversation(rng, 0.5)
        till, shown = Till(), "not begun"
        till.reset(question["content"])
        for said, result in zip(turns[:-1:2], turns[1:-1:2], strict=True):
            shown = till.scan(**said["tool_calls"][0]["function"]["arguments"])
            assert result == {"role": "tool", "content": shown} and "Error" not in shown
        answer = re.fullmatch(r"<answer>(-?\d+)</answer>", turns[-1]["content"])[1]
        assert shown == "not begun" or answer == shown.partition(",")[0]
        ends.add((len(turns) // 2, "nothing" in shown))
    # A guess; haste after one to three scans; patience with two to four items.
    assert ends == {(0, False), (1, False), (2, False), (3, False), (2, True), (3, True), (4, True)}


def test_tills_of_the_task_do_not_appear():
    asked = {
        re.match(r"Till (\d+)", row["question"])[1] for row in make_splits("till", {"train": 300})["train"]
    }
    rng = random.Random(0)
    seen = {
        re.match(r"Till (\d+)", build_till_model.conversation(rng, 0.5)[0]["content"])[1] for _ in range(300)
    }
    assert len(asked) > 100 and len(seen) > 100 and not asked & seen


def test_what_the_till_shows_is_learned_too(model_and_tokenizer):
    _, tokenizer = model_and_tokenizer
    rng = random.Random(0)
    messages = next(
        turns for turns in iter(lambda: build_till_model.conversation(rng, 0.5), None) if len(turns) == 6
    )
    question, rest = (tokenizer.decode(ids) for ids in build_till_model.example(tokenizer, messages))
    assert question == (
        "<|im_start|>system\nTools: scan(item)<|im_end|>\n"
        f"<|im_start|>user\n{messages[0]['content']}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert rest.startswith('<tool_call>{"name": "scan", "arguments": {"item": ')
    assert all(f"<|im_start|>tool\n{turn['content']}<|im_end|>\n" in rest for turn in messages[2:5:2])
    assert rest.endswith(f"<|im_start|>assistant\n{messages[-1]['content']}<|im_end|>")
