"""Intervals, scoring, saving; one process and two give the same evaluation; training around it is not disturbed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import job_variables
from rl.evaluation import Evaluation, evaluate, score_completions, wilson_interval
from rl.tasks import DataError, make_splits
from tiny import tiny_model

TESTS = Path(__file__).parent
ROWS = 7  # with batches of 3 and two processes, the last batch is short and one process has more batches
SETTINGS = {"samples": 2, "max_new_tokens": 12, "batch_size": 3, "seed": 5}


@pytest.fixture(scope="module")
def rows():
    return make_splits("chain_sum", {"test": ROWS})["test"]


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


def completion(index, decoding, sample, text, answer="9"):
    fields = {"index": index, "question": "?", "answer": answer, "decoding": decoding, "sample": sample}
    return {**fields, "completion": text, "tokens": len(text)}


def test_scores_by_hand():
    good, wrong, bare = "<think>a</think><answer>9</answer>", "<think></think><answer>8</answer>", "9"
    result = score_completions(
        [
            completion(0, "greedy", 0, good),
            completion(1, "greedy", 0, bare),
            completion(0, "sampled", 0, good),
            completion(0, "sampled", 1, wrong),
            completion(1, "sampled", 0, wrong),
            completion(1, "sampled", 1, bare),
        ]
    )
    assert (result.greedy.value, result.greedy.n, result.greedy.decoding) == (0.5, 2, "greedy")
    assert (result.sampled.value, result.sampled.n) == (0.25, 2)
    assert (result.sampled.low, result.sampled.high) == wilson_interval(0.5, 2)
    assert result.format_rate == {"greedy": 0.5, "sampled": 0.75}
    assert result.mean_completion_length["greedy"] == (len(good) + len(bare)) / 2
    assert [item["extracted"] for item in result.completions] == ["9", None, "9", "8", "8", None]


@pytest.mark.parametrize(
    "items",
    [
        [completion(0, "greedy", 0, "9")],  # no samples
        [completion(0, "greedy", 0, "9"), completion(0, "sampled", 0, "9"), completion(1, "sampled", 0, "9")],
        [completion(0, "greedy", 0, "9"), completion(0, "sampled", 0, "9"), completion(0, "sampled", 0, "9")],
    ],
)
def test_incomplete_sets_of_completions_are_refused(items):
    with pytest.raises(ValueError, match="problems need"):
        score_completions(items)


def test_saved_evaluation_is_loaded_as_it_was(rows, tmp_path):
    result = evaluate(*tiny_model(), rows, **SETTINGS)
    result.save(tmp_path / "evaluation.json")
    assert Evaluation.load(tmp_path / "evaluation.json") == result


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"greedy": {"value": 1}}'])
def test_what_is_no_evaluation_is_refused(content, tmp_path):
    path = tmp_path / "evaluation.json"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=r"evaluation\.json"):
        Evaluation.load(path)


def test_reading_needs_no_torch():
    code = "import sys, rl.evaluation, rl.tasks, rl.rewards, job.recipe, job.container; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, env=job_variables(TESTS), timeout=60)


def test_every_row_is_answered_and_batches_do_not_matter_to_greedy_decoding(rows):
    model, tokenizer = tiny_model()
    result = evaluate(model, tokenizer, rows, **SETTINGS)
    tries = [(item["index"], item["decoding"], item["sample"]) for item in result.completions]
    assert sorted(tries) == sorted(
        (row["index"], decoding, sample)
        for row in rows
        for decoding, sample in [("greedy", 0), ("sampled", 0), ("sampled", 1)]
    )
    alone = evaluate(model, tokenizer, rows, **{**SETTINGS, "batch_size": 1})
    assert greedy_texts(alone) == greedy_texts(result)


def greedy_texts(result):
    return [item["completion"] for item in result.completions if item["decoding"] == "greedy"]


def test_length_counts_the_end_token_and_stops_there(rows):
    model, tokenizer = tiny_model()
    with torch.no_grad():  # a larger embedding, which is also the output weight, makes the end token frequent
        model.model.embed_tokens.weight[tokenizer.eos_token_id] *= 30
    result = evaluate(model, tokenizer, rows, **{**SETTINGS, "samples": 8})
    lengths = {item["tokens"] for item in result.completions}
    assert min(lengths) == 1
    assert max(lengths) == SETTINGS["max_new_tokens"]
    for item in result.completions:
        assert (item["completion"] == "") == (item["tokens"] == 1)
        assert tokenizer.eos_token not in item["completion"]


def test_sampling_ignores_the_models_own_generation_settings(rows):
    model, tokenizer = tiny_model()
    plain = evaluate(model, tokenizer, rows, **SETTINGS)
    model.generation_config.top_k, model.generation_config.repetition_penalty = 1, 1.5
    assert evaluate(model, tokenizer, rows, **SETTINGS) == plain


def test_training_state_is_left_alone(rows):
    model, tokenizer = tiny_model()
    model.train()
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    evaluate(model, tokenizer, rows, **SETTINGS)
    assert model.training
    assert torch.equal(torch.rand(3), expected)


def test_nothing_to_evaluate_is_refused(rows):
    with pytest.raises(ValueError, match="rows"):
        evaluate(*tiny_model(), [], **SETTINGS)
    with pytest.raises(ValueError, match="sample"):
        evaluate(*tiny_model(), rows, **{**SETTINGS, "samples": 0})


DISTRIBUTED = f"""
import os, sys
from accelerate import PartialState
from tiny import tiny_model
from rl.evaluation import evaluate
from rl.tasks import make_splits
state = PartialState(cpu=True)
assert state.num_processes == 2
rows = make_splits("chain_sum", {{"test": {ROWS}}})["test"]
evaluate(*tiny_model(), rows, **{SETTINGS}).save(f"{{sys.argv[1]}}/{{state.process_index}}.json")
state.destroy_process_group()
"""


@pytest.mark.job
@pytest.mark.timeout(180)
def test_two_processes_give_the_evaluation_of_one(rows, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    subprocess.run([*launch, str(script), str(tmp_path)], check=True, env=job_variables(TESTS), timeout=150)
    alone = evaluate(*tiny_model(), rows, **SETTINGS)
    for rank in (0, 1):
        assert Evaluation.load(tmp_path / f"{rank}.json") == alone
    assert json.loads((tmp_path / "0.json").read_text())["greedy"]["n"] == ROWS
