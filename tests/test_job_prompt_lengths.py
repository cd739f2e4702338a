"""job.prompt_lengths: a prompt without room for an answer is found, wherever it stands, before anything is computed."""

from types import SimpleNamespace

import pytest
from job.models import load_base
from job.prompt_lengths import check_prompts, longest, positions
from rl.tasks import DataError, make_splits

ROWS = make_splits("chain_sum", {"train": 500})["train"]
SETTINGS = {"chat_template_kwargs": None, "use_vllm": True, "vllm_max_model_length": None}


def asking(words: int, index: int) -> dict:
    question = "so " * words
    return {
        **ROWS[0],
        "prompt": [{"role": "user", "content": question}],
        "question": question,
        "index": index,
    }


@pytest.fixture(scope="module")
def base():
    return load_base("asset:tiny")


@pytest.mark.parametrize(
    ("words", "settings", "refused"),
    [
        (
            900,
            {},
            r"1 of 501 prompts leave no room .* has \d{4} tokens .*index 7: .* was made for 1024: take",
        ),
        (60, {"vllm_max_model_length": 64}, "vllm_max_model_length is 64"),
        (60, {"vllm_max_model_length": 64, "use_vllm": False}, None),
        (60, {}, None),
    ],
)
def test_a_prompt_too_long_for_the_model_or_for_vllm(base, words, settings, refused):
    model, tokenizer = base
    given = [*ROWS, asking(words, 7)], tokenizer, model, SimpleNamespace(**SETTINGS | settings)
    if not refused:
        check_prompts(*given)
    else:
        with pytest.raises(DataError, match=refused):
            check_prompts(*given)


def test_unsloths_window_counts_and_a_model_may_have_none(base):
    config = SimpleNamespace(chat_template_kwargs={})
    made = {"config": SimpleNamespace(to_dict=lambda: {}), "max_seq_length": 40}
    with pytest.raises(DataError, match="vllm_max_model_length is 40"):
        check_prompts([asking(60, 0)], base[1], SimpleNamespace(**made), config)
    check_prompts([asking(60, 0)], base[1], SimpleNamespace(**made | {"max_seq_length": None}), config)


def test_the_longest_texts_are_counted_in_their_order():
    rows = [asking(1, 0), asking(50, 1), asking(2, 2), asking(40, 3)]
    assert longest(rows) == rows
    assert [row["index"] for row in longest(rows, 500)] == [1, 3]
    assert [row["index"] for row in longest(rows, 1)] == [1]
    answered = {
        **asking(1, 4),
        "chosen": [{"role": "assistant", "content": None}],
        "rejected": [{"content": "no " * 99}],
    }
    assert longest([*rows, answered], 500)[0]["index"] == 4, "a pair is as long as with its answers"


@pytest.mark.parametrize(
    ("rope", "room"),
    [
        ({}, 100),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, 100),
        ({"rope_scaling": {"type": "yarn", "factor": 4.0, "original_max_position_embeddings": 100}}, 400),
        (
            {
                "rope_parameters": {
                    "rope_type": "llama3",
                    "factor": 8.0,
                    "original_max_position_embeddings": 8,
                }
            },
            100,
        ),
    ],
)
def test_positions_with_a_longer_context_switched_on(rope, room):
    assert positions({"max_position_embeddings": 100, **rope}) == room
    assert positions(rope) is None
