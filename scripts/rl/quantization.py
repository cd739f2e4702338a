"""QLoRA's 4-bit base weights (NF4: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314) with bitsandbytes.

The adapters are trained in full precision on top of a frozen base of half a byte a weight.
"""

import functools
import itertools
import math
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch

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
    keep_scales_right()
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=torch.bfloat16 if torch.cuda.is_available() else torch.uint8,
    )


def keep_gradients_right(model: torch.nn.Module) -> torch.nn.Module:
    """Turns off a fast path of bitsandbytes (0.50.2) that spoils gradients on CPUs with AVX512-BF16.

    There, one forward pass in evaluation mode (any generate) repacks the 4-bit weights for inference. Backward then
    reads them in the old layout: the gradients of a model without biases are wrong without a word, one with biases
    raises. A test compares gradients after a generate with those of the dequantized weights.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return model


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


@functools.cache
def keep_scales_right() -> torch.library.Library | None:
    """Corrects how bitsandbytes (0.50.2) unpacks matrices whose rows are no multiple of 64 long, on CPUs with AVX512.

    The 64 weights that share a scale may lie in two rows, but the AVX512 kernel begins anew with each row and so takes the
    wrong scales: errors of 60 % instead of 9 % in the tiny model, whose rows have 96 and 288 weights. As one long row
    every matrix comes out right. A test tells when the kernel does without.

    Returns:
        What holds the correction in place, for as long as it exists; None where there is no such kernel.
    """
    import bitsandbytes  # noqa: F401  registers the kernel

    name = "bitsandbytes::dequantize_4bit"
    if not torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU"):
        return None
    kernel = torch.library.get_kernel(name, "CPU")

    def dequantize(
        keys: Any,
        packed: torch.Tensor,
        absmax: torch.Tensor,
        blocksize: int,
        quant_type: str,
        shape: Sequence[int],
        dtype: torch.dtype,
    ) -> torch.Tensor:
        one_row = shape if shape[-1] % blocksize == 0 else [math.prod(shape)]
        return kernel.call_boxed(keys, packed, absmax, blocksize, quant_type, one_row, dtype).view(shape)

    library = torch.library.Library("bitsandbytes", "IMPL")
    with warnings.catch_warnings():  # torch says that a kernel is replaced, which is the purpose
        warnings.simplefilter("ignore")
        library.impl("dequantize_4bit", dequantize, "CPU", with_keyset=True, allow_override=True)
    return library


def frozen_weights(model: torch.nn.Module) -> tuple[int, int]:
    """How many weights are not trained, packed or not, and the bytes that they and the scales of packed ones take.

    What two layers share, such as a tied embedding, counts once.
    """
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    states = [parameter.quant_state for parameter in frozen if getattr(parameter, "quant_state", None)]
    packed = {id(parameter) for parameter in frozen if getattr(parameter, "quant_state", None)}
    count = sum(p.numel() for p in frozen if id(p) not in packed) + sum(math.prod(s.shape) for s in states)
    held = {tensor.data_ptr(): tensor for tensor in [*frozen, *itertools.chain(*map(_scales, states))]}
    return count, sum(tensor.numel() * tensor.element_size() for tensor in held.values())


def _scales(state: Any) -> list[torch.Tensor]:
    """What lies beside 4-bit weights: a scale for each block of 64, itself in 8 bits, and the scales of those."""
    found = [tensor for tensor in (state.absmax, state.code, state.offset) if tensor is not None]
    return found + (_scales(state.state2) if state.nested else [])
