"""The gradients of 4-bit models after a generate, beside those of the same weights unpacked.

On a CPU with AVX512-BF16 bitsandbytes repacks 4-bit weights for inference at the first evaluation, and backward then
reads them in the old layout. GRPO evaluates in every step: it generates. Two small models, one without biases (random
weights) and the tiny model, which has some; three ways to load each: as it comes, with the cure in compat, and by
Unsloth, which has a cure of its own. Needs no data; leaves gradients.json among the job's outputs.

    SM_OUTPUT_DATA_DIR=out/data python gradient_check.py
"""

from unsloth_first import FastLanguageModel  # isort: skip

import json
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from arguments import SCRIPTS
from bitsandbytes.functional import dequantize_4bit, has_avx512bf16
from bitsandbytes.nn import Linear4bit
from compat.bitsandbytes_on_cpu import disable_inference_repacking
from job.container import output_data_dir, print_line
from job.failure import report_failure
from job.models import load_tokenizer, local_source
from job.quantization import nf4_config
from job.recipe import parse_arguments
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel, set_seed


def as_it_comes(folder: str) -> PreTrainedModel:
    """Packed by bitsandbytes, with nothing done about its inference layout."""
    return AutoModelForCausalLM.from_pretrained(
        folder,
        dtype=torch.float32,
        quantization_config=nf4_config(torch.float32),
        device_map=PartialState().device,
    )


def cured(folder: str) -> PreTrainedModel:
    """The same with the inference layout switched off."""
    return disable_inference_repacking(as_it_comes(folder))


def by_unsloth(folder: str) -> PreTrainedModel:
    """Packed by Unsloth, which switches it off itself."""
    return FastLanguageModel.from_pretrained(folder, dtype=torch.float32, load_in_4bit=True)[0]


def unpacked(folder: str) -> PreTrainedModel:
    """The reference: plain layers that hold the very weights the 4 bits stand for."""
    model = as_it_comes(folder)
    for name, packed in [*model.named_modules()]:
        if isinstance(packed, Linear4bit):
            has_bias = packed.bias is not None
            plain = torch.nn.Linear(packed.in_features, packed.out_features, has_bias, packed.weight.device)
            plain.weight.data = dequantize_4bit(packed.weight.data, packed.weight.quant_state).float()
            if has_bias:
                plain.bias.data = packed.bias.data.float()
            model.set_submodule(name, plain)
    return model


WAYS: dict[str, Callable[[str], PreTrainedModel]] = {
    "as it comes": as_it_comes,
    "with the cure": cured,
    "by Unsloth": by_unsloth,
}


def gradients_after_a_generate(model: PreTrainedModel) -> torch.Tensor:
    """Gradients of adapters that are the same for every way of loading, on tokens that are the same too.

    Returns:
        All gradients in one vector, of shape (trained parameters,), in float32.
    """
    policy = with_adapters(model)
    tokens = torch.arange(2 * 24, device=policy.device).reshape(2, 24) + 3
    policy.eval()
    policy.generate(input_ids=tokens[:, :4], max_new_tokens=3, do_sample=False)
    policy.train()
    policy(input_ids=tokens, labels=tokens).loss.backward()
    return torch.cat([p.grad.float().flatten() for p in policy.parameters() if p.requires_grad])


def with_adapters(model: PreTrainedModel) -> PeftModel:
    """The model with adapters of rank 8 on every linear layer, filled with the same random weights each time."""
    policy = get_peft_model(model, LoraConfig(r=8, target_modules="all-linear", task_type="CAUSAL_LM"))
    generator = torch.Generator().manual_seed(0)
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator).to(parameter.device) * 0.05
    return policy


def check(folder: str, load: Callable[[str], PreTrainedModel], reference: torch.Tensor) -> dict[str, Any]:
    """Cosine between a model's gradients and the true ones, or the error that backward ends with."""
    try:
        gradients = gradients_after_a_generate(load(folder))
    except RuntimeError as error:
        return {"cosine": None, "error": str(error).splitlines()[0]}
    return {"cosine": torch.cosine_similarity(gradients, reference, dim=0).item(), "error": None}


def without_biases(folder: Path) -> str:
    """A random Llama model, saved."""
    set_seed(0)
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=327,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    load_tokenizer("asset:tiny").save_pretrained(folder)
    return str(folder)


def main() -> None:
    parse_arguments(SCRIPTS["gradient_check.py"])  # it takes none, and refuses what it is given
    trap = has_avx512bf16() and PartialState().device.type == "cpu"
    print_line(f"[gradients] {'this CPU has AVX512-BF16' if trap else 'no AVX512-BF16 in use here: no trap'}")
    checks = []
    with tempfile.TemporaryDirectory() as folder:
        models = {
            "no biases (random Llama)": without_biases(Path(folder)),
            "biases (tiny Qwen2)": local_source("asset:tiny"),
        }
        for model, source in models.items():
            reference = gradients_after_a_generate(unpacked(source))
            for way, load in WAYS.items():
                found = {"model": model, "way": way, **check(source, load, reference)}
                checks.append(found)
                print_line(f"[gradients] {model}, {way}: {found['error'] or found['cosine']}")
    report = {"trap": trap, "bitsandbytes": version("bitsandbytes"), "checks": checks}
    output_data_dir().mkdir(parents=True, exist_ok=True)
    (output_data_dir() / "gradients.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    with report_failure():
        main()
