"""Preflight of the channel `base`: an evaluation of something else is refused before a job is paid for."""

import dataclasses
import json

import pytest
import request_keeper
from preflight_findings import MARKS, request_of
from rl.evaluation import Evaluation, score_completions
from rl.verifiers import number
from workshop.checks.base_checks import check_base_evaluation
from workshop.checks.data_checks import check_data

OF = {
    "base model": "asset:tiny (0123456789ab)",
    "dtype": "float32",
    "problems": "1 (0123456789ab)",
    "verifier": "number",
    "samples": "1",
    "max_new_tokens": "96",
}
SETTINGS = {
    "base_model": "asset:tiny",
    "dtype": "float32",
    "verifier": "number",
    "eval_samples": 1,
    "eval_max_new_tokens": 96,
}


@pytest.fixture
def evaluation() -> Evaluation:
    item = {"index": 0, "question": "1 + 1?", "answer": "2", "tokens": 3, "cut_off": False, "sample": 0}
    item |= {"completion": "<answer>2</answer>"}
    both = [{**item, "decoding": "greedy"}, {**item, "decoding": "sampled"}]
    return dataclasses.replace(score_completions(both, number), of=OF)


def said(path, **settings) -> str:
    found = check_base_evaluation(request_of({"base": path}), {**SETTINGS, **settings})
    return "\n".join(f"{MARKS[check.status]} {check.detail}" for check in found)


def test_the_file_and_its_folder_are_taken_and_are_no_problems_to_train_on(evaluation, tmp_path):
    file = tmp_path / "evaluation_before.json"
    evaluation.save(file)
    assert said(file) == said(tmp_path) == "+ sampled pass@1 1.000 of 1 (0123456789ab) problems"
    assert not list(check_data(request_of({"base": file}), SETTINGS))
    assert not list(check_base_evaluation(request_of({}), SETTINGS))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (
            {"base_model": "hub:Qwen/Qwen3-0.6B"},
            "base model: asset:tiny (0123456789ab) there, hub:Qwen/Qwen3-0.6B here",
        ),
        ({"base_model": "asset:tin"}, "asset:tin here"),
        ({"dtype": "bfloat16"}, "dtype: float32 there, bfloat16 here"),
        ({"eval_samples": 4}, "samples: 1 there, 4 here"),
        ({"eval_max_new_tokens": 8}, "max_new_tokens: 96 there, 8 here"),
        ({"verifier": "exact"}, "verifier: number there, exact here"),
    ],
)
def test_another_model_verdict_or_decoding_is_refused(evaluation, tmp_path, changed, words):
    evaluation.save(tmp_path / "evaluation_before.json")
    assert words in said(tmp_path, **changed) and said(tmp_path, **changed).startswith("x ")


@pytest.mark.parametrize("text", [None, "{", "[]", json.dumps({"greedy": 1})])
def test_what_is_no_evaluation_is_refused(tmp_path, text):
    if text is not None:
        (tmp_path / "evaluation_before.json").write_text(text)
    assert said(tmp_path).startswith("x ")


def test_an_evaluation_that_does_not_say_of_what_it_is_is_refused(evaluation, tmp_path):
    dataclasses.replace(evaluation, of={}).save(tmp_path / "evaluation_before.json")
    assert "samples: not said there, 1 here" in said(tmp_path)


def test_what_the_request_matrix_makes_up_is_the_evaluation_of_its_jobs_base(tmp_path):
    made_up = request_keeper.results(False, SETTINGS)
    (tmp_path / "evaluation_before.json").write_bytes(made_up["data/evaluation_before.json"])
    assert said(tmp_path) == "+ sampled pass@1 1.000 of 8 (made up) problems"
    assert "samples: 1 there, 4 here" in said(tmp_path, eval_samples=4)
    assert Evaluation.load(tmp_path / "evaluation_before.json").of.keys() == OF.keys()
