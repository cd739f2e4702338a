"""Estimators and tests against values found another way: by counting all subsets, by hand, by simulation."""

import math
import random
from itertools import combinations, product
from statistics import NormalDist, fmean, stdev

import pytest
from rl.statistics import (
    Estimate,
    bootstrap_difference,
    bootstrap_mean,
    bootstrap_share,
    mcnemar,
    pass_at_k,
    wilson_interval,
)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # R. G. Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval(successes, n, low, high):
    assert wilson_interval(successes, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize(("successes", "n"), [(1, 0), (-1, 5), (6, 5)])
def test_wilson_interval_refuses_impossible_counts(successes, n):
    with pytest.raises(ValueError, match="successes"):
        wilson_interval(successes, n)


def test_pass_at_k_is_the_share_of_all_subsets_with_a_right_one():
    for samples in range(1, 8):
        for correct, k in product(range(samples + 1), range(1, samples + 1)):
            subsets = list(combinations([True] * correct + [False] * (samples - correct), k))
            assert pass_at_k(samples, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets))


def test_pass_at_k_is_unbiased_and_the_shortcut_is_not():
    """Over all outcomes of 5 samples, each right with chance 0.3, its mean is the chance that one of 3 is right."""
    chance, samples, k = 0.3, 5, 3
    weights = [math.comb(samples, c) * chance**c * (1 - chance) ** (samples - c) for c in range(samples + 1)]
    truth = 1 - (1 - chance) ** k
    assert sum(w * pass_at_k(samples, c, k) for c, w in enumerate(weights)) == pytest.approx(truth)
    assert sum(w * (1 - (1 - c / samples) ** k) for c, w in enumerate(weights)) < truth - 0.03


@pytest.mark.parametrize(
    ("samples", "correct", "k", "said"),
    [(4, 1, 5, "there are 4 samples"), (4, 1, 0, "1 <= k"), (4, 5, 1, "5 of 4"), (4, -1, 1, "-1 of 4")],
)
def test_pass_at_k_refuses_what_cannot_be(samples, correct, k, said):
    with pytest.raises(ValueError, match=said):
        pass_at_k(samples, correct, k)


def verdicts(fixed: int, broken: int, same: int) -> tuple[list[bool], list[bool]]:
    before = [False] * fixed + [True] * broken + [True, False] * same
    after = [True] * fixed + [False] * broken + [True, False] * same
    return before, after


@pytest.mark.parametrize(
    ("fixed", "broken", "p_value"),
    [
        (0, 0, 1.0),
        (1, 1, 1.0),
        (5, 0, 2 / 32),
        (0, 5, 2 / 32),
        (1, 7, 2 * (1 + 8) / 256),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (5, 5, 1.0),  # twice the tail is more than 1
    ],
)
def test_mcnemar_by_hand(fixed, broken, p_value):
    found = mcnemar(*verdicts(fixed, broken, same=3))
    assert (found.fixed, found.broken, found.n) == (fixed, broken, fixed + broken + 6)
    assert found.p_value == pytest.approx(p_value)


@pytest.mark.parametrize("changed", [1, 4, 9, 12])
def test_mcnemar_counts_all_ways_a_fair_coin_falls(changed):
    """The p-value: of all sequences of fixed and broken, those split at least as unevenly as the one that was seen."""
    uneven = [abs(2 * sum(coins) - changed) for coins in product((0, 1), repeat=changed)]
    for fixed in range(changed + 1):
        expected = sum(found >= abs(2 * fixed - changed) for found in uneven) / len(uneven)
        assert mcnemar(*verdicts(fixed, changed - fixed, same=2)).p_value == pytest.approx(expected)


