"""Intervals, scoring, saving; one process and two give the same evaluation; training around it is not disturbed."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from harness import run_two_processes
from job_variables import job_variables
from rl.comparison import paired
from rl.evaluation import Evaluation, evaluate, greedy_pass_at_1, score_completions
from rl.generation import Generated
from rl.statistics import bootstrap_mean, mcnemar, pass_at_k, wilson_interval
from rl.tasks import DataError, make_splits
from rl.verifiers import exact, number
from tiny import tiny_model

TESTS = Path(__file__).parent
ROWS = 7  # with batches of 3 and two processes, the last batch is short and one process has more batches
DECODING = {"samples": 2, "max_new_tokens": 12, "batch_size": 3, "seed": 5}
SETTINGS = {**DECODING, "verifier": number}


@pytest.fixture(scope="module")
def rows():
    return make_splits("chain_sum", {"test": ROWS})["test"]


def completion(index, decoding, sample, text, answer="9"):
    fields = {"index": index, "question": "?", "answer": answer, "decoding": decoding, "sample": sample}
    return {**fields, "completion": text, "tokens": len(text), "cut_off": text == "9"}


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
        ],
        number,
    )
    assert (result.greedy.value, result.greedy.n, result.greedy.decoding) == (0.5, 2, "greedy")
    assert (result.sampled.value, result.sampled.n) == (0.25, 2)
    assert (result.greedy.low, result.greedy.high) == wilson_interval(1, 2)
    assert (result.sampled.low, result.sampled.high) == (0.0, 0.5)  # of problems with 1/2 and 0 right
    assert result.format_rate == {"greedy": 0.5, "sampled": 0.75}
    assert result.cut_off == {"greedy": 0.5, "sampled": 0.25}
    assert result.mean_completion_length["greedy"] == (len(good) + len(bare)) / 2
    assert [item["extracted"] for item in result.completions] == ["9", None, "9", "8", "8", None]


def by_counts(counts: list[int], samples: int, first: int = 0):
    """An evaluation of one problem for each count: so many of its samples are right, greedy if any is."""
    items = []
    for index, count in enumerate(counts, start=first):
        items.append(completion(index, "greedy", 0, f"<answer>{9 if count else 8}</answer>"))
        items += [
            completion(index, "sampled", sample, f"<answer>{9 if sample < count else 8}</answer>")
            for sample in range(samples)
        ]
    return score_completions(items, number)


def test_the_samples_of_a_problem_are_one_measurement():
    """The interval is over problems: more samples of a problem do not make more problems of it."""
    few, many = by_counts([0, 1, 2, 2] * 10, 2), by_counts([0, 50, 100, 100] * 10, 100)
    assert few.sampled == many.sampled
    expected = bootstrap_mean([0.0, 0.5, 1.0, 1.0] * 10)
    assert few.sampled.n == 40 and few.sampled.value == expected.value
    assert (few.sampled.low, few.sampled.high) == (expected.low, expected.high)


def test_pass_at_k_of_the_samples():
    counts = [0, 1, 2, 4]
    result = by_counts(counts, 4)
    assert result.samples == 4
    for k in (1, 2, 3, 4):
        assert result.pass_at(k) == bootstrap_mean([pass_at_k(4, count, k) for count in counts])
    assert result.pass_at(1).value == result.sampled.value == 7 / 16
    assert result.pass_at(2).value == pytest.approx((0 + 1 / 2 + 5 / 6 + 1) / 4)
    assert result.pass_at(4).value == 3 / 4
    with pytest.raises(ValueError, match="pass@5.*4 samples"):
        result.pass_at(5)


def test_a_model_that_solves_nothing_is_not_certain_to():
    nothing = by_counts([0] * 30, 4)
    assert (nothing.sampled.low, nothing.sampled.high) == wilson_interval(0, 30)
    assert nothing.pass_at(4).high == wilson_interval(0, 30)[1]


def test_two_evaluations_are_compared_problem_by_problem():
    before, after = by_counts([0, 1, 2, 2, 0] * 6, 2), by_counts([1, 2, 2, 0, 0] * 6, 2)
    found = paired(before, after)
    assert (found.greedy.fixed, found.greedy.broken, found.greedy.n) == (6, 6, 30)
    assert found.greedy == mcnemar([False, True, True, True, False] * 6, [True, True, True, False, False] * 6)
    assert found.sampled == bootstrap_mean([0.5, 0.5, 0.0, -1.0, 0.0] * 6)
    low, high = found.sampled.low, found.sampled.high
    assert str(found) == (
        f"sampled pass@1 +0.000 [{low:+.3f}, {high:+.3f}]; greedy: 6 fixed, 6 broken of 30 (McNemar, p = 1.000)"
    )
    assert str(paired(before, before)).startswith("sampled pass@1 +0.000 (in every problem, so there is no")


def test_the_order_of_the_completions_does_not_matter_to_a_comparison():
    before, after = by_counts([0, 1, 2, 0], 2), by_counts([2, 1, 0, 1], 2)
    turned = dataclasses.replace(after, completions=after.completions[::-1])
    assert paired(before, turned) == paired(before, after)


def test_different_problems_are_not_compared():
    for other in (by_counts([1, 2], 2, first=1), by_counts([1, 2, 2], 2)):
        with pytest.raises(DataError, match="different problems: problem .*same test split"):
            paired(by_counts([1, 2], 2), other)


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
        score_completions(items, number)


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


def test_an_evaluation_of_an_earlier_version_is_read(rows, tmp_path):
    path = tmp_path / "evaluation.json"
    result = evaluate(*tiny_model(), rows, **SETTINGS)
    result.save(path)
    content = json.loads(path.read_text())
    assert content.pop("cut_off").keys() == {"greedy", "sampled"}
    content["completions"] = [
        {key: value for key, value in item.items() if key != "cut_off"} for item in content["completions"]
    ]
    content["sampled"] |= {"low": 0.0, "high": 0.9}  # an interval of another kind
    path.write_text(json.dumps(content))
    loaded = Evaluation.load(path)
    assert loaded.cut_off == {}
    assert loaded.sampled == result.sampled


def test_reading_needs_no_torch():
    code = "import sys, rl.evaluation, rl.comparison, rl.habits, rl.tasks, rl.rewards, job.recipe, job.container; assert 'torch' not in sys.modules"
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


def test_the_share_that_was_cut_off(rows):
    """A completion that ends with the last token allowed is whole; one that would go on is not."""
    model, tokenizer = tiny_model()
    result = evaluate(model, tokenizer, rows, **SETTINGS)
    assert result.cut_off["greedy"] == 1.0
    with torch.no_grad():
        model.model.embed_tokens.weight[tokenizer.eos_token_id] *= 30
    result = evaluate(model, tokenizer, rows, **{**SETTINGS, "samples": 8, "max_new_tokens": 2})
    assert 0 < result.cut_off["sampled"] < 1
    for decoding in ("greedy", "sampled"):
        items = [item for item in result.completions if item["decoding"] == decoding]
        assert result.cut_off[decoding] == sum(item["cut_off"] for item in items) / len(items)
        assert all(item["tokens"] == 2 for item in items if item["cut_off"])
    whole = [item for item in result.completions if item["tokens"] == 2 and not item["cut_off"]]
    assert whole and all(len(item["completion"]) <= 1 for item in whole)


class Scripted:
    """Answers what was asked for, in place of a model's generation."""

    def __init__(self, text):
        self.text, self.asked = text, []

    def __call__(self, model, tokenizer, prompts, **options):
        self.asked.append(options)
        return [Generated(self.text, 3, cut_off=False)] * len(prompts)


