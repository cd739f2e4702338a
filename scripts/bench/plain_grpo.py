"""GRPO by TRL alone, as short as its documentation has it: what 02_grpo_trl_accelerate is measured against.

    python plain_grpo.py RECIPE TRAIN_JSONL OUTPUT_FOLDER JSON_OF_CHANGES

The values of GRPOConfig are the recipe's, so that model, data, seed and steps are the same.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

recipe, data, folder, changes = sys.argv[1:]
settings = yaml.safe_load(Path(recipe).read_text()) | json.loads(changes)
model = Path(__file__).parents[1] / "assets" / settings["base_model"].removeprefix("asset:")


def text(completion) -> str:
    return completion[0]["content"]


def accuracy(completions, answer, **_) -> list[float]:
    """1 for the right number between the tags."""
    found = [re.search(r"<answer>\s*(-?\d+)\s*</answer>", text(completion)) for completion in completions]
    return [
        float(bool(match) and int(match[1]) == int(right)) for match, right in zip(found, answer, strict=True)
    ]


def form(completions, **_) -> list[float]:
    """1 for thinking and an answer in their tags."""
    pattern = re.compile(r"\s*<think>.*</think>\s*<answer>.*</answer>\s*", re.DOTALL)
    return [float(bool(pattern.fullmatch(text(completion)))) for completion in completions]


fields: dict[str, Any] = {"output_dir": folder} | {
    name: value for name, value in settings.items() if name in GRPOConfig.__dataclass_fields__
}
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(model),
    reward_funcs=[accuracy, form],
    args=GRPOConfig(**fields),
    train_dataset=load_dataset("json", data_files=data, split="train", cache_dir=f"{folder}/cache"),
    processing_class=AutoTokenizer.from_pretrained(model),
)
trainer.train()
