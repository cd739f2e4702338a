"""The memory calculator against bytes that were measured: parameters, KV cache and activations on this CPU."""

import pytest
import torch
from job.quantization import nf4_config
from lesson.memory_table import memory_table
from transformers import DynamicCache, Qwen2Config, Qwen2ForCausalLM, Qwen3Config, Qwen3ForCausalLM
from workshop.checks.memory import (
    NF4_BYTES,
    SHAPES,
    ModelShape,
    activation_bytes,
    estimate,
    kv_cache_bytes,
)

CONFIGS = {
    "qwen2": Qwen2Config(
        hidden_size=96, intermediate_size=288, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=327, tie_word_embeddings=True,
    ),
    "qwen3": Qwen3Config(
        hidden_size=64, intermediate_size=256, num_hidden_layers=3, num_attention_heads=4, num_key_value_heads=2,
        head_dim=32, vocab_size=300, tie_word_embeddings=False,
    ),
}  # fmt: skip
KINDS = {"qwen2": Qwen2ForCausalLM, "qwen3": Qwen3ForCausalLM}
RECIPE = {"per_device_train_batch_size": 32, "max_completion_length": 96, "dtype": "float32"}


@pytest.fixture(params=CONFIGS)
def model_and_shape(request):
    config = CONFIGS[request.param]
    return KINDS[request.param](config), ModelShape.read(config.to_dict())


def test_parameters_are_counted_exactly(model_and_shape):
    model, shape = model_and_shape
    assert shape.parameters == sum(parameter.numel() for parameter in model.parameters())


def test_adapters_are_counted_exactly(model_and_shape):
    from peft import LoraConfig, get_peft_model

    model, shape = model_and_shape
    adapted = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    trainable = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    assert shape.adapter_parameters(8) == trainable


def test_kv_cache_is_counted_exactly(model_and_shape):
    model, shape = model_and_shape
    cache = DynamicCache(config=model.config)
    model(input_ids=torch.zeros(3, 40, dtype=torch.long), past_key_values=cache, use_cache=True)
    held = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers)
    assert kv_cache_bytes(shape, 3 * 40, 4) == held


def test_activations_are_what_the_backward_pass_keeps(model_and_shape):
    model, shape = model_and_shape
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        model.model(input_ids=torch.zeros(4, 100, dtype=torch.long), use_cache=False)
    held = sum(t.untyped_storage().nbytes() for address, t in kept.items() if address not in weights)
    assert activation_bytes(shape, 400, 4) == pytest.approx(held, rel=0.1)


def test_published_sizes():
    """The names in SHAPES: parameter counts in the models' own descriptions, and the Hub's of their files (a shared
    embedding once), which no other number of heads has."""
    published = {
        "SmolLM2-135M": 134_515_008,
        "Qwen3-0.6B": 596_049_920,
        "Qwen3-1.7B": 1_720_574_976,
        "Qwen3-4B": 4_022_468_096,
        "Qwen3-8B": 8_190_735_360,
        "Qwen3-14B": 14_768_307_200,
        "Qwen3-32B": 32_762_123_264,
        "Llama-3.2-1B": 1_235_814_400,
        "Llama-3.1-8B": 8_030_261_248,
        "Llama-3.3-70B": 70_553_706_496,
    }
    assert {name: SHAPES[name].parameters for name in published} == published


def test_nf4_weights_take_what_bitsandbytes_stores(model_and_shape, tmp_path):
    pytest.importorskip("bitsandbytes")
    model, shape = model_and_shape
    model.save_pretrained(tmp_path)
    packed = type(model).from_pretrained(
        tmp_path, quantization_config=nf4_config(torch.float32), device_map="cpu"
    )
    held = 0
    for name, parameter in packed.named_parameters():
        if "proj.weight" in name:
            state = parameter.quant_state
            held += parameter.nbytes + state.absmax.nbytes
    # The scales of scales (one float for 256 blocks of 64 weights) round up on matrices as small as these.
    assert held == pytest.approx(shape.layers * shape.linear_weights * NF4_BYTES, rel=0.02)


def test_sharding_divides_the_states_and_nothing_else():
    shape = SHAPES["tiny"]
    alone = estimate(shape, RECIPE, devices=1, sharded=False)
    four = estimate(shape, RECIPE, devices=4)
    assert four.parameters * 4 == alone.parameters == shape.parameters * 4
    assert four.optimizer * 4 == alone.optimizer == 2 * alone.gradients
    assert (four.activations, four.kv_cache) == (alone.activations, alone.kv_cache)
    kept = estimate(shape, RECIPE | {"fsdp_config": {"reshard_after_forward": False}}, devices=4)
    assert kept.gathered == shape.parameters * 4 > four.gathered


def test_lora_and_nf4_save_what_they_promise():
    recipe = RECIPE | {"bf16": True, "dtype": "bfloat16", "use_vllm": True}
    whole, lora, qlora = (
        estimate(SHAPES["Qwen3-8B"], recipe | extra, devices=1, sharded=False)
        for extra in ({}, {"lora_rank": 16}, {"lora_rank": 16, "quantization": "nf4"})
    )
    assert lora.optimizer < whole.optimizer / 100
    assert qlora.parameters < 0.5 * lora.parameters
    assert whole.kv_cache == 0  # vLLM's, in its own share of the device
    checkpointed = estimate(SHAPES["Qwen3-8B"], recipe | {"gradient_checkpointing": True}, devices=1)
    assert checkpointed.activations < whole.activations


def test_the_table_shows_every_part():
    text = repr(memory_table({"one": estimate(SHAPES["tiny"], RECIPE, devices=1)}))
    assert all(word in text for word in ("MB", "gathered", "kv cache", "total", "one"))
