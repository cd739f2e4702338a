"""Adapters in float32 on a 4-bit base, as a resumed job has them (TRL 1.15.0 and 1.16.0).

TRL's trainers round the adapters of a quantized base to bfloat16 when they are made. A job that is started again loads
them from its checkpoint in float32, and so would not end with the weights of a job that was never interrupted.
"""

import torch


def keep_adapters_in_float32(policy: torch.nn.Module) -> None:
    """Gives the trained parameters their precision back. Call it after the trainer is made, before it trains."""
    for parameter in policy.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
