"""How a Qwen2 of transformers becomes a model of Megatron's without Transformer Engine, and back.

mbridge builds Megatron's models out of Transformer Engine's layers, which need CUDA. Megatron has the same layers in
torch ("local"). In those the two norms of a layer stand by themselves, so that their weights have other names; and
their attention keeps a mask of tokens x tokens, for which torch's own attention takes its place.
"""

from typing import Any

import torch
import torch.nn.functional as F
from mbridge.core import register_model
from mbridge.models.qwen2 import Qwen2Bridge
from megatron.core.models.gpt.gpt_layer_specs import get_gpt_decoder_block_spec
from megatron.core.transformer.module import MegatronModule
from megatron.core.transformer.transformer_block import TransformerBlockSubmodules


class CausalAttention(MegatronModule):
    """Attention of all heads that this process holds. Padding is on the right, so a causal mask is all that it takes."""

    def __init__(
        self, config: Any, layer_number: int, attn_mask_type: Any, attention_type: str, **kwargs: Any
    ):
        super().__init__(config=config)

    def forward(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> torch.Tensor:
        """(tokens, batch, heads, head size), of keys and values perhaps fewer heads; gives (tokens, batch, heads x size)."""
        q, k, v = (tensor.permute(1, 2, 0, 3) for tensor in (query, key, value))
        output = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return output.permute(2, 0, 1, 3).flatten(2)


@register_model("qwen2")
class LocalQwen2(Qwen2Bridge):
    """mbridge's Qwen2 with Megatron's torch layers."""

    _MLP_MAPPING = {
        **Qwen2Bridge._MLP_MAPPING,
        "pre_mlp_layernorm.weight": ["model.layers.{layer_number}.post_attention_layernorm.weight"],
    }
    _OTHER_MAPPING = {"input_layernorm.weight": ["model.layers.{layer_number}.input_layernorm.weight"]}

    def _get_transformer_layer_spec(self, vp_stage: int | None = None) -> TransformerBlockSubmodules:
        spec = get_gpt_decoder_block_spec(self.config, use_transformer_engine=False, vp_stage=vp_stage)
        for layer in spec.layer_specs:
            layer.submodules.self_attention.submodules.core_attention = CausalAttention
        self.has_vp_stage = True
        return spec
