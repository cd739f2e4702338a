"""All that GRPO computes in one optimizer step, in numpy, from what a job wrote down (scripts/step_record.py).

    step = read_steps(output.data)[0]
    reward = total_reward(step.rewards, step.settings["reward_weights"])
    group_advantages(reward, group_size=8)  # what the trainer had: step.advantages
    loss(step)                              # what the trainer logged: step.logged["loss"]

First the pieces, each a formula with its source, on arrays of C completions with T tokens each; then their composition as
TRL does it, by the recipe's loss_type and importance_sampling_level. The papers write objectives, which rise: a loss is minus
that. by_hand_comparison.py puts each number beside the trainer's.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rl.tasks import DataError

FOLDER = "steps"  # among a job's outputs
Array = np.ndarray

# What a loss may have besides, and the value without it: by_hand does not compute it.
_LEFT_OUT = {
    "multi_objective_aggregation": "sum_then_normalize",
    "delta": None,
    "top_entropy_quantile": 1.0,
    "off_policy_mask_threshold": None,
    "entropy_coef": 0.0,
    "use_adaptive_entropy": False,
    "router_aux_loss": False,
}
LOSS_TYPES = ("grpo", "dapo", "dr_grpo", "cispo")


@dataclass(frozen=True, eq=False)
class Step:
    """One optimizer step as the job wrote it down: N completions were generated, and C of them are in this step.

    Attributes:
        number: of the optimizer step, from 1.
        settings: the keys of the recipe that the loss depends on, with the values that they had.
        logged: what the trainer logged for this step, as in history.jsonl.
        problems, answers, completions: N texts; num_generations completions in a row are a group.
        rewards: (N, reward functions); NaN where a function had no opinion.
        advantages: (N,), as the trainer computed them.
        lengths: (N,) tokens that count; 0 for a completion that was masked because it was cut off.
        position: (C,) which of the N a completion of this step is. TRL shuffles them over the steps of a generation.
        process: (C,) which process had it.
        micro_batch: (C,) in which of gradient_accumulation_steps forward passes it was.
        tokens: the text of each token, a list for each of the C.
        mask: (C, T) True where a token counts, False behind a completion's end.
        policy, sampler, reference: (C, T) log-probability of each token under the policy that is updated, under the one
            that sampled it, and under the reference model (None where beta is 0).
        entropy: (C, T) of the policy's distribution at each token, in nats.
        engine_ratio: (C, T) with vLLM: TRL's weights for the engine's own rounding; None without.
    """

    number: int
    settings: dict[str, Any]
    logged: dict[str, float]
    problems: list[str]
    answers: list[str]
    completions: list[str]
    rewards: Array
    advantages: Array
    lengths: Array
    position: Array
    process: Array
    micro_batch: Array
    tokens: list[list[str]]
    mask: Array
    policy: Array
    sampler: Array
    entropy: Array
    reference: Array | None = None
    engine_ratio: Array | None = None

    @property
    def group(self) -> Array:
        """(C,) the group, from 0, that each completion of this step belongs to."""
        return self.position // self.settings["num_generations"]


def read_step(path: Path | str) -> Step:
    """A file that step_record.py wrote.

    Raises:
        DataError: no such file, or not one of these.
    """
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in file.files}
        return Step(**json.loads(str(arrays.pop("texts"))), **arrays)
    except FileNotFoundError as error:
        there = ", ".join(sorted(found.name for found in Path(path).parent.glob("step_*.npz"))) or "none"
        raise DataError(f"There is no recorded step {path} (steps there: {there}).") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{path} is not a step written by step_record.py ({error!r}).") from error


def read_steps(data: Path | str) -> list[Step]:
    """All steps in a job's output folder (`fetch_output(...).data`), in order.

    Raises:
        DataError: the job wrote none down.
    """
    paths = sorted((Path(data) / FOLDER).glob("step_*.npz"))
    if not paths:
        raise DataError(
            f"The job wrote no step down in {data}: start it with record_steps=[1, 2], among its hyperparameters."
        )
    return [read_step(path) for path in paths]


# --- Completions and groups ---


def log_probability(token_log_probs: Array, mask: Array) -> Array:
    """(C,) of whole completions: log pi(o|q) = sum over t of log pi(o_t | q, o_<t), the chain rule."""
    return (token_log_probs * mask).sum(axis=1)


def total_reward(rewards: Array, weights: list[float]) -> Array:
    """(N,) r = sum over f of w_f r_f; a function without an opinion (NaN) adds nothing."""
    return np.nansum(rewards * np.array(weights), axis=1)


def group_advantages(reward: Array, group_size: int, scale: str = "group", epsilon: float = 1e-4) -> Array:
    """(N,) A_i = (r_i - mean(r)) / (std(r) + epsilon), mean and std over the group.

    Shao et al. 2024, arXiv 2402.03300, section 4.1.2. TRL adds epsilon, so that a group of equal rewards gives 0 and not 0/0, and
    takes the std with N - 1. With scale "none" nothing is divided (Dr. GRPO: Liu et al. 2025, arXiv 2503.20783, section 3),
    with "batch" by the std of all N.
    """
    groups = reward.reshape(-1, group_size)
    centred = groups - groups.mean(axis=1, keepdims=True)
    if scale == "none":
        return centred.ravel()
    std = reward.std(ddof=1) if scale == "batch" else groups.std(axis=1, ddof=1, keepdims=True)
    return (centred / (std + epsilon)).ravel()


# --- Tokens ---


def importance_ratio(policy: Array, sampler: Array) -> Array:
    """(C, T) r_t = pi(o_t) / pi_old(o_t): 1 as long as the policy is the one that sampled. Shao et al., equation 3."""
    return np.exp(policy - sampler)


def sequence_ratio(policy: Array, sampler: Array, mask: Array) -> Array:
    """(C, 1) s = (pi(o) / pi_old(o)) ** (1 / |o|), one for all tokens of a completion.

    GSPO: Zheng et al. 2025, arXiv 2507.18071, section 4.
    """
    lengths = np.maximum(mask.sum(axis=1), 1)
    return np.exp(log_probability(policy - sampler, mask) / lengths)[:, None]


def clipped_surrogate(ratio: Array, advantage: Array, epsilon_low: float, epsilon_high: float) -> Array:
    """min(r A, clip(r, 1 - epsilon_low, 1 + epsilon_high) A), in the shape of `ratio`; advantage is (C, 1).

    PPO: Schulman et al. 2017, arXiv 1707.06347, equation 7. Two different epsilons: DAPO, Yu et al. 2025, arXiv 2503.14476,
    section 3.1.
    """
    return np.minimum(ratio * advantage, np.clip(ratio, 1 - epsilon_low, 1 + epsilon_high) * advantage)


def stops_counting(
    ratio: Array, advantage: Array, epsilon_low: float, epsilon_high: float
) -> tuple[Array, Array]:
    """Two masks in the shape of `ratio`: where the minimum above is the clipped side, which does not depend on the policy.

    These tokens have no gradient any more: those of a bad completion that are already rarer by more than epsilon_low
    (the first mask), and those of a good one that are already more frequent by more than epsilon_high (the second).
    """
    return (ratio < 1 - epsilon_low) & (advantage < 0), (ratio > 1 + epsilon_high) & (advantage > 0)


def cispo_surrogate(ratio: Array, advantage: Array, policy: Array, epsilon_high: float) -> Array:
    """(C, T) min(r, epsilon_high) A log pi(o_t), where the first factor is a number and has no gradient.

    A ratio is capped and no token stops counting. CISPO: MiniMax 2025, arXiv 2506.13585; TRL's epsilon_high is the cap
    itself, and there is no lower one.
    """
    return np.minimum(ratio, epsilon_high) * advantage * policy


def kl_k3(policy: Array, reference: Array) -> Array:
    """(C, T) k3 = pi_ref / pi - log(pi_ref / pi) - 1: an estimate of KL(pi || pi_ref) from one token, never negative.

    Schulman 2020, http://joschu.net/blog/kl-approx.html; Shao et al., equation 4. Unbiased it is of tokens that pi itself has
    sampled; that of others is multiplied by their ratio (use_bias_correction_kl, TRL's default; DeepSeek-V3.2, arXiv 2512.02556).
    """
    return np.exp(reference - policy) - (reference - policy) - 1


# --- Means: the one thing in which GRPO, DAPO and Dr. GRPO differ is what a token weighs; loss = sum(weights * losses) ---


def token_mean(values: Array, mask: Array) -> float:
    """The mean over all tokens that count; what TRL logs as entropy and kl."""
    return float((values * mask).sum(dtype=float) / max(mask.sum(), 1))


def grpo_weights(mask: Array) -> Array:
    """(C, T) 1 / (C |o_i|): first each completion's mean, then the mean of those. Shao et al., equation 3.

    A token of a long completion weighs less than one of a short one.
    """
    return mask / np.maximum(mask.sum(axis=1, keepdims=True), 1) / len(mask)


def dapo_weights(mask: Array, tokens: float) -> Array:
    """(C, T) 1 / tokens: every token weighs the same. Yu et al. 2025, arXiv 2503.14476, section 3.3.

    `tokens` is how many a step has. TRL does not count this step's: it takes the generation batch's, divided by the steps
    that share it, so the steps of one generation have the same divisor and may have a few tokens more or fewer than that.
    """
    return mask / max(tokens, 1)


def dr_grpo_weights(mask: Array, max_completion_length: int) -> Array:
    """(C, T) 1 / (C L) with a constant L, which no length can change. Liu et al. 2025, arXiv 2503.20783, section 3."""
    return mask / (len(mask) * max_completion_length)


# --- The step, composed as TRL does ---


def advantages(step: Step) -> Array:
    """(N,) of the whole generation batch: a step may hold only some completions of a group."""
    reward = total_reward(step.rewards, step.settings["reward_weights"])
    return group_advantages(reward, step.settings["num_generations"], step.settings["scale_rewards"])


def step_advantages(step: Step) -> Array:
    """(C, 1) those of this step's completions, one for all tokens of a completion."""
    return advantages(step)[step.position][:, None].astype(step.policy.dtype)


def ratio(step: Step) -> Array:
    """(C, T) of tokens, or (C, 1) of completions where importance_sampling_level is sequence."""
    if step.settings["importance_sampling_level"] == "sequence":
        return sequence_ratio(step.policy, step.sampler, step.mask)
    return importance_ratio(step.policy, step.sampler)


def clipped(step: Step) -> tuple[Array, Array]:
    """Masks (below, above) in the shape of `ratio`: what has stopped counting; for CISPO what is capped."""
    settings = step.settings
    if settings["loss_type"] == "cispo":
        above = (ratio(step) > settings["epsilon_high"]) & (step_advantages(step) > 0)
        return np.zeros_like(above), above
    return stops_counting(
        ratio(step), step_advantages(step), settings["epsilon_low"], settings["epsilon_high"]
    )


def token_kl(step: Step) -> Array:
    """(C, T) k3 as the loss takes it; 0 where beta is 0 and there is no reference model."""
    if step.reference is None:
        return np.zeros_like(step.policy)
    correction = ratio(step) if step.settings["use_bias_correction_kl"] else 1
    return kl_k3(step.policy, step.reference) * correction


def token_losses(step: Step) -> Array:
    """(C, T) of each token, before any mean: - surrogate + beta k3.

    Raises:
        DataError: the run's loss has a part that is not worked out here.
    """
    settings, r, advantage = step.settings, ratio(step), step_advantages(step)
    left_out = [f"{key}: {settings[key]}" for key, without in _LEFT_OUT.items() if settings[key] != without]
    if settings["loss_type"] not in LOSS_TYPES:
        left_out.append(f"loss_type: {settings['loss_type']}")
    if left_out:
        raise DataError(f"The loss of step {step.number} is not worked out by hand: {', '.join(left_out)}.")
    if settings["loss_type"] == "cispo":
        surrogate = cispo_surrogate(r, advantage, step.policy, settings["epsilon_high"])
    else:
        surrogate = clipped_surrogate(r, advantage, settings["epsilon_low"], settings["epsilon_high"])
    if step.engine_ratio is not None:
        surrogate = surrogate * step.engine_ratio
    return settings["beta"] * token_kl(step) - surrogate


def token_weights(step: Step) -> Array:
    """(C, T) what each token weighs in the loss, by the recipe's loss_type."""
    settings = step.settings
    if settings["loss_type"] == "grpo":
        return grpo_weights(step.mask)
    if settings["loss_type"] == "dr_grpo":
        return dr_grpo_weights(step.mask, settings["max_completion_length"])
    share = settings["gradient_accumulation_steps"] / settings["steps_per_generation"]
    return dapo_weights(step.mask, step.lengths.sum() * share)


def loss(step: Step) -> float:
    """The number that is logged. Where policy and sampler are one it says nothing about learning: its gradient does."""
    return float((token_weights(step) * token_losses(step)).sum())