def words(given, gold):
    return given.split() == gold.split()


def test_the_verifier_decides(rows):
    asked = [{**row, "answer": "the red  fox"} for row in rows]
    answer = Scripted("<think></think><answer>the red fox</answer>")
    for verifier, value in ((words, 1.0), (exact, 0.0)):  # which counts the spaces
        settings = {**SETTINGS, "verifier": verifier}
        result = evaluate(*tiny_model(), asked, generate=answer, **settings)
        assert (result.greedy.value, result.sampled.value) == (value, value)


def test_answers_none_of_which_can_be_reached_are_refused(rows):
    asked = [{**row, "answer": "nan"} for row in rows]
    with pytest.raises(
        DataError, match="None of 7 known answers, such as 'nan', can be reached with the verifier number"
    ):
        evaluate(*tiny_model(), asked, generate=Scripted(""), **{**SETTINGS, "verifier": number})


OPENS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{{ '<think>\n' if thinks else '' }}{% endif %}"
)


def test_chat_template_kwargs_reach_the_prompts_and_the_score(rows, monkeypatch):
    model, tokenizer = tiny_model()
    tokenizer.chat_template = OPENS
    prompts = []
    encode = type(tokenizer).__call__
    monkeypatch.setattr(
        type(tokenizer),
        "__call__",
        lambda self, texts, **kw: prompts.extend(texts) or encode(self, texts, **kw),
    )
    limit = {"verifier": number, "max_new_tokens": 2, "batch_size": 3}
    for options, added in ((None, ""), ({"thinks": True}, "<think>\n")):
        prompts.clear()
        evaluate(model, tokenizer, rows, **{**SETTINGS, **limit}, chat_template_kwargs=options)
        greedy_pass_at_1(model, tokenizer, rows, **limit, chat_template_kwargs=options)
        assert len(prompts) == 4 * ROWS and all(text.endswith(f"assistant\n{added}") for text in prompts)

    text = "I write <answer>1</answer> at the end.</think><answer>{}</answer>"
    asked, answer = [{**row, "answer": "9"} for row in rows], Scripted(text.format(9))
    for options, value in ((None, 0.0), ({"thinks": True}, 1.0)):
        result = evaluate(model, tokenizer, asked, **SETTINGS, chat_template_kwargs=options, generate=answer)
        assert (result.greedy.value, result.format_rate["greedy"]) == (value, value)
        assert answer.asked[-1]["chat_template_kwargs"] == options


