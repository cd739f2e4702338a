"""What the files of a model must hold so that a job can train it. The job asks, and preflight before it; no torch here."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

from rl.templates import special_tags

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MODEL_SOURCES = ("asset", "pypi", "channel", "hub")
ADAPTERS = "adapter_config.json"
_NAME_ON_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")
_SAY_THE_BASE = (
    'Write the model that they were trained on into base_model.json beside them: {"base_model": "hub:ORG/NAME"}, or '
    "with asset:, pypi: or channel:."
)


class AdapterError(Exception):
    """Adapters that cannot be put on a base model; the message says what to write."""


def adapter_base(folder: Path) -> str | None:
    """The spec of the base model that the adapters in a folder belong to; None if there are no adapters.

    base_model.json beside them wins. In adapter_config.json the name may be a spec of the workshop's, as its own jobs
    write it, or a name on the Hub.

    Raises:
        AdapterError: they name no model that a job could load, or are no LoRA adapters of a language model.
    """
    if not (folder / ADAPTERS).is_file():
        return None
    config = _read(folder / ADAPTERS)
    if config.get("peft_type") != "LORA":
        raise AdapterError(
            f"{ADAPTERS} says peft_type {config.get('peft_type')!r}, and only LORA can be merged into a base here: "
            "merge it where it was trained, and bring the whole model."
        )
    if config.get("task_type") not in (None, "CAUSAL_LM"):
        raise AdapterError(
            f"{ADAPTERS} says task_type {config['task_type']!r}, and only adapters of a language model (CAUSAL_LM) can be "
            "merged here: what they bring besides, such as a scoring head, would be lost. Bring the whole model."
        )
    own = folder / "base_model.json"
    base = _read(own).get("base_model") if own.is_file() else config.get("base_model_name_or_path")
    kind, _, name = str(base).partition(":")
    if kind in MODEL_SOURCES and name:
        return str(base)
    if _NAME_ON_HUB.fullmatch(str(base)):
        return f"hub:{base}"
    raise AdapterError(f"The adapters name {base!r} as their base, which no job can load. {_SAY_THE_BASE}")


def circle_problem(spec: str, base: str) -> str:
    """What is wrong where the base of the adapters `spec` is found to be those adapters again."""
    return (
        f"{spec} holds adapters of {base}, which is those adapters again: give their base a channel of its own. "
        f"{_SAY_THE_BASE}"
    )


def _read(path: Path) -> dict:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise AdapterError(f"{path.name} is no JSON file: {error}") from error
    if not isinstance(content, dict):
        raise AdapterError(f"{path.name} is no JSON object.")
    return content


def tokenizer_problems(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Why a model with this tokenizer cannot be trained, each with its cure; empty if nothing is found."""
    if set(tokenizer.get_vocab()) <= set(tokenizer.all_special_tokens):
        return [
            "it has no tokenizer: the files name special tokens alone, so that every text would be empty. Copy "
            "tokenizer.json of its base model beside config.json, or save it with tokenizer.save_pretrained."
        ]
    problems = []
    if not tokenizer.chat_template:
        problems.append(
            "its tokenizer has no chat template, so nobody knows how to put a question to it. Take an instruction-tuned "
            "model, or put the template of a model of its family into chat_template.jinja beside tokenizer.json."
        )
    if tokenizer.eos_token_id is None:
        problems.append(
            "its tokenizer has no end token, so no completion could end. Name the token with which its chat template "
            'ends a turn as "eos_token" in tokenizer_config.json.'
        )
    if tags := special_tags(tokenizer):
        problems.append(
            f"its tokenizer makes {' '.join(tags)} special tokens, whose text is lost when a completion is decoded: "
            'every answer would count as wrong. Set "special": false for them in tokenizer.json (added_tokens) and '
            "tokenizer_config.json, or take another model."
        )
    return problems
