"""DPO by TRL alone, as short as its documentation has it: what 01_dpo_trl is measured against.

    python plain_dpo.py RECIPE PAIRS_JSONL VALIDATION_JSONL OUTPUT_FOLDER JSON_OF_CHANGES

The values of DPOConfig are the recipe's, so that model, pairs, seed and steps are the same.
"""

import json
import sys
from pathlib import Path
from typing import Any

import yaml
from datasets import load_dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer

recipe, train, validation, folder, changes = sys.argv[1:]
settings = yaml.safe_load(Path(recipe).read_text()) | json.loads(changes)
model = Path(__file__).parents[1] / "assets" / settings["base_model"].removeprefix("asset:")
fields: dict[str, Any] = {"output_dir": folder} | {
    name: value for name, value in settings.items() if name in DPOConfig.__dataclass_fields__
}
files = {"train": train, "validation": validation}
pairs = load_dataset("json", data_files=files, cache_dir=f"{folder}/cache")
trainer = DPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(model),
    args=DPOConfig(**fields),
    train_dataset=pairs["train"],
    eval_dataset=pairs["validation"],
    processing_class=AutoTokenizer.from_pretrained(model),
)
trainer.train()
