"""The tiny base model: what its card claims, and that its maker makes the same model every time."""

import random

import build_tiny_model
import pytest
import torch
from job.models import load_base
from model_cards import check_card
from rl.tasks import make_splits


@pytest.fixture(scope="module")
def measured():
    model, tokenizer = load_base("asset:tiny")
    return build_tiny_model.measure(model, tokenizer)


def test_it_can_think_but_mostly_does_not(measured):
    assert 0.30 <= measured["sampled_pass_at_1"] <= 0.60
    assert measured["right_when_it_thinks"] >= 0.95
    assert measured["right_when_direct"] <= 0.30
    assert measured["greedy_pass_at_1"] < 0.70


def test_card_gives_the_measured_figures(measured):
    rows = {
        "pass@1, sampled": "sampled_pass_at_1",
        "pass@1, greedy": "greedy_pass_at_1",
        "right when it thinks": "right_when_it_thinks",
        "right when it answers directly": "right_when_direct",
    }
    check_card("tiny", rows, measured, within=0.03)


def test_pretraining_is_deterministic():
    held_back = {row["question"] for row in make_splits("chain_sum", {"train": 10})["train"]}
    _, tokenizer = load_base("asset:tiny")
    first, second = (_pretrain(tokenizer, held_back) for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def _pretrain(tokenizer, held_back):
    batches = build_tiny_model.batches(tokenizer, held_back)
    model = build_tiny_model.new_model(tokenizer)
    build_tiny_model.pretrain(model, batches, steps=2)
    return model.state_dict()


def test_held_back_questions_do_not_appear():
    source = build_tiny_model.questions(seed=1, held_back=set())
    seen = {next(source)[0] for _ in range(50)}
    filtered = build_tiny_model.questions(seed=1, held_back=seen)
    assert not seen & {next(filtered)[0] for _ in range(200)}


def test_every_style_is_what_it_claims():
    expression, rng = "2 + 6 - 1", random.Random(0)
    texts = {build_tiny_model.completion(expression, rng) for _ in range(300)}
    thinking = {text for text in texts if text.startswith("<think>2")}
    assert thinking == {"<think>2 + 6 = 8\n8 - 1 = 7</think><answer>7</answer>"}
    assert {text for text in texts - thinking if "<answer>" in text} == {
        f"<think></think><answer>{guess}</answer>" for guess in (7, 8, 9)
    }


def test_tokenizer_knows_every_character():
    _, tokenizer = load_base("asset:tiny")
    text = "naïve 数学 12345 \N{SLIGHTLY SMILING FACE}\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert all(tokenizer.decode([token]) in "12345" for token in tokenizer("12345")["input_ids"])