def test_greedy_pass_at_1_is_the_greedy_half(rows):
    settings = {"verifier": lambda given, gold: True, "max_new_tokens": 12, "batch_size": 3}
    alone = greedy_pass_at_1(*tiny_model(), rows, **settings)
    assert alone == evaluate(*tiny_model(), rows, **settings, samples=1, seed=1).greedy
    with pytest.raises(ValueError, match="needs rows"):
        greedy_pass_at_1(*tiny_model(), [], **settings)


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
    with pytest.raises(ValueError, match="at least one sample"):  # before anything is generated
        evaluate(*tiny_model(), rows, **{**SETTINGS, "samples": 0})


DISTRIBUTED = f"""
import os, sys
from accelerate import PartialState
from tiny import tiny_model
from rl.evaluation import evaluate
from rl.tasks import make_splits
from rl.verifiers import number
state = PartialState(cpu=True)
assert state.num_processes == 2
rows = make_splits("chain_sum", {{"test": {ROWS}}})["test"]
evaluate(*tiny_model(), rows, verifier=number, **{DECODING}).save(f"{{sys.argv[1]}}/{{state.process_index}}.json")
state.destroy_process_group()
"""


@pytest.mark.job
@pytest.mark.timeout(180)
def test_two_processes_give_the_evaluation_of_one(rows, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)
    run_two_processes(script, str(tmp_path), folder=tmp_path)
    alone = evaluate(*tiny_model(), rows, **SETTINGS)
    for rank in (0, 1):
        assert Evaluation.load(tmp_path / f"{rank}.json") == alone
    assert json.loads((tmp_path / "0.json").read_text())["greedy"]["n"] == ROWS


def test_two_problems_of_one_index_are_refused_before_anything_is_generated(rows):
    twice = [*rows, {**rows[2], "question": "Another?", "task": "mine"}]
    with pytest.raises(
        DataError, match=rf"have the index {rows[2]['index']}: .*'Another\?' \(mine\)\. Number"
    ):
        evaluate(*tiny_model(), twice, **SETTINGS, generate=lambda *_, **__: 1 / 0)
