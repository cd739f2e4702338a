"""What TRL would hand vLLM of adapters whose base FSDP2 shards: run by torchrun, prints one JSON line a process.

With the base as it is and, where bitsandbytes is there, with one in 4 bits.
"""

import importlib.util
import json
import os
from types import SimpleNamespace

import torch
from job.models import load_base
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from trl.generation.vllm_generation import VLLMGeneration


def adapters(quantization: str | None) -> torch.nn.Module:
    """The tiny model with adapters that change it."""
    torch.manual_seed(0)
    base, _ = load_base("asset:tiny", quantization=quantization)
    model = get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    return model


def whole_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The base's, by the names that vLLM knows."""
    names = ((name.removeprefix("base_model.model."), weight) for name, weight in model.named_parameters())
    return {name.replace(".base_layer", ""): weight.detach() for name, weight in names if "lora_" not in name}


def handed_on(quantization: str | None) -> dict[str, object]:
    """How what is sent differs from what one process would send, or why nothing can be."""
    model, merged = adapters(quantization), adapters(None)
    before = {name: weight.clone() for name, weight in whole_weights(merged).items()}
    merged.merge_adapter()
    expected = whole_weights(merged)
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    for layer in model.base_model.model.model.layers:
        fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)

    record: dict[str, object] = {"changed": max(float((expected[n] - before[n]).abs().max()) for n in before)}
    sender = SimpleNamespace(
        accelerator=SimpleNamespace(device="cpu"),
        _fix_param_name_to_vllm=lambda name, extra_prefixes=(): name,
    )
    try:
        model.merge_adapter()
        sent = dict(VLLMGeneration._iter_fsdp2_params(sender, model))
        record["names"] = sent.keys() == expected.keys()
        record["largest_difference"] = max(float((sent[n] - expected[n]).abs().max()) for n in expected)
    except AttributeError as error:
        record["error"] = str(error)
    return record


def main() -> None:
    distributed.init_process_group("gloo")
    kinds = [None, *(["nf4"] if importlib.util.find_spec("bitsandbytes") else [])]
    print(f"\nPROBE {json.dumps({str(kind): handed_on(kind) for kind in kinds})}", flush=True)
    os._exit(0)  # as in fsdp_probe.py


if __name__ == "__main__":
    main()
