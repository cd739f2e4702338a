"""FSDP2 checkpoints of adapters on a 4-bit base, so that they can be loaded again.

accelerate (1.15) saves of a PEFT model only what is trained. bitsandbytes adds the scales of each 4-bit layer to a state
dict (`...weight.absmax` and others), which are no parameters, so that they get into the checkpoint all the same; and torch
(2.13) ends with KeyError when it is to load them, since the sharded model has nothing of these names.
`load_parameters_only` leaves out what the model does not have. Sharded checkpoints (SHARDED_STATE_DICT) hold PEFT's own
selection, under PEFT's own names, and need nothing. A test fails as soon as it is no longer needed.
"""

import functools
from typing import Any

from accelerate.utils import fsdp_utils

# What activation checkpointing puts into a parameter's name, and a checkpoint does not.
_CHECKPOINT_WRAPPER = "_checkpoint_wrapped_module."


def load_parameters_only() -> None:
    """Lets accelerate load what is a parameter or buffer of the model. Calling it twice is fine."""
    if not hasattr(fsdp_utils._set_model_state_dict, "__wrapped__"):
        fsdp_utils._set_model_state_dict = _without_others(fsdp_utils._set_model_state_dict)


def _without_others(original: Any) -> Any:
    @functools.wraps(original)
    def set_state(model: Any, state_dict: dict[str, Any], adapter_only: bool = False, **kwargs: Any) -> Any:
        options = kwargs.get("sd_options")
        if adapter_only and options is not None and options.full_state_dict:
            # accelerate says adapter_only of whole models too, whose tied head has a name of its own.
            tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers()]
            names = {name.replace(_CHECKPOINT_WRAPPER, "") for name, _ in tensors}
            state_dict = {name: value for name, value in state_dict.items() if name in names}
        return original(model, state_dict, adapter_only=adapter_only, **kwargs)

    return set_state
