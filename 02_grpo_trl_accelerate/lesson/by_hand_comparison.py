"""Each number of a step worked out by hand (by_hand.py) beside the one that the trainer logged.

history.jsonl keeps all digits of what the trainer computed, which in float32 are about seven; the log's [metrics] line shows
four of them. Two numbers count as equal if they differ by a millionth at most.
"""

from dataclasses import dataclass

import numpy as np
from lesson.by_hand import (
    Array,
    Step,
    advantages,
    clipped,
    loss,
    token_kl,
    token_losses,
    token_mean,
    token_weights,
    total_reward,
)

RESOLUTION = 1e-6  # float32 has 24 bits, 6e-8 of a number; a sum of thousands of them loses a digit


@dataclass(frozen=True)
class Comparison:
    """One number twice, by its name in the log.

    `size` is that of the largest numbers on the way to it, of which rounding errors remain when they cancel: a loss may add up
    to nearly 0, and k3 takes 1 from a number near 1.
    """

    name: str
    by_hand: float
    logged: float
    size: float = 0.0

    @property
    def tolerance(self) -> float:
        """The largest difference that rounding explains: a millionth of the number itself, or of `size`."""
        return RESOLUTION * max(self.size, abs(self.logged))

    @property
    def equal(self) -> bool:
        return abs(self.by_hand - self.logged) <= self.tolerance


def compare(step: Step) -> list[Comparison]:
    """All that can be worked out and was logged for this step. Rewards are logged in the step that generated.

    Raises:
        rl.tasks.DataError: the run's loss has a part that is not worked out by hand.
    """
    own, theirs = advantages(step), step.advantages
    worst = int(np.abs(own - theirs).argmax())
    name = f"advantage, the least equal of {len(own)}"
    found = [Comparison(name, float(own[worst]), float(theirs[worst]), float(np.abs(own).max()))]
    size = float((token_weights(step) * np.abs(token_losses(step))).sum())
    values = {"loss": loss(step), **_pass_metrics(step), **_reward_metrics(step)}
    largest = float(np.nanmax(np.abs(step.rewards)))
    sizes = {"loss": size, "kl": 1.0} | {name: largest for name in values if name.startswith("reward")}
    return found + [
        Comparison(name, value, step.logged[name], sizes.get(name, 0.0))
        for name, value in values.items()
        if name in step.logged
    ]


def _reward_metrics(step: Step) -> dict[str, float]:
    """Of the generation batch."""
    reward = total_reward(step.rewards, step.settings["reward_weights"])
    spread = reward.reshape(-1, step.settings["num_generations"]).std(axis=1, ddof=1)
    if step.settings["scale_rewards"] == "batch":
        spread = reward.std(ddof=1)
    found = {
        "reward": float(reward.mean()),
        "reward_std": float(reward.std(ddof=1)),
        "frac_reward_zero_std": float(np.isclose(spread, 0).mean()),
    }
    for name, column in zip(step.settings["reward_names"], step.rewards.T, strict=True):
        found[f"rewards/{name}/mean"] = float(np.nanmean(column))
        found[f"rewards/{name}/std"] = float(np.nanstd(column, ddof=1))
    return found


def _pass_metrics(step: Step) -> dict[str, float]:
    """What TRL logs of each forward pass; of several (gradient accumulation) the mean."""
    below, above = clipped(step)
    kl = token_kl(step)
    passes = []
    for number in np.unique(step.micro_batch):
        part = step.micro_batch == number
        mask, low, high = step.mask[part], below[part], above[part]
        found = {"entropy": token_mean(step.entropy[part], mask), "kl": token_mean(kl[part], mask)}
        if step.settings["loss_type"] == "cispo":
            found["cispo_clip_ratio"] = _share(high, mask)
        else:
            found["clip_ratio/low_mean"] = _share(low, mask)
            found["clip_ratio/high_mean"] = _share(high, mask)
            found["clip_ratio/region_mean"] = _share(low | high, mask)
            found["clip_ratio/low_min"] = float(_shares(low, mask).min())
            found["clip_ratio/high_max"] = float(_shares(high, mask).max())
        passes.append(found)
    return {name: float(np.mean([found[name] for found in passes])) for name in passes[0]}


def _share(chosen: Array, mask: Array) -> float:
    """Of the tokens; where a completion has one ratio, of the completions."""
    return float(chosen.mean()) if chosen.shape[1] == 1 else token_mean(chosen, mask)


def _shares(chosen: Array, mask: Array) -> Array:
    """The share of each completion's tokens, of those completions that have any that count."""
    if chosen.shape[1] == 1:
        return chosen[:, 0].astype(float)
    some = mask.any(axis=1)
    if not some.any():
        return np.array([np.nan])
    return (chosen & mask)[some].sum(axis=1) / mask[some].sum(axis=1)
