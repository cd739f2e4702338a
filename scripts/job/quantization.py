"""QLoRA's 4-bit base weights (NF4: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314) with bitsandbytes.

The adapters are trained beside a frozen base of half a byte a weight; TRL keeps them in bfloat16.
"""

import itertools
import math
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
from compat.bitsandbytes_on_cpu import correct_dequantization

if TYPE_CHECKING:
    from transformers import BitsAndBytesConfig


class QuantizationError(Exception):
    """A recipe asks for a quantized base that cannot be had; the message says what to install."""


def nf4_config(compute_dtype: torch.dtype) -> "BitsAndBytesConfig":
    """NF4 with double quantization, as in the paper.

    On GPUs the packed bytes are stored as bfloat16, which FSDP2 can shard; bytes it would leave whole in every process.

    Raises:
        QuantizationError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if find_spec("bitsandbytes") is None:
        raise QuantizationError(
            "The recipe says quantization: nf4, which needs bitsandbytes: start the job with "
            'SourceCode(requirements="requirements-qlora.txt").'
        )
    correct_dequantization()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=torch.bfloat16 if torch.cuda.is_available() else torch.uint8,
    )


def check_packed(model: torch.nn.Module) -> torch.nn.Module:
    """The model itself, if its weights are in 4 bits; Unsloth says only in a line of the log that they are not.

    Raises:
        QuantizationError: no layer is packed.
    """
    if not any(type(module).__name__ == "Linear4bit" for module in model.modules()):
        raise QuantizationError(
            "The recipe says quantization: nf4, but no layer was packed: bitsandbytes does not work on this machine. "
            "Set quantization to null to train on the base as it is."
        )
    return model


def frozen_weights(model: torch.nn.Module) -> tuple[int, int]:
    """How many weights are not trained, packed or not, and the bytes that they and the scales of packed ones take.

    What two layers share, such as a tied embedding, counts once.
    """
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    states = [state for parameter in frozen if (state := getattr(parameter, "quant_state", None))]
    packed = {id(parameter) for parameter in frozen if getattr(parameter, "quant_state", None)}
    count = sum(p.numel() for p in frozen if id(p) not in packed) + sum(math.prod(s.shape) for s in states)
    held = {tensor.data_ptr(): tensor for tensor in [*frozen, *itertools.chain(*map(_scales, states))]}
    return count, sum(tensor.numel() * tensor.element_size() for tensor in held.values())


def _scales(state: Any) -> list[torch.Tensor]:
    """What lies beside 4-bit weights: a scale for each block of 64, itself in 8 bits, and the scales of those."""
    found = [tensor for tensor in (state.absmax, state.code, state.offset) if tensor is not None]
    return found + (_scales(state.state2) if state.nested else [])
