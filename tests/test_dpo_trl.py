"""01_dpo_trl: its recipes, and train.py really run in short: loss by hand, resume, adapters, sharded and not."""

import math
import os
import shutil
from pathlib import Path

import pytest
import torch
from harness import ROOT, ScriptJob
from job.recipe import parse_arguments, read_recipe
from rl.answers import extract_answer
from rl.preferences import read_pairs, write_pairs
from rl.tasks import make_splits, write_splits
from safetensors.torch import load_file
from workshop.checks.request import read_script

SCRIPTS = ROOT / "01_dpo_trl" / "scripts"
ON_CPU = ["--use_cpu", "true", "--bf16", "false"]  # transformers refuses bf16 where no device has it
STEPS = 4
QUICK = {
    "max_steps": STEPS,
    "save_steps": 2,
    "eval_steps": 4,
    "eval_problems": 8,
    "eval_samples": 1,
    "report_to": "none",
    "per_device_train_batch_size": 4,
    "eval_on_start": False,
}
SIGMOID = {"loss_type": ["sigmoid"], "loss_weights": [1.0]}
ALONE = {"processes": 1, "fsdp": None, "fsdp_config": None}


@pytest.mark.parametrize("name", ["tiny", "smoke", "smoke_gpu", "small", "full"])
def test_recipe_fits_the_pinned_trl(name, tmp_path):
    arguments = ["--config", str(SCRIPTS / f"recipes/{name}.yaml"), "--output_dir", str(tmp_path), *ON_CPU]
    job, config = parse_arguments(read_script(SCRIPTS, "train.py"), arguments)
    assert (job.module, job.recipe) == ("01_dpo_trl", name)
    assert len(config.loss_weights) == len(config.loss_type)
    assert config.precompute_ref_log_probs
    assert not (config.gradient_checkpointing and config.fsdp), "FSDP has its own"


def test_recipes_have_the_same_shape():
    """A recipe is the only thing that changes between laptop and cluster: the core keys are in each."""
    core = set(read_recipe(SCRIPTS / "recipes/tiny.yaml"))
    for name in ("smoke", "smoke_gpu", "small", "full"):
        assert core - {"max_steps"} <= set(read_recipe(SCRIPTS / f"recipes/{name}.yaml"))


def test_requirements_are_those_of_02():
    """So that both modules' jobs share one environment in local mode."""
    other = ROOT / "02_grpo_trl_accelerate" / "scripts"
    assert (SCRIPTS / "requirements.txt").read_text() == (other / "requirements.txt").read_text()


