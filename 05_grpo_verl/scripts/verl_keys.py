"""verl's keys as a recipe may use them: verl's defaults, the limits of their values, and which keys the job fills in."""

from collections.abc import Iterator
from typing import Any

from job.ranges import NOT_NEGATIVE, POSITIVE, SEED, SHARE, Range

MODEL, ACTOR, ROLLOUT = (f"actor_rollout_ref.{part}" for part in ("model", "actor", "rollout"))
Settings = dict[str, Any]  # verl's part of a recipe: nested, as in verl's documentation

ENGINES = ("dp", "megatron")
# Advantage estimators: verl's own list, which it looks into after the first rollouts
ESTIMATORS = (
    *("gae", "grpo", "grpo_passk", "grpo_vectorized", "gdpo", "gpg", "opo", "optimal_token_baseline", "reinforce_plus_plus"),
    *("reinforce_plus_plus_baseline", "remax", "rloo", "rloo_vectorized", "tir_optimal_token_baseline"),
)  # fmt: skip
# What verl takes where a recipe says nothing, of the keys that the workshop's checks read. tests/test_verl_recipes.py
# compares each with verl's own configuration, those of an engine's section with that of this engine.
DEFAULTS: dict[str, Any] = {
    "model_engine": "dp",
    "algorithm.adv_estimator": "gae",
    "data.train_batch_size": 1024,
    "data.max_prompt_length": 512,
    "data.max_response_length": 512,
    "data.truncation": "error",
    "data.apply_chat_template_kwargs": {},
    "data.filter_overlong_prompts": False,
    "data.train_max_samples": -1,
    "actor_rollout_ref.model.lora_rank": 0,  # of the engine dp
    "actor_rollout_ref.model.lora.rank": 0,  # of megatron
    "actor_rollout_ref.model.lora.merge": False,
    "actor_rollout_ref.model.override_config": {},
    "actor_rollout_ref.model.use_remove_padding": True,
    "actor_rollout_ref.model.enable_gradient_checkpointing": True,
    "actor_rollout_ref.actor.strategy": "fsdp",  # of the engine dp
    "actor_rollout_ref.actor.ppo_mini_batch_size": 256,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": None,
    "actor_rollout_ref.actor.use_dynamic_bsz": False,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 16384,
    "actor_rollout_ref.actor.calculate_entropy": False,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": -1,  # none
    "actor_rollout_ref.actor.optim.use_checkpoint_opt_param_scheduler": False,  # of megatron
    "actor_rollout_ref.actor.fsdp_config.model_dtype": "fp32",
    "actor_rollout_ref.actor.fsdp_config.param_offload": False,
    "actor_rollout_ref.actor.fsdp_config.optimizer_offload": False,
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.context_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.sequence_parallel": True,
    "actor_rollout_ref.actor.megatron.use_distributed_optimizer": True,
    "actor_rollout_ref.actor.megatron.vanilla_mbridge": False,
    "actor_rollout_ref.actor.megatron.param_offload": False,
    "actor_rollout_ref.actor.megatron.optimizer_offload": False,
    "actor_rollout_ref.rollout.name": None,  # verl has none and wants one
    "actor_rollout_ref.rollout.n": 1,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 2,
    "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.rollout.data_parallel_size": 1,
    "actor_rollout_ref.rollout.gpu_memory_utilization": 0.5,
    "actor_rollout_ref.rollout.max_model_len": None,  # the model's own
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": None,
    "actor_rollout_ref.rollout.multi_turn.enable": False,
    "actor_rollout_ref.rollout.multi_turn.function_tool_path": None,
    "actor_rollout_ref.rollout.multi_turn.tool_config_path": None,
    "actor_rollout_ref.rollout.multi_turn.max_assistant_turns": None,
    "actor_rollout_ref.rollout.multi_turn.format": "hermes",
    "actor_rollout_ref.rollout.agent.default_agent_loop": "single_turn_agent",
    "trainer.v1.trainer_mode": "sync",
    "transfer_queue.backend.SimpleStorage.num_data_storage_units": 8,
}
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
    "trainer.total_epochs": "trainer.total_training_steps: the data is gone through as often as that takes",
    "trainer.project_name": "job.experiment",
    "trainer.experiment_name": "job.recipe",
}
# Keys that training would follow and the evaluation before and after it would not -> where to say it
TRAINING_ALONE = {
    "actor_rollout_ref.model.tokenizer_path": "job.base_model, a folder or repository with this tokenizer",
    "actor_rollout_ref.model.custom_chat_template": "the tokenizer of job.base_model: save it with this template",
    "actor_rollout_ref.rollout.prompt_length": "data.max_prompt_length",
    "actor_rollout_ref.rollout.response_length": "data.max_response_length",
    "actor_rollout_ref.rollout.agent.agent_loop_config_path": "verl's own loops: single_turn_agent and tool_agent",
    "data.custom_cls.path": "the channels train and test, made with the prompts as they shall be",
}
# Keys that hold whole numbers -> the least that they may be
LEAST = {
    "data.train_batch_size": 1,
    "data.max_prompt_length": 1,
    "data.max_response_length": 1,
    "data.train_max_samples": -1,  # all
    "data.seed": 0,
    "actor_rollout_ref.model.lora_rank": 0,
    "actor_rollout_ref.actor.ppo_mini_batch_size": 1,
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu": 1,
    "actor_rollout_ref.actor.ppo_epochs": 1,
    "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.tensor_model_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.actor.megatron.context_parallel_size": 1,
    "actor_rollout_ref.actor.optim.lr_warmup_steps": -1,
    "actor_rollout_ref.rollout.n": 1,
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu": 1,
    "actor_rollout_ref.rollout.tensor_model_parallel_size": 1,
    "actor_rollout_ref.rollout.pipeline_model_parallel_size": 1,
    "actor_rollout_ref.rollout.data_parallel_size": 1,
    "actor_rollout_ref.rollout.multi_turn.max_assistant_turns": 1,
    "actor_rollout_ref.rollout.multi_turn.max_parallel_calls": 1,
    "trainer.total_training_steps": 1,
    "trainer.save_freq": 1,
    "trainer.max_actor_ckpt_to_keep": 1,
    "actor_rollout_ref.rollout.agent.num_workers": 1,
}
# Keys that hold one of a few words
DTYPES = ("fp32", "float32", "bf16", "bfloat16", "fp16", "float16")
CHOICES = {
    "actor_rollout_ref.actor.fsdp_config.model_dtype": DTYPES,
    "data.truncation": ("error",),  # verl 0.9 reads no other; a job refuses prompts that are too long
    "trainer.v1.trainer_mode": ("sync",),  # the one that is extended by verl_trainer
    # verl/trainer/ppo/core_algos.py, which looks at them in the first step
    "actor_rollout_ref.actor.loss_agg_mode": (
        "token-mean",
        "token-sum",
        "seq-mean-token-sum",
        "seq-mean-token-sum-norm",
        "seq-mean-token-mean",
    ),
    "actor_rollout_ref.actor.kl_loss_type": tuple(
        f"{name}{end}"
        for name in ("kl", "k1", "abs", "mse", "k2", "low_var_kl", "k3", "full")
        for end in ("", "+")
    ),
    "actor_rollout_ref.actor.policy_loss.loss_mode": (
        "vanilla",
        "dppo_tv",
        "dppo_kl",
        "gspo",
        "sapo",
        "gpg",
        "clip_cov",
        "kl_cov",
        "geo_mean",
        "dro",
        "cispo",
        "bypass_mode",
    ),
}
TEMPLATE = "data.apply_chat_template_kwargs"  # variables for the model's chat template
# Keys that hold names and values of somebody else's choosing -> an example
NAMES_AND_VALUES = {
    TEMPLATE: "enable_thinking: false",
    f"{MODEL}.override_config": "attn_implementation: sdpa",
}
# Keys that hold other numbers -> which; null is verl's own value. From verl/trainer/config and verl/workers/config of verl
# 0.9.1, verl/trainer/ppo/core_algos.py (dual-clip wants clip_ratio_c above 1) and vLLM's SamplingParams.
RANGES = {
    "algorithm.gamma": SHARE,
    "algorithm.lam": SHARE,
    "algorithm.kl_ctrl.kl_coef": NOT_NEGATIVE,
    "actor_rollout_ref.actor.clip_ratio": POSITIVE,
    "actor_rollout_ref.actor.clip_ratio_low": POSITIVE,
    "actor_rollout_ref.actor.clip_ratio_high": POSITIVE,
    "actor_rollout_ref.actor.clip_ratio_c": Range(above=1),
    "actor_rollout_ref.actor.entropy_coeff": NOT_NEGATIVE,
    "actor_rollout_ref.actor.kl_loss_coef": NOT_NEGATIVE,
    "actor_rollout_ref.actor.optim.lr": Range(above=0, most=1),
    "actor_rollout_ref.actor.optim.lr_warmup_steps_ratio": SHARE,
    "actor_rollout_ref.actor.optim.min_lr_ratio": SHARE,
    "actor_rollout_ref.actor.optim.weight_decay": NOT_NEGATIVE,
    "actor_rollout_ref.actor.optim.clip_grad": POSITIVE,
    "actor_rollout_ref.actor.optim.betas": Range(least=0, below=1),
    "trainer.test_freq": Range(least=1, also=(-1,)),
    "actor_rollout_ref.rollout.temperature": POSITIVE,
    "actor_rollout_ref.rollout.top_p": Range(above=0, most=1),
    "actor_rollout_ref.rollout.top_k": Range(least=0, also=(-1,)),
    "actor_rollout_ref.rollout.gpu_memory_utilization": Range(above=0, most=1),
}
# Keys that a recipe must have -> what they say
REQUIRED = {
    "data.seed": "a whole number, from which shuffling and sampling start",
    "trainer.total_training_steps": "how many steps to train",
    "trainer.save_freq": "after how many steps to save: the trained model is made from the last checkpoint",
}
# Keys that may be null: where that is wrong, another check says so.
NULLABLE = (
    *REQUIRED,
    "trainer.max_actor_ckpt_to_keep",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu",
)


