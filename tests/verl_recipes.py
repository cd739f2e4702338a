"""The recipes of 05_grpo_verl: where they lie, the machines that each is meant for, and words that overrides of them share."""

from harness import ROOT

MODULE = ROOT / "05_grpo_verl" / "scripts"
RECIPES = MODULE / "recipes"
# recipe -> the (hosts, GPUs on each) that it is meant for
FITS = {
    "tiny": [(1, 2), (2, 1)],
    "smoke": [(1, 2), (2, 1)],
    "smoke_gpu": [(1, 1)],
    "tiny_ulysses": [(1, 2), (2, 1)],
    "tiny_tensor": [(1, 2)],
    "tiny_pipeline": [(1, 2), (2, 1)],
    "tools": [(1, 2), (2, 1)],
    "till": [(1, 2), (2, 1)],
    "small": [(1, 1)],
    "full": [(1, 8), (2, 8)],
    "ulysses": [(1, 8), (2, 8)],
    "megatron": [(2, 8)],
    "lora": [(1, 8), (2, 8)],
}
MODEL, ACTOR, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "rollout"))
# As in a job without GPUs: verl looks for its platform when it is imported.
ON_CPU = {"VERL_PLATFORM": "cpu", "VERL_USE_EXTERNAL_MODULES": "verl_cpu", "HF_HUB_OFFLINE": "1"}
