"""Evaluations with TRL's fused head under FSDP2, for torch before 2.13 (AWS's images have 2.10).

accelerate (1.15) shards the last norm, the embedding and the output head as one group, and torch gathers a group when the
first of its modules is called and is done with it when the last one has been. TRL's fused head (1.16) never calls the head:
it multiplies with its weight. So the group stays begun. A backward pass ends that; after an evaluation, which has none, the
next forward pass takes the group for gathered, and if a checkpoint has been saved in between, it is not: "aten.embedding
got mixed torch.Tensor and DTensor". torch 2.13 ends begun groups by itself, and there nothing is done here.
"""

import functools
from typing import Any

import torch
from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState


@functools.cache  # torch wraps the method itself, so that its looks do not tell whether this has been done
def end_begun_groups() -> None:
    """Lets a forward pass without gradients end every group of modules that it began. Call it before the model is sharded.

    Calling it twice is fine.
    """
    if not hasattr(FSDPState, "_force_complete_incomplete_states"):  # torch 2.13
        FSDPState._post_forward = _ending_groups(FSDPState._post_forward)


def _ending_groups(original: Any) -> Any:
    @functools.wraps(original)
    def post_forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        output = original(self, *args, **kwargs)
        if self._is_root and not torch.is_grad_enabled():
            for state in self._state_ctx.all_states:
                state._modules_to_run_forward.clear()
        return output

    return post_forward
