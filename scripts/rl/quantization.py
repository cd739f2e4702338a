"""QLoRA's 4-bit base weights (NF4: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314) with bitsandbytes.

The adapters are trained in full precision on top of a frozen base of half a byte a weight.
"""

from importlib.util import find_spec
from typing import TYPE_CHECKING

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
