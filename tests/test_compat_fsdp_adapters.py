"""Checkpoints of adapters under FSDP2; whole jobs that go on from one are in test_job_sharded_checkpoints."""

import functools

import pytest
import torch
from accelerate.utils import fsdp_utils
from compat.fsdp_adapters import repair_adapter_checkpoints
from job.models import load_base
from peft import LoraConfig, get_peft_model
from torch import distributed
from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
from torch.distributed.checkpoint.state_dict import StateDictOptions

LOADING = StateDictOptions(full_state_dict=True, cpu_offload=True, broadcast_from_rank0=True)
SHARDED = StateDictOptions()


@pytest.fixture
def alone(tmp_path):
    """A process group of this process alone."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'group'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


@pytest.fixture
def unpatched(monkeypatch):
    """accelerate's own functions, and afterwards whatever there was."""
    for name in ("_get_model_state_dict", "_set_model_state_dict"):
        own = getattr(fsdp_utils, name)
        monkeypatch.setattr(fsdp_utils, name, getattr(own, "__wrapped__", own))
    return fsdp_utils._set_model_state_dict


def adapters(quantization: str | None = None):
    base, _ = load_base("asset:tiny", quantization=quantization)
    return get_peft_model(base, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))


def adapters_on_4_bits():
    pytest.importorskip("bitsandbytes")
    return adapters("nf4")


def adapters_in_wrapped_layers():
    """As accelerate wraps them where the recipe says activation_checkpointing."""
    model = adapters()
    apply_activation_checkpointing(
        model, check_fn=lambda module: type(module).__name__ == "Qwen2DecoderLayer"
    )
    return model


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
    repair_adapter_checkpoints()
    repair_adapter_checkpoints()
    assert getattr(fsdp_utils._set_model_state_dict, "__wrapped__", None) is unpatched
    model = adapters_on_4_bits()
    state = saved(model)
    moved = {name: value + 1.0 for name, value in state.items() if "lora_" in name}
    assert moved
    before = {name: value.clone() for name, value in model.named_parameters() if "lora_" not in name}
    load = functools.partial(fsdp_utils._set_model_state_dict, adapter_only=True, sd_options=LOADING)
    load(model, {**state, **moved})
    for name, value in model.named_parameters():
        assert torch.equal(value, moved.get(name, before.get(name))), name


def test_adapters_in_wrapped_layers_are_still_left_out_of_shards(alone, unpatched):
    """When this fails, PEFT or accelerate saves them: remove from compat/fsdp_adapters.py what is there for shards."""
    model = adapters_in_wrapped_layers()
    assert not fsdp_utils._get_model_state_dict(model, adapter_only=True, sd_options=SHARDED)


@pytest.mark.parametrize("make", [adapters, adapters_on_4_bits, adapters_in_wrapped_layers])
def test_with_the_patch_shards_hold_all_adapters_and_nothing_else(make, alone, unpatched):
    repair_adapter_checkpoints()
    model = make()
    state = fsdp_utils._get_model_state_dict(model, adapter_only=True, sd_options=SHARDED)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    assert len(state) == len(trained) and all("lora_" in name and "wrapped" not in name for name in state)
    moved = {name: value + 1.0 for name, value in state.items()}
    fsdp_utils._set_model_state_dict(model, moved, adapter_only=True, sd_options=SHARDED)
    for name, value in model.named_parameters():
        if value.requires_grad:
            assert torch.equal(value, moved[name.replace("_checkpoint_wrapped_module.", "")]), name
