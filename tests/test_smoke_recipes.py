"""The recipes that are run first: smoke is tiny cut short, and smoke_gpu passes through everything that full uses."""

from typing import Any

import pytest
from harness import ROOT
from job.recipe import read_recipe

MODULES = sorted(path.parent.name for path in ROOT.glob("[0-9][0-9]_*/machines.yaml"))
# What may be smaller in smoke than in tiny
NUMBERS = {
    "max_steps": 3,
    "warmup_steps": 1,
    "save_steps": 2,
    "eval_steps": 3,
    "eval_problems": 8,
    "eval_samples": 2,
    "pair_problems": 100,
    "per_device_train_batch_size": 16,
    "trainer.total_training_steps": 3,
    "trainer.save_freq": 2,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": 1,
}
# What full turns on in one of its modules, and smoke_gpu has to turn on with it
PIECES = (
    "use_vllm",
    "vllm_mode",
    "vllm_enable_sleep_mode",
    "quantization",
    "dtype",
    "bf16",
    "use_cpu",
    "optim",
    "fsdp",
    "fsdp_config.version",
    "fsdp_config.reshard_after_forward",
    "fsdp_config.activation_checkpointing",
    "fsdp_config.state_dict_type",
    "gradient_checkpointing",
    "precompute_ref_log_probs",
    "loss_type",
    "mask_truncated_completions",
    "rewards",
    "lora_rank",
    "log_completions",
    "report_to",
    "device",
    "actor_rollout_ref.actor.strategy",
    "actor_rollout_ref.actor.use_dynamic_bsz",
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload",
    "actor_rollout_ref.model.use_remove_padding",
    "actor_rollout_ref.model.enable_gradient_checkpointing",
    "actor_rollout_ref.rollout.name",
)


def flat(module: str, recipe: str) -> dict[str, Any]:
    """A recipe's keys, those of sections with dots; the section `job` of a recipe for verl without its name."""
    content = read_recipe(ROOT / module / "scripts" / "recipes" / f"{recipe}.yaml")
    return dict(_leaves(content.pop("job", {}) | content))


def _leaves(content: dict[str, Any], above: str = "") -> Any:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{above}{key}.")
        else:
            yield above + key, value


@pytest.mark.parametrize("module", MODULES)
def test_smoke_is_tiny_with_smaller_numbers(module):
    tiny, smoke = flat(module, "tiny"), flat(module, "smoke")
    assert set(smoke) == set(tiny)
    changed = {key: value for key, value in smoke.items() if value != tiny[key]}
    assert changed.pop("recipe") == "smoke"
    assert changed == {key: NUMBERS[key] for key in changed}
    assert all(value <= tiny[key] for key, value in changed.items())
    steps = smoke.get("max_steps") or smoke["trainer.total_training_steps"]
    saved = smoke.get("save_steps") or smoke["trainer.save_freq"]
    assert saved < steps <= 3 and smoke["eval_problems"] == 8, "it has to save once on the way"


@pytest.mark.parametrize("module", MODULES)
def test_smoke_gpu_uses_all_that_full_uses(module):
    full, smoke = flat(module, "full"), flat(module, "smoke_gpu")
    pieces = {key: full[key] for key in PIECES if key in full}
    assert {key: smoke.get(key) for key in pieces} == pieces
    assert set(full) - set(smoke) <= {
        "chat_template_kwargs.enable_thinking",  # a switch of Qwen3's template
        "data.apply_chat_template_kwargs.enable_thinking",
        "num_train_epochs",  # its steps are counted
    }


@pytest.mark.parametrize("module", MODULES)
def test_smoke_gpu_is_short_and_its_model_needs_no_network(module):
    smoke = flat(module, "smoke_gpu")
    steps = smoke.get("max_steps") or smoke["trainer.total_training_steps"]
    longest = smoke.get("max_completion_length") or smoke.get("data.max_response_length") or 0
    assert steps <= 5 and longest <= 128 and smoke["eval_problems"] <= 16
    assert smoke["eval_max_new_tokens"] <= 128
    assert smoke["base_model"].partition(":")[0] in ("pypi", "asset")