def value_of(settings: Settings, key: str) -> Any:
    """The value of one of the keys in DEFAULTS: what the recipe says, else verl's default.

        value_of(settings, "actor_rollout_ref.rollout.n")

    Raises:
        KeyError: the key has no entry in DEFAULTS.
    """
    default = DEFAULTS[key]
    value = given_value(settings, key)
    return default if value is None else value


def given_value(settings: Settings, key: str) -> Any:
    """What a recipe says at a dotted key (a value or a whole section); None if it says nothing there."""
    found: Any = settings
    for name in key.split("."):
        if not isinstance(found, dict):
            return None
        found = found.get(name)
    return found


def key_problems(settings: Settings) -> Iterator[str]:
    """Keys that are missing, or hold something of another kind than verl and the workshop's checks reckon with."""
    keys = (*DEFAULTS, *LEAST, *RANGES, *FILLED_IN, *TRAINING_ALONE)
    sections = {key.rpartition(".")[0] for key in keys if "." in key} | {"actor_rollout_ref"}
    for key in sorted(sections):
        value = given_value(settings, key)
        if value is not None and not isinstance(value, dict):
            yield f"{key} is {value!r}, but it is a section: keys of its own stand below it."
    for key, meaning in REQUIRED.items():
        if given_value(settings, key) is None:
            yield f"{key} is missing: {meaning}."
    seed = given_value(settings, "data.seed")
    if type(seed) is int and seed >= 0 and (problem := SEED.problem([seed])):
        yield f"data.seed {problem}."
    for key, least in LEAST.items():
        above, _, name = key.rpartition(".")
        section = given_value(settings, above)
        if not isinstance(section, dict) or name not in section:
            continue
        empty = section[name] is None and key in NULLABLE
        if not empty and (problem := not_whole(key, section[name], least)):
            yield problem
    for key, words in CHOICES.items():
        value = value_of(settings, key) if key in DEFAULTS else given_value(settings, key)
        if value not in words and not (value is None and key not in DEFAULTS):
            known = f"one of {', '.join(words)}" if len(words) > 1 else words[0]
            yield f"{key} is {value!r}: write {known}."
    for key, example in NAMES_AND_VALUES.items():
        if not isinstance(found := value_of(settings, key), dict):
            yield f"{key} is {found!r}: write names and values, such as {{{example}}}."
    for key, numbers in RANGES.items():
        value = given_value(settings, key)
        if value is None:
            continue
        given = value if isinstance(value, list) and key.endswith(".betas") else [value]
        if any(type(number) not in (int, float) for number in given):
            yield f"{key} is {value!r}: write a number."
        elif problem := numbers.problem(given):
            yield f"{key} {problem}."
    for key, place in FILLED_IN.items():
        if given_value(settings, key) is not None:
            yield f"{key} is filled in by the job, so what the recipe says there would be lost. Its place is {place}."
    for key, place in TRAINING_ALONE.items():
        if given_value(settings, key) is not None:
            yield (
                f"{key} would be followed in training and not in the evaluation, so that pass@1 would measure something "
                f"else. Its place is {place}."
            )


def not_whole(key: str, value: Any, least: int) -> str | None:
    """Says so if a value is not a whole number of at least `least`."""
    if type(value) is int and value >= least:
        return None
    return f"{key} is {value!r}: write a whole number, {least} or more."
