"""Checkpoints of adapters on a 4-bit base under FSDP2; whole jobs that go on from one are in test_grpo_trl_fsdp."""

import functools

import pytest
import torch
from accelerate.utils import fsdp_utils
from compat.fsdp_adapters import load_parameters_only
from job.models import load_base
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.checkpoint.state_dict import StateDictOptions

pytest.importorskip("bitsandbytes")
LOADING = StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True)


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def unpatched(monkeypatch):
    """accelerate's own function, and afterwards whatever there was."""
    own = fsdp_utils._set_model_state_dict
    monkeypatch.setattr(fsdp_utils, "_set_model_state_dict", getattr(own, "__wrapped__", own))
    return fsdp_utils._set_model_state_dict


def adapters_on_4_bits():
    base, _ = load_base("asset:tiny", quantization="nf4")
    return get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def saved(model) -> dict[str, torch.Tensor]:
    """What accelerate writes into a checkpoint."""
    options = StateDictOptions(full_state_dict=True)
    return fsdp_utils._get_model_state_dict(model, adapter_only=True, sd_options=options)


def test_scales_are_still_saved_and_cannot_be_loaded(alone, unpatched):
    """When this fails, accelerate or torch no longer stumbles over them: remove compat/fsdp_adapters.py."""
    model = adapters_on_4_bits()
    state = saved(model)
    assert any(name.endswith(".absmax") for name in state)
    with pytest.raises(KeyError, match="absmax"):
        unpatched(model, state, adapter_only=True, sd_options=LOADING)


def test_with_the_patch_adapters_are_loaded_and_nothing_else_is_touched(alone, unpatched):
    load_parameters_only()
    load_parameters_only()
    assert fsdp_utils._set_model_state_dict.__wrapped__ is unpatched
    model = adapters_on_4_bits()
    state = saved(model)
    adapters = {name: value + 1.0 for name, value in state.items() if "lora_" in name}
    assert adapters
    before = {name: value.clone() for name, value in model.named_parameters() if "lora_" not in name}
    load = functools.partial(fsdp_utils._set_model_state_dict, adapter_only=True, sd_options=LOADING)
    load(model, {**state, **adapters})
    for name, value in model.named_parameters():
        assert torch.equal(value, adapters.get(name, before.get(name))), name
