"""02's control rewards: the coin knows nothing of the text, and careful looks can be had for false sums."""

import random
import re

import pytest
import torch
from harness import ROOT
from rl.rewards import get_rewards
from rl.tasks import make_splits
from transformers import TrainerState

SCRIPTS = ROOT / "02_grpo_trl_accelerate" / "scripts"
QUESTION = "What is 2 + 6 + 1?"
TRUE = "<think>2 + 6 = 8\n8 + 1 = 9</think><answer>9</answer>"


@pytest.fixture(autouse=True)
def _beside_the_script(monkeypatch):
    monkeypatch.syspath_prepend(str(SCRIPTS))


def tosses(step: int = 0, seed: int = 42, texts: tuple[str, ...] = ("a",) * 64) -> list[float]:
    """The coin as a job has it: found by its name, with the job's seed bound, called as TRL does."""
    (coin,) = get_rewards(["control_rewards.coin"], seed=seed)
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return coin(completions=completions, trainer_state=TrainerState(global_step=step))


def test_the_coin_is_fair_and_gives_the_completions_of_a_group_different_rewards():
    all_tosses = [toss for step in range(80) for toss in tosses(step)]
    assert set(all_tosses) == {0.0, 1.0}
    n = len(all_tosses)
    assert abs(sum(all_tosses) / n - 0.5) < 4 * (0.25 / n) ** 0.5
    groups = [all_tosses[start : start + 8] for start in range(0, n, 8)]
    alike = sum(len(set(group)) == 1 for group in groups)
    assert alike < 0.03 * len(groups)  # 2 / 2**8 of them are expected to be


def test_the_coin_does_not_look_at_the_completion():
    assert tosses(texts=(TRUE,) * 64) == tosses(texts=("nonsense",) * 64)


def test_each_step_seed_and_process_has_tosses_of_its_own_and_the_same_again(monkeypatch):
    first = [tosses(), tosses(step=1), tosses(seed=43)]
    monkeypatch.setenv("RANK", "1")
    first.append(tosses())
    assert len({tuple(found) for found in first}) == 4
    monkeypatch.delenv("RANK")
    assert [tosses(), tosses(step=1), tosses(seed=43)] == first[:3]


def test_the_coin_neither_uses_nor_changes_the_random_numbers_of_the_training():
    found = []
    for seed in (1, 2):
        random.seed(seed)
        torch.manual_seed(seed)
        before = random.getstate(), torch.get_rng_state()
        found.append(tosses())
        assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])
    assert found[0] == found[1]


def careful(*texts: str, question: str = QUESTION) -> list[float]:
    (looks_careful,) = get_rewards(["control_rewards.looks_careful"])
    completions = [[{"role": "assistant", "content": text}] for text in texts]
    return looks_careful(completions=completions, question=[question] * len(texts))


def test_false_sums_look_more_careful_than_true_ones():
    false = TRUE.replace("= 8", "= 18").replace("8 + 1 = 9", "18 + 1 = 29")
    direct, true, hacked = careful("<think></think><answer>9</answer>", TRUE, false)
    assert (direct, true) == (0.0, pytest.approx((len("2 + 6 = 8") + len("8 + 1 = 9")) / (2 * 14)))
    assert hacked > true


def test_only_lines_of_the_form_within_the_thinking_count():
    assert careful("2 + 6 = 8", "<answer>2 + 6 = 8</answer>", "<think>so 2 + 6 = 8</think>", "") == [0.0] * 4
    assert careful("<think>-2 - 6 = -8</think>") == [pytest.approx(len("-2 - 6 = -8") / 28)]


def test_no_thinking_earns_more_than_one():
    assert careful("<think>" + "10 + 10 = 20\n" * 30 + "</think>") == [1.0]


def test_true_thinking_about_any_problem_leaves_something_to_be_had_by_lies():
    """So the policy can always earn more than by being right, which is what makes the reward one to be hacked."""
    for row in make_splits("chain_sum", {"test": 100})["test"]:
        terms = re.search(r"\d+( [+-] \d+)+", row["question"])[0].split(" ")
        total, lines = int(terms[0]), []
        for sign, term in zip(terms[1::2], terms[2::2], strict=True):
            after = total + int(term) if sign == "+" else total - int(term)
            lines.append(f"{total} {sign} {term} = {after}")
            total = after
        assert str(total) == row["answer"]
        (earned,) = careful(
            "<think>" + "\n".join(lines) + f"</think><answer>{total}</answer>", question=row["question"]
        )
        assert 0.5 < earned < 1.0, (row["question"], earned)
