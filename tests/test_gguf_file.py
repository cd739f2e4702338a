"""04's GGUF writer: what transformers reads back computes the same, for each architecture, and speaks the same tokens."""

import importlib
import sys
from pathlib import Path

import pytest
import torch
from job.models import load_base, load_tokenizer
from rl.tasks import make_splits
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

pytest.importorskip("gguf")
SIZES = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 327,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}
MODELS = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SIZES, tie_word_embeddings=False)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SIZES, tie_word_embeddings=True)),
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SIZES, head_dim=128)),
}


@pytest.fixture
def gguf_file(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "04_grpo_unsloth" / "scripts"))
    yield importlib.import_module("gguf_file")
    sys.modules.pop("gguf_file")


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=torch.arange(3, 60)[None]).logits.float()


@pytest.mark.parametrize("name", MODELS)
def test_what_is_read_back_computes_the_same(gguf_file, name, tmp_path):
    torch.manual_seed(0)
    model = MODELS[name]()
    gguf_file.write_gguf(model, load_tokenizer("asset:tiny"), tmp_path / "model.gguf")
    back = AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file="model.gguf", dtype=torch.float32)
    before, after = logits(model), logits(back)
    assert type(back) is type(model)
    assert (before - after).norm() < 0.1 * before.norm()  # 8 bits; rows in a wrong order give more than 1
    assert back.generation_config.eos_token_id == 2


def test_the_file_speaks_the_same_tokens(gguf_file, tmp_path):
    model, tokenizer = load_base("asset:tiny")
    gguf_file.write_gguf(model, tokenizer, tmp_path / "model.gguf")
    back = AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
    for row in make_splits("chain_sum", {"test": 50})["test"]:
        text = tokenizer.apply_chat_template(row["prompt"], tokenize=False, add_generation_prompt=True)
        text += "<think>12 + 6 = 18\n18 - 9 = 9</think><answer>9</answer>"
        assert back(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert back.chat_template == tokenizer.chat_template
    assert (tmp_path / "model.gguf").stat().st_size < 0.6 * model.num_parameters() * 2


def test_what_cannot_be_written_is_refused(gguf_file, tmp_path):
    tokenizer = load_tokenizer("asset:tiny")
    other = GPT2LMHeadModel(GPT2Config(n_embd=32, n_layer=1, n_head=2, vocab_size=327))
    with pytest.raises(gguf_file.GgufError, match="architecture 'gpt2'"):
        gguf_file.write_gguf(other, tokenizer, tmp_path / "model.gguf")
    from tokenizers import pre_tokenizers

    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    with pytest.raises(gguf_file.GgufError, match="Whitespace"):
        gguf_file.write_gguf(MODELS["qwen2"](), tokenizer, tmp_path / "model.gguf")
