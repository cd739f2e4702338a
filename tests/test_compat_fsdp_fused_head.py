"""The end of groups of modules that a forward pass without gradients has begun; torch before 2.13 needs help with it."""

from types import SimpleNamespace

import pytest
import torch
from compat.fsdp_fused_head import _ending_groups, end_begun_groups
from torch.distributed.fsdp._fully_shard._fsdp_state import FSDPState
from workshop.checks.images import known_images


def test_some_image_still_has_an_older_torch():
    """When this fails, no image needs help any more: remove compat/fsdp_fused_head.py."""
    versions = [tuple(int(part) for part in image.torch.split(".")[:2]) for image in known_images()]
    assert min(versions) < (2, 13)


def test_torch_that_ends_groups_by_itself_is_left_alone():
    if not hasattr(FSDPState, "_force_complete_incomplete_states"):
        pytest.skip("this torch needs the patch")
    own = FSDPState._post_forward
    end_begun_groups()
    assert FSDPState._post_forward is own


@pytest.mark.parametrize(
    ("root", "gradients", "left"), [(True, False, 0), (False, False, 1), (True, True, 1)]
)
def test_groups_end_with_the_roots_forward_pass_and_only_where_no_backward_pass_follows(
    root, gradients, left
):
    group = SimpleNamespace(_modules_to_run_forward={torch.nn.Linear(1, 1)})
    state = SimpleNamespace(_is_root=root, _state_ctx=SimpleNamespace(all_states=[group]))
    with torch.set_grad_enabled(gradients):
        assert _ending_groups(lambda self, output: output)(state, "output") == "output"
    assert len(group._modules_to_run_forward) == left
