"""verl's keys as a recipe may use them: which are whole numbers, which are lists of names, which the job fills in."""

from collections.abc import Iterator
from typing import Any

ENGINES = ("dp", "megatron")
# verl's own list, which it looks into after the first rollouts
ESTIMATORS = (
    *("gae", "grpo", "grpo_passk", "grpo_vectorized", "gdpo", "gpg", "opo", "optimal_token_baseline", "reinforce_plus_plus"),
    *("reinforce_plus_plus_baseline", "remax", "rloo", "rloo_vectorized", "tir_optimal_token_baseline"),
)  # fmt: skip
# Keys that train.py fills in, so that what a recipe says there would be lost -> where to say it
FILLED_IN = {
    "actor_rollout_ref.model.path": "job.base_model",
    "data.train_files": "the channel train",
    "data.val_files": "the channel test",
    "reward.custom_reward_function": "job.rewards",
    "trainer.nnodes": "the job's instance_count",
    "trainer.n_gpus_per_node": "RayCluster(process_count_per_node=...)",
    "trainer.default_local_dir": "the job's checkpoint_config",
    "trainer.resume_mode": "the job's checkpoint_config: a job goes on from what it finds there",
    "trainer.resume_from_path": "the job's checkpoint_config: a job goes on from what it finds there",
    "trainer.logger": "job.report_to",
    "trainer.project_name": "job.experiment",
    "trainer.experiment_name": "job.recipe",
}
# Whole numbers -> the least that they may be
LEAST = {
    "data.train_batch_size": 1,
    "data.max_prompt_length": 1,
    "data.max_response_length": 1,
    "actor_rollout_ref.model.lora_rank": 0,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 1,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 1,
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.context_parallel_size": 1,
    "actor_rollout_ref.rollout.n": 1,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.rollout.data_parallel_size": 1,
    "actor_rollout_ref.rollout.multi_turn.max_assistant_turns": 1,
    "trainer.total_training_steps": 1,
    "trainer.save_freq": 1,
}
NEEDED = {  # and what they say
    "trainer.total_training_steps": "how many steps to train",
    "trainer.save_freq": "after how many steps to save: the trained model is made from the last checkpoint",
}
MAY_BE_EMPTY = (
    *NEEDED,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
)  # said elsewhere when that is wrong


def value_of(settings: dict[str, Any], key: str, default: Any = None) -> Any:
    """A nested value by its dotted key: value_of(settings, "actor_rollout_ref.rollout.n", 1)."""
    found: Any = settings
    for name in key.split("."):
        if not isinstance(found, dict) or found.get(name) is None:
            return default
        found = found[name]
    return found


def key_problems(settings: dict[str, Any]) -> Iterator[str]:
    """Keys that are missing, or hold something of another kind than verl and the workshop's checks reckon with."""
    sections = {key.rpartition(".")[0] for key in LEAST} | {"actor_rollout_ref", "algorithm", "reward"}
    for key in sorted(sections):
        value = value_of(settings, key)
        if value is not None and not isinstance(value, dict):
            yield f"{key} is {value!r}, but it is a section: keys of its own stand below it."
    for key, meaning in NEEDED.items():
        if value_of(settings, key) is None:
            yield f"{key} is missing: {meaning}."
    for key, least in LEAST.items():
        above, _, name = key.rpartition(".")
        section = value_of(settings, above)
        if not isinstance(section, dict) or name not in section:
            continue
        empty = section[name] is None and key in MAY_BE_EMPTY
        if not empty and (problem := not_whole(key, section[name], least)):
            yield problem
    for key, place in FILLED_IN.items():
        if value_of(settings, key) is not None:
            yield f"{key} is filled in by the job, so what the recipe says there would be lost. Its place is {place}."


def not_whole(key: str, value: Any, least: int) -> str | None:
    """Says so if a value is not a whole number of at least `least`."""
    if type(value) is int and value >= least:
        return None
    return f"{key} is {value!r}: write a whole number, {least} or more."
