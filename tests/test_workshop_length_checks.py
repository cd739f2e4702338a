"""Preflight of lengths in tokens: prompts, pairs and answers against what recipe and model have room for."""

import json
import re

import pytest
from preflight_findings import findings
from preflight_fixtures import ROOT, edit
from rl.tasks import make_splits

DPO = ROOT / "01_dpo_trl" / "scripts"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_prompt_length": 34},
            "x prompts: 10 of 40 prompts have more than 34 tokens (the longest 36): verl cuts",
        ),
        ({"vllm_max_model_length": 35}, "leaves no room for an answer in vllm_max_model_length = 35"),
        (
            {"vllm_max_model_length": 130},
            "! prompts: the longest prompt has 36 tokens, with max_completion_length = 96 that makes 132, but vllm_max",
        ),
        (
            {"vllm_max_model_length": 2048, "use_vllm": True},
            "x prompts: vllm_max_model_length is 2048, and the model was made for 1024 tokens: vLLM refuses that",
        ),
        (
            {"max_completion_length": "1000", "eval_max_new_tokens": 1000},
            "! prompts: the longest prompt has 36 tokens, with max_completion_length = 1000 that makes 1036, and the model "
            "was made for 1024 (max_position_embeddings): what it writes beyond is noise. Lower max_completion_length to "
            "988",
        ),
    ],
)
def test_lengths(model, data, settings, message):
    assert message in findings({"model": model, **data}, **settings)


def test_prompts_longer_than_the_model(model, data):
    edit(model / "config.json", max_position_embeddings=35)
    found = findings({"model": model, **data})
    assert (
        "x prompts: 10 of 40 prompts have more than 34 tokens (the longest 36), and the model was made for 35"
        in found
    )
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 100}
    config.pop("rope_parameters")  # learned positions, as GPT-2 has them
    (model / "config.json").write_text(json.dumps(config))
    found = findings({"model": model, **data})
    assert "x prompts: the longest prompt has 36 tokens" in found and "100 positions" in found


def test_lengths_of_preference_pairs(model, tmp_path):
    rows = make_splits("chain_sum", {"train": 40})["train"]
    answer = {"chosen": "<think></think><answer>1</answer>", "rejected": "2"}
    pairs = [
        {**row, **{side: [{"role": "assistant", "content": text}] for side, text in answer.items()}}
        for row in rows
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    channels = {"model": model, "train": tmp_path / "pairs.jsonl"}
    assert "+ prompts: up to 36 tokens (of 40 prompts)" in findings(channels, DPO, max_length=160)
    some = findings(channels, DPO, max_length=35)
    assert "! prompts: 10 of 40 pairs are left out: their prompt alone fills max_length, 35 tokens" in some
    assert "! prompts: 30 of 40 pairs lose the end of an answer" in some
    assert "x prompts: 0 pairs are left to train on" in findings(channels, DPO, max_length=20)


def test_one_long_prompt_is_found_among_many(model, tmp_path):
    rows = make_splits("chain_sum", {"train": 501})["train"]

    def asked(last: str, padding: str = "") -> str:
        texts = [row["question"] + padding for row in rows[:-1]] + [last]
        written = [
            {**row, "prompt": [{"role": "user", "content": text}]}
            for row, text in zip(rows, texts, strict=True)
        ]
        (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in written))
        return findings({"model": model, "train": tmp_path / "rows.jsonl"})

    assert "+ prompts: up to 36 tokens (of 501 prompts)" in asked(rows[-1]["question"])
    assert "x prompts: 1 of 501 prompts have more than 1023 tokens" in asked("so " * 900)
    # Of more text than is counted in a second, the longest.
    found = asked("so " * 6000, padding=" ." * 5000)
    assert re.search(
        r"x prompts: at least 4\d\d of 501 prompts have more than 1023 tokens \(the longest 18008\)", found
    )


@pytest.mark.parametrize(
    ("evaluated", "effect"),
    [
        (64, "cuts off answers that the training lets end"),
        (128, "count as right in the evaluation and earned"),
    ],
)
def test_an_evaluation_with_other_room_than_the_training(model, data, evaluated, effect):
    found = findings({"model": model, **data}, eval_max_new_tokens=evaluated)
    assert f"! evaluation: eval_max_new_tokens is {evaluated}, but completions have up to 96 tokens" in found
    assert effect in found
