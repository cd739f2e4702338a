"""The numbers that a setting takes. Outside them a library refuses late or, more often, trains on: nothing, or something else.

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
    "seed": NOT_NEGATIVE,
    "data_seed": NOT_NEGATIVE,
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
        "ld_alpha": SHARE,
        "ref_model_mixup_alpha": SHARE,
        "ref_model_sync_steps": COUNT,
    },
    "trl.RewardConfig": TRAINING | {"max_length": COUNT, "center_rewards_coefficient": NOT_NEGATIVE},
    # beta: between the two directions of the divergence
    "trl.DistillationConfig": TRAINING | SAMPLING | {"beta": SHARE},
}