def test_mcnemar_of_many_problems_is_a_number_and_says_itself_in_a_line():
    found = mcnemar(*verdicts(1200, 800, same=0))  # 2 ** 2000 is no float
    assert 0 < found.p_value < 1e-15
    assert str(found) == "1200 fixed, 800 broken of 2000 (McNemar, p < 0.001)"
    assert str(mcnemar(*verdicts(5, 0, same=0))) == "5 fixed, 0 broken of 5 (McNemar, p = 0.062)"
    assert "p = 0.001" in str(mcnemar(*verdicts(16, 2, same=0))), "2 * (1 + 18 + 153) / 2**18 is 0.0013"
    assert "p < 0.001" in str(mcnemar(*verdicts(12, 0, same=0))), "2 / 2**12 is 0.0005"


def test_the_bootstrap_of_two_problems_by_hand():
    """Its draws are 00, 01, 10, 11, each as often: means 0, 0.5, 0.5, 1."""
    assert bootstrap_mean([0.0, 1.0]) == Estimate(0.5, 0.0, 1.0, 2)
    assert bootstrap_difference([0.0, 0.0], [0.5, -0.5]) == Estimate(0.0, -0.5, 0.5, 2)


def test_the_bootstrap_is_the_normal_interval_where_there_are_many_problems():
    rng = random.Random(1)
    values = [rng.randint(0, 4) / 4 for _ in range(400)]
    error = NormalDist().inv_cdf(0.975) * stdev(values) / math.sqrt(len(values))
    found = bootstrap_mean(values)
    assert found.value == pytest.approx(fmean(values)) and found.n == 400
    assert (found.low, found.high) == pytest.approx((found.value - error, found.value + error), abs=0.004)


def test_the_same_values_give_the_same_interval_whatever_was_drawn_before():
    values = [0.0, 0.25, 1.0, 0.5] * 10
    first = bootstrap_mean(values)
    random.seed(3)
    random.random()
    assert bootstrap_mean(values) == first
    assert bootstrap_mean(values, seed=1) != first


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    """100 problems, each of its own difficulty, answered 4 times: 95 of 100 such intervals, give or take 3 errors."""
    rng, trials, held = random.Random(11), 300, 0
    for _ in range(trials):
        # The chance of a problem is uniform in 0..1, so the truth is 1/2.
        chances = [rng.random() for _ in range(100)]
        values = [sum(rng.random() < chance for _ in range(4)) / 4 for chance in chances]
        found = bootstrap_mean(values, draws=400)
        held += found.low <= 0.5 <= found.high
    error = math.sqrt(0.95 * 0.05 / trials)
    assert held / trials == pytest.approx(0.95, abs=3 * error)


def test_pairing_sees_what_two_intervals_do_not():
    """Every problem a little better, of very different difficulty: the intervals overlap, the difference is certain."""
    rng = random.Random(5)
    before = [rng.random() * 0.8 for _ in range(60)]
    after = [value + 0.05 + 0.1 * rng.random() for value in before]
    first, second = bootstrap_mean(before), bootstrap_mean(after)
    difference = bootstrap_difference(before, after)
    assert first.high > second.low
    assert difference.value == pytest.approx(second.value - first.value) and difference.low > 0.08
    assert difference.high - difference.low < (second.high - second.low) / 4


def test_a_share_of_problems_that_are_all_alike_has_wilsons_interval():
    for value in (0.0, 1.0):
        found = bootstrap_share([value] * 20)
        assert (found.value, found.low, found.high) == (value, *wilson_interval(20 * value, 20))
    mixed = [0.0, 1.0, 0.5, 0.25]
    assert bootstrap_share(mixed) == bootstrap_mean(mixed)


@pytest.mark.parametrize("compare", [mcnemar, bootstrap_difference])
def test_what_cannot_be_paired_is_refused(compare):
    for before, after in (([], []), ([True], [True, False])):
        with pytest.raises(ValueError, match="same problems"):
            compare(before, after)


@pytest.mark.parametrize("mean", [bootstrap_mean, bootstrap_share])
def test_a_mean_of_nothing_is_refused(mean):
    with pytest.raises(ValueError, match="at least one"):
        mean([])
