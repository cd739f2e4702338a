"""Attention over packed sequences, under a name of its own: `override_config.attn_implementation: packed`.

verl packs the sequences of a batch into one row, and under Ulysses (Jacobs et al. 2023, https://arxiv.org/abs/2309.14509)
gives each process a slice of it. The all-to-all that lets every token see its whole sequence is in verl's stand-in for
`_flash_attention_forward`, which only flash attention calls: with sdpa each process attends within its own slice, in
silence, on GPUs too. Here transformers' adapter for flash attention, the one that verl puts its stand-in into, is
registered once more, and below the stand-in torch's attention takes the place of the GPU kernel.
"""

from typing import Any

import torch
import torch.nn.functional as F
import verl.models.transformers.monkey_patch as verl_attention
from transformers import AttentionInterface
from transformers.integrations.flash_attention import flash_attention_forward

NAME = "packed"


def register() -> None:
    """Make the attention `packed` known."""
    AttentionInterface.register(NAME, flash_attention_forward)
    # There is no function to register the kernel with (0.9.1), only the name that verl's stand-in calls.
    verl_attention._flash_attention_forward = attend_within_sequences


def attend_within_sequences(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    query_length: int,
    *,
    position_ids: torch.Tensor,
    softmax_scale: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    is_causal: bool = True,
    **kwargs: Any,
) -> torch.Tensor:
    """Causal attention within each sequence of one packed row, in the form of flash attention.

    Args:
        query, key, value: (1, tokens, heads, head size); there may be fewer heads of keys and values.
        position_ids: (1, tokens); a sequence begins where it is 0.

    Returns:
        (1, tokens, heads, head size).

    Raises:
        NotImplementedError: dropout, a window, or attention to later tokens.
    """
    if dropout or sliding_window or not is_causal:
        raise NotImplementedError(f"attention '{NAME}' is causal, without dropout and without a window")
    starts = (position_ids[0] == 0).nonzero().flatten().tolist()
    lengths = [end - start for start, end in zip(starts, [*starts[1:], query.shape[1]], strict=True)]
    sequences = zip(
        *(tensor.transpose(1, 2).split(lengths, dim=2) for tensor in (query, key, value)), strict=True
    )
    outputs = [
        F.scaled_dot_product_attention(*sequence, is_causal=True, scale=softmax_scale, enable_gqa=True)
        for sequence in sequences
    ]
    return torch.cat(outputs, dim=2).transpose(1, 2)
