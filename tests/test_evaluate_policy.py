"""Forced thinking: what each completion begins with, what it cannot begin with, and 02's evaluate_policy.py."""

import json

import pytest
import torch
from harness import ROOT, ScriptJob
from job.models import load_base
from job.recipe import RecipeError, parse_arguments
from preflight_findings import request_of
from rl.evaluation import Evaluation, evaluate
from rl.generation import closing_tokens, generate
from rl.tasks import make_splits, write_splits
from rl.verifiers import number
from tiny import tiny_model, tiny_tokenizer
from workshop.checks.base_checks import check_base_evaluation
from workshop.checks.request import OK, read_script

SCRIPTS = ROOT / "02_grpo_trl_accelerate" / "scripts"
SETTINGS = {"verifier": number, "samples": 2, "max_new_tokens": 96, "batch_size": 40, "seed": 42}
PROMPTS = [row["prompt"] for row in make_splits("chain_sum", {"test": 16})["test"]]


@pytest.fixture(scope="module")
def rows():
    return make_splits("chain_sum", {"train": 40, "test": 40})["test"]


def thinking(text: str) -> str:
    """What stands between the tags; empty where there is none."""
    return text.partition("<think>")[2].partition("</think>")[0].strip()


def test_with_the_prefill_the_base_thinks_in_every_completion_and_is_mostly_right(rows):
    base, tokenizer = load_base("asset:tiny")
    free = evaluate(base, tokenizer, rows, **SETTINGS)
    forced = evaluate(base, tokenizer, rows, **SETTINGS, prefill="<think>")
    assert all(item["completion"].startswith("<think>") for item in forced.completions)
    assert all(thinking(item["completion"]) for item in forced.completions)
    assert not all(thinking(item["completion"]) for item in free.completions)
    # 300 problems have given 0.107 and 0.385 without it, 0.997 and 0.992 with it.
    assert free.greedy.value < 0.3 and free.sampled.value < 0.6
    assert forced.greedy.value > 0.9 and forced.sampled.value > 0.9
    assert forced.format_rate == {"greedy": 1.0, "sampled": 1.0}, "the prefill is lost to the verdict"


