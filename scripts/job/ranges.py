"""The numbers and the words that a setting takes. Outside them a library refuses late or, more often, trains on: nothing, or
something else.

Of the trainers' settings, from the sources named here; those of the workshop's own arguments stand beside them, in LEAST and
RANGES. (verl's have theirs in 05_grpo_verl/scripts/verl_keys.py.)
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Range:
    """Numbers from `least` (or above `above`) to `most` (or below `below`), and those in `also`; of a list, each one.

    `not_all_zero`: of a list, some number must be another than 0.
    """

    least: float | None = None
    above: float | None = None
    most: float | None = None
    below: float | None = None
    also: tuple[float, ...] = ()
    not_all_zero: bool = False

    def problem(self, numbers: Sequence[float]) -> str | None:
        """Why these are not such numbers, as the end of a sentence; None if they are."""
        for number in numbers:
            if not math.isfinite(number):
                return f"is {number}, which is no number to compute with"
            if number not in self.also and not self._holds(number):
                return f"is {number:g}: it must be {self}"
        if self.not_all_zero and numbers and not any(numbers):
            return "is 0 throughout: nothing would be learned"
        return None

    def _holds(self, number: float) -> bool:
        return (
            (self.least is None or number >= self.least)
            and (self.above is None or number > self.above)
            and (self.most is None or number <= self.most)
            and (self.below is None or number < self.below)
        )

    def __str__(self) -> str:
        if self.least is not None and self.most is not None:
            return f"from {self.least:g} to {self.most:g}" + self._also()
        parts = [
            f"{words}{bound:g}"
            for words, bound in (
                ("", self.least),
                ("above ", self.above),
                ("at most ", self.most),
                ("below ", self.below),
            )
            if bound is not None
        ]
        if self.least is not None and len(parts) == 1:
            parts[0] += " or more"
        return " and ".join(parts) + self._also()

    def _also(self) -> str:
        return "".join(f", or {number:g}" for number in self.also)


SHARE, POSITIVE, NOT_NEGATIVE, COUNT = Range(least=0, most=1), Range(above=0), Range(least=0), Range(least=1)
# A reward that is to be avoided is written so that more of it is better.
WEIGHTS = Range(least=0, not_all_zero=True)
SEED = Range(least=0, most=2**32 - 1)  # what numpy.random.seed takes
# An adapter of a higher rank has more numbers than the layers of the models trained here (hidden sizes up to 4,096).
LORA_RANK = Range(least=0, most=4096)

# transformers.TrainingArguments and torch.optim.AdamW
TRAINING = {
    # -1: as many as num_train_epochs makes. So does 0, without a word.
    "max_steps": Range(least=1, also=(-1,)),
    "num_train_epochs": POSITIVE,
    "learning_rate": Range(above=0, most=1),
    "warmup_steps": NOT_NEGATIVE,
    "weight_decay": NOT_NEGATIVE,
    "adam_beta1": Range(least=0, below=1),
    "adam_beta2": Range(least=0, below=1),
    "adam_epsilon": POSITIVE,
    "max_grad_norm": NOT_NEGATIVE,  # 0: not clipped
    "per_device_train_batch_size": COUNT,
    "per_device_eval_batch_size": COUNT,
    "gradient_accumulation_steps": COUNT,
    "logging_steps": POSITIVE,  # below 1: a share of all steps
    "save_steps": POSITIVE,
    "eval_steps": POSITIVE,
    "save_total_limit": COUNT,
    "dataloader_num_workers": NOT_NEGATIVE,
    "dataloader_prefetch_factor": COUNT,
    "eval_accumulation_steps": COUNT,
    "seed": SEED,
    "data_seed": SEED,
    "label_smoothing_factor": Range(least=0, below=1),
    "neftune_noise_alpha": NOT_NEGATIVE,
}
# transformers.GenerationConfig, and vLLM's SamplingParams
SAMPLING = {
    "temperature": POSITIVE,
    "top_p": Range(above=0, most=1),
    "top_k": Range(least=0, also=(-1,)),  # 0 and -1: all tokens
    "min_p": SHARE,
    "repetition_penalty": POSITIVE,
    "max_completion_length": COUNT,
    "vllm_gpu_memory_utilization": Range(above=0, most=1),
    "vllm_tensor_parallel_size": COUNT,
    "vllm_max_model_length": COUNT,
}
# trl.GRPOConfig and RLOOConfig
GROUPS = SAMPLING | {
    "num_generations": Range(least=2),  # the advantage compares
    "num_generations_eval": COUNT,
    "generation_batch_size": COUNT,
    "steps_per_generation": COUNT,
    "num_iterations": COUNT,
    "beta": NOT_NEGATIVE,
    "epsilon": POSITIVE,  # a very large one leaves nothing clipped
    "epsilon_high": POSITIVE,
    "reward_weights": WEIGHTS,
    "ref_model_mixup_alpha": SHARE,
    "ref_model_sync_steps": COUNT,
    "pad_to_multiple_of": COUNT,
}
RANGES = {
    "transformers.TrainingArguments": TRAINING,
    "trl.GRPOConfig": TRAINING
    | GROUPS
    | {
        "delta": Range(above=1),
        "top_entropy_quantile": Range(above=0, most=1),
        "max_tool_calling_iterations": COUNT,
    },
    "trl.RLOOConfig": TRAINING | GROUPS,
    "trl.DPOConfig": TRAINING
    | {
        "beta": POSITIVE,  # 0: every pair has the same loss
        "max_length": COUNT,
        "label_smoothing": Range(least=0, below=0.5),
        "loss_weights": WEIGHTS,
        "discopop_tau": POSITIVE,
        "precompute_ref_batch_size": COUNT,
        "pad_to_multiple_of": COUNT,
        "ld_alpha": SHARE,
        "ref_model_mixup_alpha": SHARE,
        "ref_model_sync_steps": COUNT,
    },
    "trl.RewardConfig": TRAINING | {"max_length": COUNT, "center_rewards_coefficient": NOT_NEGATIVE},
    # beta: between the two directions of the divergence
    "trl.DistillationConfig": TRAINING | SAMPLING | {"beta": SHARE},
}

# transformers.utils.logging; transformers.integrations.get_available_reporting_integrations
_LOG_LEVELS = ("detail", "debug", "info", "warning", "error", "critical", "passive")
_TRACKERS = (
    *("none", "all", "azure_ml", "clearml", "codecarbon", "comet_ml", "dagshub", "dvclive", "flyte", "kubeflow", "mlflow"),
    *("neptune", "swanlab", "tensorboard", "trackio", "wandb"),
)  # fmt: skip
# transformers.TrainingArguments._process_fsdp_args, which passes over a key that it does not know
_FSDP = (
    *("version", "transformer_layer_cls_to_wrap", "auto_wrap_policy", "min_num_params", "reshard_after_forward", "cpu_offload"),
    *("state_dict_type", "activation_checkpointing", "cpu_ram_efficient_loading", "backward_prefetch", "forward_prefetch"),
    *("limit_all_gathers", "use_orig_params", "sync_module_states", "xla", "xla_fsdp_v2", "xla_fsdp_settings", "xla_fsdp_grad_ckpt"),
)  # fmt: skip
# transformers.GenerationConfig, which keeps whatever it is given, and vLLM's SamplingParams: those that choose a token
_GENERATION = (
    *("temperature", "top_k", "top_p", "top_h", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff", "repetition_penalty"),
    *("no_repeat_ngram_size", "length_penalty", "exponential_decay_length_penalty", "renormalize_logits", "remove_invalid_values"),
    *("bad_words_ids", "suppress_tokens", "begin_suppress_tokens", "sequence_bias", "forced_eos_token_id", "guidance_scale"),
    *("min_length", "min_new_tokens", "max_new_tokens", "max_length", "max_time", "stop_strings", "eos_token_id", "do_sample"),
    *("num_beams", "use_cache", "cache_implementation", "cache_config", "disable_compile", "compile_config", "token_healing"),
    *("presence_penalty", "frequency_penalty", "stop", "stop_token_ids", "ignore_eos", "min_tokens", "logit_bias", "bad_words"),
    *("allowed_token_ids", "skip_special_tokens", "include_stop_str_in_output", "truncate_prompt_tokens", "structured_outputs"),
)  # fmt: skip
# transformers.trainer_pt_utils.AcceleratorConfig
_ACCELERATOR = (
    *("split_batches", "dispatch_batches", "even_batches", "use_seedable_sampler", "non_blocking"),
    *("gradient_accumulation_kwargs", "use_configured_state"),
)
_TRAINING_WORDS = {
    "log_level": _LOG_LEVELS,
    "log_level_replica": _LOG_LEVELS,
    "report_to": _TRACKERS,
    "fsdp_config": _FSDP,
    "accelerator_config": _ACCELERATOR,
    # torch.compile
    "torch_compile_mode": (
        "default",
        "lite",
        "reduce-overhead",
        "max-autotune",
        "max-autotune-no-cudagraphs",
    ),
}
_DPO_LOSSES = (
    *("sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot"),
    *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sft"),
)  # fmt: skip
# The scripts with these trainers have no validation data to give them.
_NOT_EVALUATED = {
    "eval_strategy": ("no",),
    "save_strategy": ("no", "steps", "epoch"),
    "load_best_model_at_end": ("false",),
}
_SAMPLING_WORDS = {"vllm_mode": ("colocate", "server"), "generation_kwargs": _GENERATION}
# trl.GRPOTrainer, trl.RLOOTrainer
_GROUP_WORDS = {"remove_unused_columns": ("false",), "auto_find_batch_size": ("false",)}
# The words that settings take which say so in no type of theirs; of a mapping, its keys. Of trl.GRPOTrainer and
# trl.DPOTrainer (TRL 1.16), where they ask for them.
WORDS = {
    "transformers.TrainingArguments": _TRAINING_WORDS,
    "trl.GRPOConfig": _TRAINING_WORDS
    | _SAMPLING_WORDS
    | _GROUP_WORDS
    | _NOT_EVALUATED
    | {
        "loss_type": ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "sapo", "luspo", "vespo"),
        "importance_sampling_level": ("token", "sequence"),
        "scale_rewards": ("group", "batch", "none", "true", "false"),
    },
    "trl.RLOOConfig": _TRAINING_WORDS | _SAMPLING_WORDS | _GROUP_WORDS | _NOT_EVALUATED,
    "trl.DPOConfig": _TRAINING_WORDS
    | {
        "loss_type": _DPO_LOSSES,
        "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
        "truncation_mode": ("keep_start", "keep_end"),
    },
    "trl.RewardConfig": _TRAINING_WORDS,
    "trl.DistillationConfig": _TRAINING_WORDS | _NOT_EVALUATED | {"vllm_mode": ("colocate", "server")},
}
# Why a setting takes fewer words than its library knows
REASONS = {
    "eval_strategy": "the script gives its trainer no validation data; it evaluates the model itself, before and after training",
    "save_strategy": "the best checkpoint is found by validation data, of which the script gives its trainer none",
    "load_best_model_at_end": "the best checkpoint is found by validation data, of which the script gives its trainer none",
    "remove_unused_columns": "rewards read the columns of the data",
    "auto_find_batch_size": "a batch cut to fit would no longer hold whole groups",
}
# Settings that the training scripts would pass over without a word -> what does what they are meant for
PASSED_OVER = {
    "resume_from_checkpoint": "a job goes on from what lies at its checkpoint_config: give it that S3 address",
    "model_init_kwargs": "the script loads the model itself: base_model, dtype and quantization say how",
}
