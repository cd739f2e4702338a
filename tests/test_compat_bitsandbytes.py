"""bitsandbytes on CPUs: scales and gradients are right with compat's help, and wrong without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from compat.bitsandbytes_on_cpu import correct_dequantization, disable_inference_repacking
from job.quantization import nf4_config
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

bitsandbytes = pytest.importorskip("bitsandbytes")


@pytest.fixture
def saved(tmp_path):
    """A model without biases, the kind whose gradients went wrong silently."""
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=300,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    return tmp_path


def packed_model(folder, dtype=torch.bfloat16):
    return AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, quantization_config=nf4_config(dtype), device_map="cpu"
    )


def embedding_gradient(model) -> torch.Tensor:
    """Gradient that has passed backward through every 4-bit layer."""
    tokens = torch.arange(2 * 24).reshape(2, 24) + 3
    model.train()
    weight = model.get_input_embeddings().weight
    weight.requires_grad_(True)
    weight.grad = None
    model(input_ids=tokens, labels=tokens).loss.backward()
    return weight.grad.float().flatten()


def generate_once(model) -> None:
    model.eval()
    model.generate(torch.full((1, 4), 5), max_new_tokens=3, do_sample=False)


def reference_gradient(model) -> torch.Tensor:
    """The same with plain linear layers that hold the dequantized weights."""
    for name, module in list(model.named_modules()):
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            plain = torch.nn.Linear(module.in_features, module.out_features, bias=False, dtype=torch.bfloat16)
            plain.weight = torch.nn.Parameter(weight.to(torch.bfloat16), requires_grad=False)
            model.set_submodule(name, plain)
    return embedding_gradient(model)


def cosine(one: torch.Tensor, other: torch.Tensor) -> float:
    return torch.nn.functional.cosine_similarity(one, other, dim=0).item()


def test_gradients_after_a_generate_are_right(saved):
    model = disable_inference_repacking(packed_model(saved))
    generate_once(model)
    assert cosine(embedding_gradient(model), reference_gradient(packed_model(saved))) > 0.999


def test_the_fast_path_is_still_a_trap(saved):
    """On a CPU with AVX512-BF16, without the guard. When this fails, bitsandbytes is right by itself: remove disable_inference_repacking."""
    model = packed_model(saved)
    layer = next(m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit))
    if not getattr(layer, "support_avx512bf16_for_cpu", False):
        pytest.skip("this CPU has no AVX512-BF16")
    generate_once(model)
    assert cosine(embedding_gradient(model), reference_gradient(packed_model(saved))) < 0.9


def unpacking_error(columns: int) -> float:
    """Relative error of a random matrix that was packed and unpacked; NF4's own is 0.09."""
    torch.manual_seed(0)
    weight = torch.randn(64, columns)
    packed, state = bitsandbytes.functional.quantize_4bit(weight, quant_type="nf4", compress_statistics=True)
    return ((bitsandbytes.functional.dequantize_4bit(packed, state) - weight).norm() / weight.norm()).item()


@pytest.mark.parametrize("columns", [64, 96, 288, 576, 32])
def test_weights_are_unpacked_with_their_own_scales(columns):
    assert correct_dequantization() is correct_dequantization()
    assert unpacking_error(columns) < 0.1


@pytest.mark.job
def test_the_avx512_kernel_still_takes_wrong_scales():
    """When this fails, bitsandbytes is right by itself: remove correct_dequantization."""
    code = "from test_compat_bitsandbytes import unpacking_error; print(unpacking_error(64), unpacking_error(96))"
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parent, capture_output=True, text=True, check=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "scripts")},
    )  # fmt: skip
    whole_blocks, split_blocks = map(float, result.stdout.split())
    if torch.backends.cpu.get_cpu_capability() != "AVX512":
        pytest.skip("the kernel of this kind of CPU is right")
    assert whole_blocks < 0.1 < 0.2 < split_blocks
