"""GRPO worked out by hand (02's lesson/by_hand.py): each formula on numbers that one can check."""

import math

import numpy as np
import pytest
from lesson.by_hand import (
    cispo_surrogate,
    clipped_surrogate,
    dapo_weights,
    dr_grpo_weights,
    group_advantages,
    grpo_weights,
    importance_ratio,
    kl_k3,
    log_probability,
    sequence_ratio,
    stops_counting,
    token_mean,
    total_reward,
)


def test_a_completions_probability_is_the_product_of_its_tokens():
    found = log_probability(np.log([[0.5, 0.5, 0.1], [0.25, 0.5, 0.5]]), np.array([[1, 1, 0], [1, 1, 1]]))
    assert np.exp(found) == pytest.approx([0.25, 0.0625])


def test_rewards_are_weighed_and_no_opinion_is_no_reward():
    assert total_reward(np.array([[1.0, 1.0], [0.0, np.nan]]), [1.0, 0.25]).tolist() == [1.25, 0.0]


def test_advantages_compare_within_a_group():
    reward = np.array([1.0, 0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0])
    assert group_advantages(reward, 4, epsilon=0.0)[:4] == pytest.approx([1.5, -0.5, -0.5, -0.5])
    assert group_advantages(reward, 4)[:4] == pytest.approx([1.5, -0.5, -0.5, -0.5], rel=3e-4)
    assert group_advantages(reward, 4)[4:].tolist() == [0.0] * 4, "a group of equal rewards teaches nothing"
    assert group_advantages(reward, 4, scale="none") == pytest.approx([0.75, *[-0.25] * 3, *[0.0] * 4])
    assert group_advantages(reward, 4, scale="batch")[0] == pytest.approx(0.75 / reward.std(ddof=1), rel=1e-3)


def test_ratios_of_tokens_and_of_a_completion():
    policy, sampler = np.log([[0.8, 0.1, 0.9]]), np.log([[0.4, 0.2, 0.3]])
    mask = np.array([[True, True, False]])
    assert importance_ratio(policy, sampler)[0] == pytest.approx([2.0, 0.5, 3.0])
    assert sequence_ratio(policy, sampler, mask).tolist() == [[pytest.approx(math.sqrt(2.0 * 0.5))]]


@pytest.mark.parametrize(
    ("r", "advantage", "surrogate", "stopped"),
    [
        (1.0, 2.0, 2.0, (False, False)),
        (1.5, 2.0, 2.56, (False, True)),  # a good one that is more frequent by now: 1.28 x 2
        (0.5, 2.0, 1.0, (False, False)),  # a good one that has become rarer still counts
        (0.5, -2.0, -1.6, (True, False)),  # a bad one that is rarer by now: 0.8 x -2
        (1.5, -2.0, -3.0, (False, False)),  # a bad one that has become more frequent still counts
        (1.5, 0.0, 0.0, (False, False)),
    ],
)
def test_clipping_is_one_sided(r, advantage, surrogate, stopped):
    r, advantage = np.array([[r]]), np.array([[advantage]])
    assert clipped_surrogate(r, advantage, 0.2, 0.28).item() == pytest.approx(surrogate)
    assert tuple(mask.item() for mask in stops_counting(r, advantage, 0.2, 0.28)) == stopped


def test_cispo_caps_the_ratio_and_keeps_the_log_probability():
    found = cispo_surrogate(np.array([[1.0, 9.0]]), np.array([[2.0]]), np.array([[-0.5, -0.5]]), 5.0)
    assert found.tolist() == [[-1.0, -5.0]]


def test_k3_estimates_the_divergence_without_bias():
    policy, reference = np.array([0.7, 0.2, 0.1]), np.array([0.5, 0.2, 0.3])
    k3 = kl_k3(np.log(policy), np.log(reference))
    assert (k3 >= 0).all() and k3[1] == 0.0
    assert (policy * k3).sum() == pytest.approx((policy * np.log(policy / reference)).sum())


def test_what_a_token_weighs():
    mask = np.array([[1, 1, 1, 1], [1, 0, 0, 0]], dtype=bool)
    assert token_mean(np.array([[1, 2, 3, 4], [5, 9, 9, 9]]), mask) == 3.0
    assert grpo_weights(mask)[:, 0].tolist() == [0.125, 0.5], (
        "the short one's token weighs four times as much"
    )
    assert dapo_weights(mask, 5)[:, 0].tolist() == [0.2, 0.2]
    assert dr_grpo_weights(mask, 10)[:, 0].tolist() == [0.05, 0.05]
    assert grpo_weights(mask).sum() == dapo_weights(mask, 5).sum() == pytest.approx(1)
    assert grpo_weights(np.zeros((1, 2), bool)).tolist() == [[0, 0]], "one that is masked weighs nothing"
