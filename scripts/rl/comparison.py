"""Two evaluations of the same problems: does the second model do better, or is it chance?

    print(paired(before, after))   # sampled pass@1 +0.431 [+0.391, +0.472]; greedy: 150 fixed, 4 broken of 300 (McNemar, p < 0.001)

Two intervals that overlap do not answer that. Both hold how hard the problems are; of the same problems, it cancels out.
"""

from dataclasses import dataclass

from rl.evaluation import GREEDY, SAMPLED, Evaluation, verdicts
from rl.statistics import Estimate, McNemar, bootstrap_difference, mcnemar
from rl.tasks import DataError


@dataclass(frozen=True)
class Comparison:
    """What differs between two evaluations of the same problems.

    Attributes:
        sampled: difference of sampled pass@1, after - before, with its paired bootstrap interval.
        greedy: problems fixed and broken, with the exact McNemar test.
    """

    sampled: Estimate
    greedy: McNemar

    def __str__(self) -> str:
        change = self.sampled
        interval = f"[{change.low:+.3f}, {change.high:+.3f}]"
        if change.low == change.high:
            interval = "(in every problem, so there is no interval)"
        return f"sampled pass@1 {change.value:+.3f} {interval}; greedy: {self.greedy}"


def paired(before: Evaluation, after: Evaluation) -> Comparison:
    """Compares two evaluations problem by problem.

    Raises:
        DataError: they are of different problems.
    """
    check_same_problems(before, after)
    both = (before.completions, after.completions)
    shares = [[sum(group) / len(group) for group in verdicts(side, SAMPLED).values()] for side in both]
    right = [[first for first, *_ in verdicts(side, GREEDY).values()] for side in both]
    return Comparison(bootstrap_difference(*shares), mcnemar(*right))


def check_same_problems(before: Evaluation, after: Evaluation) -> None:
    """Whether two evaluations can be paired: the same questions under the same numbers.

    Raises:
        DataError: they cannot; names a problem that only one of them has.
    """
    first, second = (verdicts(side.completions, GREEDY).keys() for side in (before, after))
    if different := first ^ second:
        index, question = min(different)
        raise DataError(
            f"The two evaluations are of different problems: problem {index} ({question!r}) is in one of them only. "
            "Evaluate both models on the same test split, and compare those."
        )
