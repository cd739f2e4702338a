"""FSDP2 checkpoints of adapters, so that all of them are saved and can be loaded again. accelerate (1.15) saves of a PEFT
model only what is trained, and goes wrong in two ways.

In one piece (FULL_STATE_DICT) bitsandbytes adds the scales of each 4-bit layer to a state dict (`...weight.absmax` and
others), which are no parameters, so that they get into the checkpoint all the same; and torch (2.13) ends with KeyError when
it is to load them, since the sharded model has nothing of these names. What the model does not have is left out.

Sharded (SHARDED_STATE_DICT) the selection is PEFT's (0.21.2), which takes no parameter of a layer that FSDP wraps for
activation checkpointing, since the wrapper is part of the module's name and not of the parameter's. The checkpoint then holds
no weights at all, and whoever goes on from it begins with new adapters, without a word. The selection here is that of the
other layout: what is trained, under the model's names.

Tests fail as soon as one of the two is no longer needed.
"""

import dataclasses
import functools
from typing import Any

from accelerate.utils import fsdp_utils, is_peft_model
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict

# What activation checkpointing puts into a parameter's name, and a checkpoint does not.
_CHECKPOINT_WRAPPER = "_checkpoint_wrapped_module."


def repair_adapter_checkpoints() -> None:
    """Lets accelerate save and load all that is trained, and nothing else. Calling it twice is fine."""
    if not hasattr(fsdp_utils._set_model_state_dict, "__wrapped__"):
        fsdp_utils._get_model_state_dict = _with_all_adapters(fsdp_utils._get_model_state_dict)
        fsdp_utils._set_model_state_dict = _without_others(fsdp_utils._set_model_state_dict)


def _with_all_adapters(original: Any) -> Any:
    @functools.wraps(original)
    def get_state(model: Any, adapter_only: bool = False, sd_options: Any = None) -> dict[str, Any]:
        if not _sharded_adapters(model, adapter_only, sd_options):
            return original(model, adapter_only=adapter_only, sd_options=sd_options)
        trained = {_plain(name) for name, parameter in model.named_parameters() if parameter.requires_grad}
        state = get_model_state_dict(model, options=sd_options)
        return {name: value for name, value in state.items() if name in trained}

    return get_state


def _without_others(original: Any) -> Any:
    @functools.wraps(original)
    def set_state(
        model: Any, state_dict: dict[str, Any], adapter_only: bool = False, sd_options: Any = None
    ) -> Any:
        if _sharded_adapters(model, adapter_only, sd_options):
            return set_model_state_dict(
                model, state_dict, options=dataclasses.replace(sd_options, strict=False)
            )
        if adapter_only and sd_options is not None and sd_options.full_state_dict:
            # accelerate says adapter_only of whole models too, whose tied head has a name of its own.
            tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
            names = {_plain(name) for name, _ in tensors}
            state_dict = {name: value for name, value in state_dict.items() if name in names}
        return original(model, state_dict, adapter_only=adapter_only, sd_options=sd_options)

    return set_state


def _sharded_adapters(model: Any, adapter_only: bool, sd_options: Any) -> bool:
    sharded = sd_options is not None and not sd_options.full_state_dict
    return adapter_only and sharded and is_peft_model(model)


def _plain(name: str) -> str:
    return name.replace(_CHECKPOINT_WRAPPER, "")
