"""bitsandbytes 0.50.2 on CPUs: gradients and weights that come out right.

Two faults of its AVX512 code, neither of which says anything: an inference layout that backward cannot read, and wrong
scales for rows that are no multiple of the block size. On GPUs, and on CPUs without AVX512, nothing changes.
"""

import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import torch


def disable_inference_repacking(model: torch.nn.Module) -> torch.nn.Module:
    """Turns off a fast path that spoils gradients on CPUs with AVX512-BF16; returns the model.

    There, one forward pass in evaluation mode (any generate) repacks the 4-bit weights for inference. Backward then
    reads them in the old layout: the gradients of a model without biases are wrong without a word, one with biases
    raises. A test compares gradients after a generate with those of the dequantized weights.
    """
    for module in model.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            setattr(module, "support_avx512bf16_for_cpu", False)  # noqa: B010  (torch types an attribute as a tensor)
    return model


@functools.cache
def correct_dequantization() -> torch.library.Library | None:
    """Corrects how matrices are unpacked whose rows are no multiple of 64 long, on CPUs with AVX512.

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
    # torch warns that a kernel is replaced, which is the purpose.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        library.impl("dequantize_4bit", dequantize, "CPU", with_keyset=True, allow_override=True)
    return library