def answer(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    """Channels of a few pairs: the right sum written down step by step, and a wrong one."""
    folder = tmp_path_factory.mktemp("data")
    splits = make_splits("chain_sum", {"train": 24, "test": 8})
    write_splits(splits, folder)
    pairs = [
        row
        | {
            "chosen": answer(f"<think>{row['question'][-9:]}</think><answer>{row['answer']}</answer>"),
            "rejected": answer("<think></think><answer>99</answer>"),
        }
        for row in splits["train"]
    ]
    write_pairs(pairs[:16], folder / "pairs" / "train.jsonl")
    write_pairs(pairs[16:], folder / "validation" / "validation.jsonl")
    return folder


def of_01(folder: Path, data: Path) -> ScriptJob:
    """A short job of 01's script."""
    channels = {"train": data / "pairs", "validation": data / "validation", "test": data / "test"}
    return ScriptJob(SCRIPTS / "train.py", folder, channels, QUICK, timeout=900)


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> ScriptJob:
    """A run of one process with the DPO loss alone."""
    job = of_01(tmp_path_factory.mktemp("plain"), data)
    return job.run(**ALONE, **SIGMOID, per_device_train_batch_size=8)


@pytest.mark.job
def test_the_loss_by_hand_is_the_librarys(plain):
    """Rafailov et al. 2023, equation 7, from the log-probabilities of the tokens."""
    kept = plain.output_json("pair_log_probs.json")
    assert len(kept["reference"]) == len(kept["trained"]) == 8
    for reference, trained in zip(kept["reference"], kept["trained"], strict=True):
        ratio = {
            side: sum(trained[side]["log_probs"]) - sum(reference[side]["log_probs"])
            for side in ("chosen", "rejected")
        }
        margin = kept["beta"] * (ratio["chosen"] - ratio["rejected"])
        assert margin != 0
        assert trained["loss"] == pytest.approx(math.log1p(math.exp(-margin)), abs=1e-4)
        assert reference["loss"] == pytest.approx(math.log(2), abs=1e-4)
        assert sum(reference["chosen"]["log_probs"]) == pytest.approx(reference["reference_chosen"], abs=1e-3)
        assert reference["chosen"]["tokens"][-1] == "<|im_end|>"


@pytest.mark.job
def test_accuracy_is_measured_beside_the_margin(plain):
    measured = [entry for entry in plain.history() if "eval_pass_at_1" in entry]
    assert [entry["step"] for entry in measured] == [STEPS]
    assert 0 <= measured[0]["eval_pass_at_1"] <= 1
    kept = plain.output_json("pair_log_probs.json")["trained"]
    assert measured[0]["eval_loss"] == pytest.approx(sum(pair["loss"] for pair in kept) / len(kept), abs=1e-3)


@pytest.fixture(scope="module")
def sharded(data, tmp_path_factory) -> ScriptJob:
    """The same run over two processes, under FSDP2, by torchrun."""
    return of_01(tmp_path_factory.mktemp("sharded"), data).run(processes=2, torchrun=True, **SIGMOID)


@pytest.mark.job
@pytest.mark.parametrize("layout", ["plain", "sharded"])
def test_a_job_that_was_interrupted_ends_with_the_same_weights(layout, data, tmp_path, request):
    uninterrupted = request.getfixturevalue(layout)
    resumed = of_01(tmp_path, data)
    shutil.copytree(uninterrupted.checkpoints, resumed.checkpoints)
    shutil.rmtree(resumed.checkpoints / f"checkpoint-{STEPS}")
    if layout == "plain":
        resumed.run(**ALONE, **SIGMOID, per_device_train_batch_size=8)
    else:
        resumed.run(processes=2, **SIGMOID)
    assert resumed.weights() == uninterrupted.weights()
    steps = [entry["step"] for entry in resumed.history() if "loss" in entry]
    assert steps == list(range(1, STEPS + 1))
    counted = [
        [entry["num_tokens"] for entry in job.history() if "loss" in entry]
        for job in (resumed, uninterrupted)
    ]
    assert counted[0] == counted[1] and counted[0] == sorted(set(counted[0]))


@pytest.mark.job
@pytest.mark.timeout(900)
def test_a_job_restarted_after_its_last_step_trains_nothing(sharded, data, tmp_path):
    again = of_01(tmp_path, data)
    shutil.copytree(sharded.checkpoints, again.checkpoints)
    again.run(processes=2, **SIGMOID)
    assert "does not say which" not in again.log, "the checkpoint lacks a part of what it was made of"
    assert again.weights() == sharded.weights()
    assert again.steps() == [] and "nothing is left to train" in again.log
    evaluations = [job.output_json("evaluation_after.json")["greedy"] for job in (sharded, again)]
    assert evaluations[0] == evaluations[1]
    losses = [
        [pair["loss"] for pair in job.output_json("pair_log_probs.json")["trained"]]
        for job in (sharded, again)
    ]
    assert losses[0] == pytest.approx(losses[1], abs=1e-6)


@pytest.mark.job
def test_sharded_over_two_processes_it_is_the_same_training(plain, sharded):
    for key, tolerance in (("loss", 1e-4), ("logps/chosen", 1e-2), ("rewards/margins", 1e-3)):
        one, two = ([entry[key] for entry in job.history() if key in entry] for job in (plain, sharded))
        assert two == pytest.approx(one, abs=tolerance)
    in_parts, whole = (load_file(job.model / "model.safetensors") for job in (sharded, plain))
    assert all(torch.allclose(in_parts[name], whole[name], atol=1e-3) for name in whole)


@pytest.mark.job
def test_adapters_are_saved_alone_and_merged(data, tmp_path):
    from job.models import load_base
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    job = of_01(tmp_path, data).run(**ALONE, lora_rank=8, learning_rate=5e-3)
    base, tokenizer = load_base("asset:tiny")
    inputs = tokenizer("2 + 6 - 0 + 1 =", return_tensors="pt")
    with torch.no_grad():
        before = base(**inputs).logits
        adapted = PeftModel.from_pretrained(base, job.model / "adapter")(**inputs).logits
        merged = AutoModelForCausalLM.from_pretrained(job.model)(**inputs).logits
    assert not torch.allclose(before, merged, atol=1e-3), "nothing was learned"
    assert torch.allclose(adapted, merged, atol=1e-4)


@pytest.mark.job
def test_adapters_on_a_base_in_four_bits(data, tmp_path):
    """QLoRA: two processes, sharded; the packed base does not move, the adapters do."""
    pytest.importorskip("bitsandbytes")
    from job.models import load_base
    from peft import PeftModel

    job = of_01(tmp_path, data)
    job.run(processes=2, lora_rank=8, learning_rate=5e-3, quantization="nf4")
    base, tokenizer = load_base("asset:tiny", quantization="nf4")
    inputs = tokenizer("2 + 6 - 0 + 1 =", return_tensors="pt")
    with torch.no_grad():
        before = base(**inputs).logits
        after = PeftModel.from_pretrained(base, job.model / "adapter")(**inputs).logits
    assert not torch.allclose(before, after, atol=1e-3), "nothing was learned"
    margins = [entry["rewards/margins"] for entry in job.history() if "rewards/margins" in entry]
    assert margins[0] == pytest.approx(0, abs=1e-3) and margins[-1] > 0
    assert (job.model / "model.safetensors").is_file()  # merged


OWN_CODE = """
def same_word(given: str, gold: str) -> bool:
    return given.strip(" .").lower() == gold.lower()


def is_even(given: str, gold: str) -> bool:
    return given.isdigit() and int(given) % 2 == 0 or given == gold
"""
WORDS = {"hot": "Cold", "wet": "Dry", "old": "New"}


@pytest.fixture
def own_code(tmp_path) -> dict[str, str]:
    """my_task.py where Python finds it, as beside train.py."""
    folder = tmp_path / "own"
    folder.mkdir()
    (folder / "my_task.py").write_text(OWN_CODE)
    return {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "scripts")])}


