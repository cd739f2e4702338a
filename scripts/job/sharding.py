"""Models whose parameters are spread over processes (FSDP2): what each process holds, and the way back to one model.

FSDP2 replaces every parameter by a DTensor: a view of the whole tensor of which a process keeps its part only
(ZeRO stage 3: Rajbhandari et al. 2020, https://arxiv.org/abs/1910.02054).
"""

import json
from collections.abc import Iterable
from typing import Any

import torch
from accelerate.utils import gather_object
from torch.distributed.tensor import DTensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from job.container import is_main_process, output_data_dir, print_line
from job.summary import peak_rss

SHARDS = "shards.json"
# What activation checkpointing puts into a parameter's name.
_CHECKPOINT_WRAPPER = "_checkpoint_wrapped_module."


def local_part(tensor: torch.Tensor) -> torch.Tensor:
    """The part of a tensor that this process holds: all of it, unless it is sharded (along its first dimension)."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def local_bytes(tensors: Iterable[Any]) -> int:
    """Bytes that this process holds of some tensors; anything else and None count nothing."""
    parts = (local_part(tensor) for tensor in tensors if isinstance(tensor, torch.Tensor))
    return sum(part.numel() * part.element_size() for part in parts)


def parameter_listing(model: torch.nn.Module) -> list[dict[str, Any]]:
    """A row for each parameter: name, kind, placement, dtype, whole shape, and the shape held here."""
    return [
        {
            "name": name.replace(_CHECKPOINT_WRAPPER, ""),
            "kind": "DTensor" if isinstance(parameter, DTensor) else type(parameter).__name__,
            "placement": str(parameter.placements[0]) if isinstance(parameter, DTensor) else "whole",
            "dtype": str(parameter.dtype).removeprefix("torch."),
            "trainable": parameter.requires_grad,
            "shape": list(parameter.shape),
            "held": list(local_part(parameter).shape),
        }
        for name, parameter in model.named_parameters()
    ]


def held_bytes(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, int]:
    """Bytes of parameters, gradients and optimizer state that this process holds, and of all parameters together."""
    parameters = list(model.parameters())
    return {
        "parameters": local_bytes(parameters),
        "gradients": local_bytes(parameter.grad for parameter in parameters),
        "optimizer": local_bytes(value for state in optimizer.state.values() for value in state.values()),
        "all_parameters": sum(parameter.numel() * parameter.element_size() for parameter in parameters),
    }


class ShardReport(TrainerCallback):
    """Writes shards.json to the job's outputs: what each process holds after its first optimizer step.

    A job whose checkpoint held all steps makes none: it writes at the end, without gradients.
    """

    def __init__(self) -> None:
        self._written = False

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        # Gradients and optimizer state exist now; they stay as large as they are.
        self._write(args, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._write(args, **kwargs)

    def _write(self, args: TrainingArguments, **kwargs: Any) -> None:
        if self._written:
            return
        self._written = True
        held = held_bytes(kwargs["model"], kwargs["optimizer"])
        own = {"process": args.process_index, "bytes": held, "rss_mb": round(peak_rss(), 1)}
        processes = gather_object([own | {"parameters": parameter_listing(kwargs["model"])}])
        if is_main_process():
            output_data_dir().mkdir(parents=True, exist_ok=True)
            (output_data_dir() / SHARDS).write_text(json.dumps(processes, indent=1) + "\n")
            for process in processes:
                sizes = " ".join(f"{name}={size}" for name, size in process["bytes"].items())
                print_line(f"[shards] process={process['process']} {sizes}")


@torch.no_grad()
def copy_trained(sharded: torch.nn.Module, plain: torch.nn.Module) -> torch.nn.Module:
    """Copies the trained parameters of a (sharded) model into an unsharded one of the same form, in every process.

    A parameter is gathered whole, in its full shape, one at a time.

    Frozen parameters are those of the base already, so under LoRA only adapters travel. Every process must call this.

    Raises:
        KeyError: `plain` has no parameter of a name that was trained.
    """
    targets = dict(plain.named_parameters())
    for name, parameter in sharded.named_parameters():
        if parameter.requires_grad:
            whole = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            targets[name.replace(_CHECKPOINT_WRAPPER, "")].copy_(whole)
    return plain
