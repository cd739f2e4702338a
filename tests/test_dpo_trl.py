"""01_dpo_trl: its recipes, and train.py really run in short: loss by hand, resume, adapters, sharded and not."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rl.preferences import write_pairs
from rl.recipe import JobArguments, parse_arguments, read_recipe
from rl.tasks import make_splits, write_splits
from safetensors.torch import load_file
from trl import DPOConfig

SCRIPTS = Path(__file__).parents[1] / "01_dpo_trl" / "scripts"
SHARED = Path(__file__).parents[1] / "scripts"
ON_CPU = ["--use_cpu", "true", "--bf16", "false"]  # transformers refuses bf16 where no device has it
STEPS = 4
QUICK = [f"--max_steps={STEPS}", "--save_steps=2", "--eval_steps=4", "--eval_problems=8", "--eval_samples=1"]
QUICK += ["--report_to=none", "--per_device_train_batch_size=4", "--eval_on_start=false"]
SIGMOID = ['--loss_type=["sigmoid"]', "--loss_weights=[1.0]"]
ALONE = ["--fsdp=null", "--fsdp_config=null"]


@pytest.mark.parametrize("name", ["tiny", "small", "full"])
def test_recipe_fits_the_pinned_trl(name, tmp_path):
    arguments = ["--config", str(SCRIPTS / f"recipes/{name}.yaml"), "--output_dir", str(tmp_path), *ON_CPU]
    job, config = parse_arguments((JobArguments, DPOConfig), arguments)
    assert (job.module, job.recipe) == ("01_dpo_trl", name)
    assert len(config.loss_weights) == len(config.loss_type)
    assert config.precompute_ref_log_probs
    assert not (config.gradient_checkpointing and config.fsdp), "FSDP has its own"


def test_recipes_have_the_same_shape():
    """A recipe is the only thing that changes between laptop and cluster: the core keys are in each."""
    core = set(read_recipe(SCRIPTS / "recipes/tiny.yaml"))
    for name in ("small", "full"):
        assert core - {"max_steps"} <= set(read_recipe(SCRIPTS / f"recipes/{name}.yaml"))


def test_requirements_are_those_of_02():
    """So that both modules' jobs share one environment in local mode."""
    other = SCRIPTS.parents[1] / "02_grpo_trl_accelerate" / "scripts"
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


def train(data: Path, out: Path, *settings: str, processes: int = 1) -> None:
    """train.py under torchrun, in folders as SageMaker would give it."""
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(SHARED),
        "SM_CHANNEL_TRAIN": str(data / "pairs"),
        "SM_CHANNEL_VALIDATION": str(data / "validation"),
        "SM_CHANNEL_TEST": str(data / "test"),
        "SM_MODEL_DIR": str(out / "model"),
        "SM_OUTPUT_DATA_DIR": str(out / "data"),
        "SM_CHECKPOINT_DIR": str(out / "checkpoints"),
        "SM_OUTPUT_FAILURE": str(out / "failure"),
        "HF_DATASETS_CACHE": str(out / "cache"),
    }
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        str(processes),
    ]
    command += ["train.py", "--config", "recipes/tiny.yaml", *QUICK, *settings]
    done = subprocess.run(command, cwd=SCRIPTS, env=environment, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-5000:]


