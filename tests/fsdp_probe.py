"""What accelerate makes of a small model when FSDP2 is asked for: run by torchrun, prints one JSON line a process.

fsdp_probe.py [adapter]
"""

import json
import os
import sys

import torch
from accelerate import Accelerator, FullyShardedDataParallelPlugin
from compat.fsdp_on_cpu import enable_fsdp_on_cpu
from tiny import tiny_model
from torch.distributed.tensor import DTensor
from transformers.distributed.fsdp import is_fsdp_managed_module


def main() -> None:
    if "adapter" in sys.argv:
        enable_fsdp_on_cpu()
        enable_fsdp_on_cpu()
    plugin = FullyShardedDataParallelPlugin(
        fsdp_version=2,
        auto_wrap_policy="transformer_based_wrap",
        transformer_cls_names_to_wrap=["Qwen2DecoderLayer"],
    )
    accelerator = Accelerator(cpu=True, fsdp_plugin=plugin)
    model, _ = tiny_model()
    whole = sum(parameter.numel() for parameter in model.parameters())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model, optimizer = accelerator.prepare(model, optimizer)
    managed = is_fsdp_managed_module(model)
    tokens = torch.arange(24).reshape(4, 6) + 10
    share = tokens[2 * accelerator.process_index :][:2]
    losses = []
    for _ in range(3):
        loss = model(input_ids=share, labels=share).loss
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
        losses.append(accelerator.reduce(loss.detach(), "mean").item())
    parameters = list(model.parameters())
    sharded = [isinstance(parameter, DTensor) for parameter in parameters]
    held = sum(
        (parameter.to_local() if isinstance(parameter, DTensor) else parameter).numel()
        for parameter in parameters
    )
    record = {
        "type": str(accelerator.distributed_type),
        "sharded": all(sharded),
        "any": any(sharded),
        "managed": managed,
    }
    line = json.dumps({**record, "whole": whole, "held": held, "losses": losses})
    print(f"\nPROBE {line}", flush=True)
    accelerator.end_training()
    # DDP's reducer joins gloo's threads with the GIL held, for which they may be waiting (torch 2.13.0): not freed here.
    os._exit(0)


if __name__ == "__main__":
    main()
