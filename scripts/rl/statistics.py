"""How sure a measurement is: intervals, pass@k, and tests of two models on the same problems.

Problems are what is sampled, so all of it counts problems. Several completions of one problem are no independent
measurements: they are averaged first. Needs the standard library only.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

DRAWS = 10_000  # resamples of a bootstrap
SEED = 20_210_707  # of its draws: the same values give the same interval, in the job and in the notebook


@dataclass(frozen=True)
class Estimate:
    """A mean over `n` problems with the ends of its 95 % interval."""

    value: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        return f"{self.value:.3f} [{self.low:.3f}, {self.high:.3f}] (n = {self.n})"


@dataclass(frozen=True)
class McNemar:
    """Right and wrong of the same `n` problems, before and after.

    Attributes:
        fixed: problems that were wrong before and are right after.
        broken: problems that were right before and are wrong after.
        n: all problems; those that stayed as they were say nothing about a difference.
        p_value: chance of a split of `fixed` and `broken` at least as uneven, were each as likely as the other.
    """

    fixed: int
    broken: int
    n: int
    p_value: float

    def __str__(self) -> str:
        p = f"p = {self.p_value:.3f}" if self.p_value >= 0.001 else "p < 0.001"
        return f"{self.fixed} fixed, {self.broken} broken of {self.n} (McNemar, {p})"


def wilson_interval(successes: float, n: int) -> tuple[float, float]:
    """95 % interval of a proportion (E. B. Wilson, 1927), which stays within 0..1 and is right near the ends too.

    Raises:
        ValueError: n below 1, or successes outside 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"an interval needs 0 <= successes <= n and n >= 1; got {successes} of {n}")
    z = 1.959963984540054  # 97.5 % point of the normal distribution
    p = successes / n
    centre = p + z * z / (2 * n)
    margin = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    scale = 1 + z * z / n
    return max(0.0, (centre - margin) / scale), min(1.0, (centre + margin) / scale)


def pass_at_k(samples: int, correct: int, k: int) -> float:
    """Chance that at least one of `k` completions of a problem is right, from `correct` right ones among `samples`.

    1 - C(samples - correct, k) / C(samples, k): the unbiased estimator of Chen et al. 2021 (arXiv 2107.03374, eq. 1).
    1 - (1 - correct / samples)^k, which looks the same, is too low.

    Raises:
        ValueError: k below 1 or above samples, or correct outside 0..samples.
    """
    if not 1 <= k <= samples:
        raise ValueError(
            f"pass@{k} needs 1 <= k <= samples; there are {samples} samples of each problem. Sample more, or ask for a "
            "smaller k."
        )
    if not 0 <= correct <= samples:
        raise ValueError(f"{correct} of {samples} samples cannot be right")
    return 1 - math.comb(samples - correct, k) / math.comb(samples, k)


def mcnemar(before: Sequence[bool], after: Sequence[bool]) -> McNemar:
    """Exact two-sided McNemar test (Q. McNemar, 1947): did two models do the same problems equally well?

    Only problems that changed count. Without a difference each of them is as likely fixed as broken, so `fixed` is
    binomial with probability 1/2; the p-value is twice its smaller tail, at most 1, and 1 where nothing changed.

    Args:
        before, after: whether each problem was right, in the same order.

    Raises:
        ValueError: no problems, or not the same number of them.
    """
    _check_pairs(before, after)
    fixed = sum(not first and second for first, second in zip(before, after, strict=True))
    broken = sum(first and not second for first, second in zip(before, after, strict=True))
    changed = fixed + broken
    tail = sum(math.comb(changed, count) for count in range(min(fixed, broken) + 1))
    return McNemar(fixed, broken, len(before), min(1.0, 2 * tail / 2**changed))


def bootstrap_mean(values: Sequence[float], *, draws: int = DRAWS, seed: int = SEED) -> Estimate:
    """Mean of one value a problem with its 95 % percentile bootstrap interval (B. Efron, 1979).

    Draws as many problems as there are, with replacement, `draws` times: the interval holds the middle 95 % of the means
    of those. It is somewhat too narrow for fewer than about 30 problems, and has no width where all values are equal.

    Raises:
        ValueError: no values.
    """
    if not values:
        raise ValueError("a mean needs at least one problem; got none")
    n, choices = len(values), random.Random(seed).choices
    means = sorted(math.fsum(choices(values, k=n)) / n for _ in range(draws))
    outside = draws // 40  # 2.5 % on either side
    return Estimate(math.fsum(values) / n, means[outside], means[-1 - outside], n)


def bootstrap_share(values: Sequence[float]) -> Estimate:
    """`bootstrap_mean` of values within 0..1. Where all are equal, as they are for a model that solves nothing or
    everything, there is nothing to draw, and the interval is Wilson's: wide, but not without width.

    Raises:
        ValueError: no values.
    """
    estimate = bootstrap_mean(values)
    if min(values) < max(values):
        return estimate
    return Estimate(values[0], *wilson_interval(values[0] * estimate.n, estimate.n), estimate.n)


def bootstrap_difference(
    before: Sequence[float], after: Sequence[float], *, draws: int = DRAWS, seed: int = SEED
) -> Estimate:
    """Mean of after - before with its 95 % interval; each draw takes whole problems, with both of their values.

    A hard problem is hard before and after. Pairing takes that out of the comparison, which two separate intervals
    leave in.

    Args:
        before, after: one value for each problem, in the same order.

    Raises:
        ValueError: no problems, or not the same number of them.
    """
    _check_pairs(before, after)
    differences = [second - first for first, second in zip(before, after, strict=True)]
    return bootstrap_mean(differences, draws=draws, seed=seed)


def _check_pairs(before: Sequence[float], after: Sequence[float]) -> None:
    if not before or len(before) != len(after):
        raise ValueError(
            "a paired comparison needs the same problems, in the same order, and at least one; got "
            f"{len(before)} before and {len(after)} after"
        )
