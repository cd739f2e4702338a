"""Rewards as verl calls them: with the limit of the recipe, the opening of the template and the columns of the data."""

import json
import math

import pytest
from harness import ROOT, answer_of
from rl.rewards import TOKEN_ESTIMATE, compute_score
from verl_recipe import read_verl_recipe, score_arguments
from verl_recipes import FITS, MODULE, ON_CPU, RECIPES

SCORES = """
import json, sys
from verl.trainer.ppo.reward import get_custom_reward_fn
from verl_data import data_columns
from verl_recipe import read_verl_recipe
from verl_config import trainer_config
overrides, cases = json.loads(sys.argv[1])
job, settings = read_verl_recipe("recipes/full.yaml", overrides)
config = trainer_config(job, settings, hosts=1, gpus_per_host=8, opening="<think>")
score = get_custom_reward_fn(config)
print("ANSWER " + json.dumps([
    score(data_source="", solution_str=text, ground_truth=row["answer"], extra_info=data_columns(row)["extra_info"])
    for text, row in cases
]))
"""
OWN = """
import os
os.environ["LOADS"] = str(int(os.environ.get("LOADS", "0")) + 1)

def same_word(given, gold):
    return given.casefold() == gold

def brevity(completions, allowed, **kwargs):
    assert os.environ["LOADS"] == "1", "loaded twice"
    texts = [completion[0]["content"] for completion in completions]
    return [None if most is None else float(len(text) <= int(most)) for text, most in zip(texts, allowed)]

async def later(prompts, completions, **kwargs):
    import numpy
    return [numpy.float32(len(prompt) == 1 and completion[0]["role"] == "assistant") for prompt, completion in zip(prompts, completions)]
"""


def right_answer_of(tokens: int) -> str:
    """A right answer in its format, as long as the reward counts it."""
    start, end = "<think>", "</think><answer>9</answer>"
    return start + " 7" * (tokens - len(TOKEN_ESTIMATE.findall(start + end))) + end


# An answer's share of the length that is allowed -> what soft_overlong gives it
LENGTHS = {0.6: 1.0, 0.9: 0.5, 1.0: 0.0}


@pytest.mark.parametrize("recipe", sorted(FITS))
def test_the_length_reward_goes_by_the_limit_of_the_recipe(recipe):
    job, settings = read_verl_recipe(
        RECIPES / f"{recipe}.yaml", ["job.rewards=[soft_overlong]", "job.reward_weights=null"]
    )
    limit = settings["data"]["max_response_length"]
    for share, earned in LENGTHS.items():
        text = right_answer_of(round(share * limit))
        score = compute_score("", text, "9", **score_arguments(job, settings))["soft_overlong"]
        assert score == pytest.approx(earned, abs=0.05), (share, limit)


def row_with(answer: str, **columns) -> dict:
    message = {"role": "user", "content": "3 + 6 ="}
    row = {
        "prompt": [message],
        "question": "3 + 6 =",
        "answer": answer,
        "task": "sums",
        "split": "train",
        "index": 0,
    }
    return {**row, **columns}


@pytest.mark.job
@pytest.mark.timeout(900)
def test_verl_calls_the_rewards_with_the_limit_of_the_recipe_and_the_opening_of_the_template():
    cases = [
        (right_answer_of(round(share * 1024)).removeprefix("<think>"), row_with("9")) for share in LENGTHS
    ]
    scores = answer_of(SCORES, json.dumps([[], cases]), scripts=MODULE, **ON_CPU)
    for score, earned in zip(scores, LENGTHS.values(), strict=True):
        assert score["accuracy"] == score["format"] == 1.0
        assert score["soft_overlong"] == pytest.approx(earned, abs=0.02)
        assert score["score"] == pytest.approx(1.25 + 0.25 * score["soft_overlong"])


@pytest.mark.job
@pytest.mark.timeout(900)
def test_verl_calls_rewards_and_a_verifier_of_ones_own_with_the_columns_of_the_data(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    overrides = [
        "job.rewards=[accuracy, own.brevity, own.later]",
        "job.reward_weights=[1.0, 0.5, 2.0]",
        "job.verifier=own.same_word",
    ]
    text = "</think><answer>NINE</answer>"
    cases = [  # a column may have a type in each row
        (text, row_with("nine", allowed=100)),
        (text, row_with("nine", allowed="5")),
        (text, row_with("ten", allowed=None)),
    ]
    path = ":".join(map(str, (tmp_path, MODULE, ROOT / "scripts")))
    scores = answer_of(SCORES, json.dumps([overrides, cases]), scripts=MODULE, PYTHONPATH=path, **ON_CPU)
    assert [score["accuracy"] for score in scores] == [1.0, 1.0, 0.0]
    assert [score["own.brevity"] for score in scores[:2]] == [1.0, 0.0]
    assert math.isnan(scores[2]["own.brevity"]), "no opinion"
    assert [score["score"] for score in scores] == [3.5, 3.0, 2.0]
    assert len({tuple(score) for score in scores}) == 1, "verl wants the same names for each completion"


STEP = """
import json
from types import SimpleNamespace
from verl_trainer import clipped_ratio, completions_of, missing_line

lengths = {"a_0_0": 96, "a_1_0": 95, "b_0_0": 60, "b_0_1": 96, "pad1_0_0": 1}
tags = [{"response_len": length, "is_padding": key.startswith("pad")} for key, length in lengths.items()]
found = completions_of(SimpleNamespace(keys=list(lengths), tags=tags))
lines = [missing_line(list(found), asked, 7) for asked in (3, 4)]
print("ANSWER " + json.dumps([list(found), lines, clipped_ratio(list(found.values()), 96)]))
"""


@pytest.mark.job
@pytest.mark.timeout(900)
def test_a_step_says_how_many_completions_failed_and_how_many_are_as_long_as_is_allowed():
    """Three completions, one of them in two parts, and one of verl's padding."""
    found, (none, line), clipped = answer_of(STEP, scripts=MODULE, **ON_CPU)
    assert found == ["a_0_0", "a_1_0", "b_0_0", "b_0_1"] and clipped == 0.5
    assert none is None and "Step 7 learns from 3 of 4 completions" in line