@pytest.mark.job
@pytest.mark.timeout(900)
def test_a_task_of_words_is_learned_by_its_own_verdict(own_code, tmp_path):
    """Answers in lower case with a full stop: no verifier of ours but one's own takes them for the words asked for."""
    ask = "The opposite of {}, please. Number {}."
    rows = [
        {
            "prompt": [{"role": "user", "content": ask.format(word, number)}],
            "question": ask.format(word, number),
        }
        | {"answer": opposite, "task": "words", "split": "train", "index": number}
        for number, (word, opposite) in enumerate(list(WORDS.items()) * 24)
    ]
    pairs = [
        row
        | {
            "chosen": answer(f"<think></think><answer>{row['answer'].lower()}.</answer>"),
            "rejected": answer("<think></think><answer>7</answer>"),
        }
        for row in rows[:60]
    ]
    write_pairs(pairs[:48], tmp_path / "train" / "pairs.jsonl")
    write_pairs(pairs[48:], tmp_path / "validation" / "pairs.jsonl")
    write_splits({"test": rows[60:]}, tmp_path)
    channels = {name: tmp_path / name for name in ("train", "validation", "test")}
    job = ScriptJob(SCRIPTS / "train.py", tmp_path, channels, QUICK, timeout=900)
    job.run(
        **ALONE,
        environment=own_code,
        verifier="my_task.same_word",
        max_steps=80,
        eval_steps=80,
        save_steps=80,
        eval_problems=12,
        eval_max_new_tokens=24,
        per_device_train_batch_size=24,
        learning_rate=3e-3,
    )
    before, after = (job.output_json(f"evaluation_{when}.json") for when in ("before", "after"))
    assert before["greedy"]["value"] == 0 and after["greedy"]["value"] > 0.3
    for item in after["completions"]:
        said = (item["extracted"] or "").strip(" .").lower()
        assert item["correct"] == (said == item["answer"].lower())
    measured = [entry["eval_pass_at_1"] for entry in job.history() if "eval_pass_at_1" in entry]
    assert measured[-1] == after["greedy"]["value"]


@pytest.mark.job
@pytest.mark.timeout(900)
def test_pairs_are_made_by_ones_own_verdict(own_code, tmp_path):
    write_splits(make_splits("chain_sum", {"problems": 40}), tmp_path)
    job = ScriptJob(SCRIPTS / "pairs_sampled.py", tmp_path, {"problems": tmp_path / "problems"}, timeout=900)
    job.run(environment=own_code, verifier="my_task.is_even", pair_samples=8)
    pairs = read_pairs(job.output / "pairs.jsonl")
    golds = 0
    for pair in pairs:
        given = {side: extract_answer(pair[side][0]["content"]) for side in ("chosen", "rejected")}
        verdict = {
            side: text is not None and (text.isdigit() and int(text) % 2 == 0 or text == pair["answer"])
            for side, text in given.items()
        }
        assert verdict == {"chosen": True, "rejected": False}
        golds += given["chosen"] == pair["answer"]
    assert golds < len(pairs), "every chosen answer is the number asked for: another verdict was used"
