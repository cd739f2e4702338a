"""4-bit base weights: packed where the recipe says so, and refused where they were not packed."""

import bitsandbytes
import pytest
import torch
from job.models import load_base
from job.quantization import QuantizationError, check_packed


def test_load_base_guards_a_quantized_model():
    model, _ = load_base("asset:tiny", quantization="nf4")
    layers = [m for m in model.modules() if isinstance(m, bitsandbytes.nn.Linear4bit)]
    assert len(layers) == 28 and not any(layer.support_avx512bf16_for_cpu for layer in layers)
    assert layers[0].weight.dtype == torch.uint8
    assert check_packed(model) is model


def test_a_model_that_was_not_packed_is_refused():
    with pytest.raises(QuantizationError, match="no layer was packed"):
        check_packed(load_base("asset:tiny")[0])