def history(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "data" / "history.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def plain(data, tmp_path_factory) -> Path:
    """A run of one process with the DPO loss alone."""
    out = tmp_path_factory.mktemp("plain")
    train(data, out, *ALONE, *SIGMOID, "--per_device_train_batch_size=8")
    return out


def test_the_loss_by_hand_is_the_librarys(plain):
    """Rafailov et al. 2023, equation 7, from the log-probabilities of the tokens."""
    kept = json.loads((plain / "data" / "pair_log_probs.json").read_text())
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


def test_accuracy_is_measured_beside_the_margin(plain):
    measured = [entry for entry in history(plain) if "eval_pass_at_1" in entry]
    assert [entry["step"] for entry in measured] == [STEPS]
    assert 0 <= measured[0]["eval_pass_at_1"] <= 1
    kept = json.loads((plain / "data" / "pair_log_probs.json").read_text())["trained"]
    assert measured[0]["eval_loss"] == pytest.approx(sum(pair["loss"] for pair in kept) / len(kept), abs=1e-3)


@pytest.fixture(scope="module")
def sharded(data, tmp_path_factory) -> Path:
    """The same run over two processes, under FSDP2."""
    out = tmp_path_factory.mktemp("sharded")
    train(data, out, *SIGMOID, processes=2)
    return out


@pytest.mark.parametrize("layout", ["plain", "sharded"])
def test_a_job_that_was_interrupted_ends_with_the_same_weights(layout, data, tmp_path, request):
    uninterrupted = request.getfixturevalue(layout)
    shutil.copytree(uninterrupted / "checkpoints", tmp_path / "checkpoints")
    shutil.rmtree(tmp_path / "checkpoints" / f"checkpoint-{STEPS}")
    if layout == "plain":
        train(data, tmp_path, *ALONE, *SIGMOID, "--per_device_train_batch_size=8")
    else:
        train(data, tmp_path, *SIGMOID, processes=2)
    resumed, whole = (load_file(out / "model" / "model.safetensors") for out in (tmp_path, uninterrupted))
    assert all(torch.equal(resumed[name], whole[name]) for name in whole)
    steps = [entry["step"] for entry in history(tmp_path) if "loss" in entry]
    assert steps == list(range(1, STEPS + 1))


def test_sharded_over_two_processes_it_is_the_same_training(plain, sharded):
    for key, tolerance in (("loss", 1e-4), ("logps/chosen", 1e-2), ("rewards/margins", 1e-3)):
        one, two = ([entry[key] for entry in history(out) if key in entry] for out in (plain, sharded))
        assert two == pytest.approx(one, abs=tolerance)
    in_parts, whole = (load_file(out / "model" / "model.safetensors") for out in (sharded, plain))
    assert all(torch.allclose(in_parts[name], whole[name], atol=1e-3) for name in whole)


def test_adapters_are_saved_alone_and_merged(data, tmp_path):
    from peft import PeftModel
    from rl.models import load_base
    from transformers import AutoModelForCausalLM

    train(data, tmp_path, *ALONE, "--lora_rank=8", "--learning_rate=5e-3")
    base, tokenizer = load_base("asset:tiny")
    inputs = tokenizer("2 + 6 - 0 + 1 =", return_tensors="pt")
    with torch.no_grad():
        before = base(**inputs).logits
        adapted = PeftModel.from_pretrained(base, tmp_path / "model" / "adapter")(**inputs).logits
        merged = AutoModelForCausalLM.from_pretrained(tmp_path / "model")(**inputs).logits
    assert not torch.allclose(before, merged, atol=1e-3), "nothing was learned"
    assert torch.allclose(adapted, merged, atol=1e-4)


def test_adapters_on_a_base_in_four_bits(data, tmp_path):
    """QLoRA: two processes, sharded; the packed base does not move, the adapters do."""
    pytest.importorskip("bitsandbytes")
    from peft import PeftModel
    from rl.models import load_base

    train(data, tmp_path, "--lora_rank=8", "--learning_rate=5e-3", "--quantization=nf4", processes=2)
    base, tokenizer = load_base("asset:tiny", quantization="nf4")
    inputs = tokenizer("2 + 6 - 0 + 1 =", return_tensors="pt")
    with torch.no_grad():
        before = base(**inputs).logits
        after = PeftModel.from_pretrained(base, tmp_path / "model" / "adapter")(**inputs).logits
    assert not torch.allclose(before, after, atol=1e-3), "nothing was learned"
    margins = [entry["rewards/margins"] for entry in history(tmp_path) if "rewards/margins" in entry]
    assert margins[0] == pytest.approx(0, abs=1e-3) and margins[-1] > 0
    assert (tmp_path / "model" / "model.safetensors").is_file()  # merged