@pytest.fixture
def closes_at_once():
    """A random model that mostly writes `<` or ends: a larger embedding is a larger output weight too."""
    model, tokenizer = tiny_model()
    with torch.no_grad():
        for token in (tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<")):
            model.model.embed_tokens.weight[token] *= 30
    return model, tokenizer


def first_letters(model, tokenizer, prefill: str, **options) -> list[str]:
    limits = {"max_new_tokens": 30, "temperature": 1.0, "seed": 0, **options}
    found = generate(model, tokenizer, PROMPTS, prefill=prefill, **limits)
    assert all(item.text.startswith(prefill) for item in found)
    return [item.text.removeprefix(prefill)[:1].strip() for item in found]


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_thinking_that_was_opened_cannot_be_closed_at_once(closes_at_once, temperature):
    """A prefill that opens no thinking forbids nothing, so that this model shows what it would have done."""
    assert {"", "<"} & set(first_letters(*closes_at_once, "<thinks>", temperature=temperature))
    assert not {"", "<"} & set(first_letters(*closes_at_once, "<think>", temperature=temperature))
    assert not {"", "<"} & set(first_letters(*closes_at_once, "<think>\n", temperature=temperature))


def test_which_tokens_close_depends_on_the_tokenizer():
    letters = tiny_tokenizer()
    assert letters.decode(closing_tokens(letters)[:4]) == "<|endoftext|><|im_start|><|im_end|><"
    before = set(closing_tokens(letters))
    letters.add_tokens(["</think>", "</", "\n\n", "<answer>", "><", "-", "</s"])
    added = [letters.convert_ids_to_tokens(token) for token in closing_tokens(letters) if token not in before]
    assert added == ["</think>", "</", "\n\n", "</s"]
    _, tokenizer = load_base("asset:tiny")
    tokens = tokenizer.convert_ids_to_tokens(closing_tokens(tokenizer))
    assert {"<", "</", "<|im_end|>", "<|endoftext|>"} <= set(tokens)
    assert not {*"0123456789-", "></", ">"} & set(tokens)  # thoughts begin with the first four kinds


def test_the_prefill_counts_in_the_length_and_in_its_limit():
    model, tokenizer = tiny_model()
    (item,) = generate(
        model, tokenizer, PROMPTS[:1], max_new_tokens=10, temperature=0.0, seed=0, prefill="<think>"
    )
    assert (item.tokens, item.cut_off) == (10, True)  # a token for each letter of the prefill, and 3 more
    assert len(item.text.removeprefix("<think>")) <= 3
    with pytest.raises(
        ValueError, match=r"'<think>' has 7 tokens, and a completion may have 7: nothing is left"
    ):
        generate(model, tokenizer, PROMPTS, max_new_tokens=7, temperature=0.0, seed=0, prefill="<think>")


def test_without_a_prefill_nothing_changes_and_an_own_generate_is_not_asked_for_one(rows):
    given = []

    def spied(*positional, **options):
        given.append(options)
        return generate(*positional, **options)

    model, tokenizer = tiny_model()
    short = {**SETTINGS, "max_new_tokens": 12, "samples": 1}
    plain = evaluate(model, tokenizer, rows, **short)
    assert evaluate(model, tokenizer, rows, **short, generate=spied) == plain
    assert all("prefill" not in options for options in given)
    given.clear()
    evaluate(model, tokenizer, rows, **short, generate=spied, prefill="<")
    assert {options["prefill"] for options in given} == {"<"}


def test_it_reads_the_recipes_of_the_training_and_refuses_what_only_training_reads():
    script = read_script(SCRIPTS, "evaluate_policy.py")
    job, config = parse_arguments(script, ["--config", str(SCRIPTS / "recipes" / "tiny.yaml")])
    assert config is None
    assert (job.eval_problems, job.eval_max_new_tokens, job.seed, job.prefill) == (300, 96, 42, "")
    assert job.report_to == ["mlflow", "wandb"]
    with pytest.raises(RecipeError, match="'learning_rate' is for another script"):
        parse_arguments(script, ["--learning_rate", "1e-3"])


@pytest.mark.job
@pytest.mark.timeout(400)
def test_a_job_leaves_the_evaluation_of_the_model_in_its_channel(tmp_path):
    """On two processes, of a model that an earlier job could have saved."""
    problems = make_splits("chain_sum", {"train": 20, "test": 20})
    data = write_splits(problems, tmp_path / "data")
    channels = {"test": data["test"], "model": ROOT / "scripts" / "assets" / "tiny"}
    few = {"eval_samples": 1, "eval_batch_size": 10, "base_model": "channel:model", "report_to": "mlflow"}
    job = ScriptJob(SCRIPTS / "evaluate_policy.py", tmp_path / "job", channels, few)
    job.run(
        processes=2, prefill="<think>", environment={"MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/runs.db"}
    )

    found = Evaluation.load(job.output / "evaluation_before.json")
    assert not (job.output / "evaluation_after.json").exists()
    assert all(thinking(item["completion"]) for item in found.completions)
    expected = {**SETTINGS, "samples": 1, "batch_size": 10, "prefill": "<think>"}
    assert found == evaluate(*load_base("asset:tiny"), problems["test"], **expected)

    record = job.output_json("summary.json")
    assert (record["steps"], record["processes"], record["base_model"]) == (0, 2, "channel:model")
    assert record["base"]["sampled"] == json.loads(json.dumps(vars(found.sampled)))
    assert "trained" not in record
    assert not list(job.model.glob("*")), "nothing was trained, so there is no model to save"

    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/runs.db")
    (run,) = client.search_runs([client.get_experiment_by_name("rl-workshop").experiment_id])
    assert run.info.status == "FINISHED" and run.data.params["job.prefill"] == "<think>"
    assert run.data.metrics["before/pass_at_1_greedy"] == found.greedy.value


@pytest.mark.job
@pytest.mark.timeout(400)
def test_a_training_takes_the_evaluation_of_its_base_from_a_channel(tmp_path):
    """From a job that measured the base alone; another verdict, model or decoding is refused, and says what differs."""
    problems = make_splits("chain_sum", {"train": 20, "test": 20})
    channels = dict(write_splits(problems, tmp_path / "data"))
    few = {"eval_samples": 1, "eval_batch_size": 10, "report_to": "none"}
    measured = ScriptJob(SCRIPTS / "evaluate_policy.py", tmp_path / "base", {"test": channels["test"]}, few)
    measured.run()
    base = Evaluation.load(measured.output / "evaluation_before.json")
    recipe = {"base_model": "asset:tiny", "verifier": "number", "eval_samples": 1, "eval_max_new_tokens": 96}
    [check] = check_base_evaluation(request_of({"base": measured.output}), recipe)
    assert check.status == OK, check.detail

    few |= {"max_steps": 1, "per_device_train_batch_size": 8}
    job = ScriptJob(SCRIPTS / "train.py", tmp_path / "job", {**channels, "base": measured.output}, few)
    job.run()
    assert Evaluation.load(job.output / "evaluation_before.json") == base
    assert "that of the channel base, not made again" in job.log
    summary = job.output_json("summary.json")
    assert set(summary["phases_seconds"]) == {"train", "evaluate_after"}
    assert summary["base"]["greedy"]["value"] == base.greedy.value

    job = ScriptJob(SCRIPTS / "train.py", tmp_path / "other", {**channels, "base": measured.output}, few)
    job.run(fails=True, eval_problems=10, verifier="exact")
    said = job.failure.read_text()
    assert "problems: 20 (" in said and "there, 10 (" in said and "verifier: number there, exact here" in said
    assert "Leave the channel out" in said
