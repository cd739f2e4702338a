"""Ways to take home what QLoRA trained, each saved, loaded again from disk and evaluated: some lose the training.

Runs inside the training container, with the recipe of the train.py job whose result is the channel `model`; by hand:

    SM_CHANNEL_MODEL=out/model SM_CHANNEL_TEST=data/test SM_MODEL_DIR=out/exports SM_OUTPUT_DATA_DIR=out/data \\
    python export.py --config recipes/tiny.yaml

Everything is loaded through transformers and PEFT, as anybody would who gets the files. A saved model is one thing and
a model that still knows what it was taught another, and only an evaluation after the reload tells them apart. Leaves
the exports in model.tar.gz and exports.json among the job's outputs, with the verdict on each problem: all exports answer
the same ones, so they can be compared problem by problem.
"""

import unsloth_first  # noqa: F401  # isort: skip  # before transformers, which cannot be imported beside some torchvisions

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from arguments import SCRIPTS, ExportArguments
from compat.bitsandbytes_on_cpu import disable_inference_repacking
from gguf_file import write_gguf
from job.container import channel, model_dir, output_data_dir, print_line
from job.failure import report_failure
from job.models import ModelNotFound, load_base, load_tokenizer, local_source
from job.quantization import nf4_config
from job.recipe import parse_arguments
from peft import PeftModel
from rl.generation import generate, undisturbed
from rl.rewards import is_right
from rl.tasks import Row, read_rows
from rl.templates import opening
from rl.verifiers import get_verifier
from transformers import AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerBase

GGUF = "model-Q8_0.gguf"


@dataclasses.dataclass(frozen=True)
class Trained:
    """The result of a train.py job: where its adapters lie, and the base they belong to."""

    adapters: Path
    base_model: str
    dtype: str  # of the arithmetic while it was trained
    quantization: str | None
    tokenizer: PreTrainedTokenizerBase

    def on(self, dtype: str, quantization: str | None) -> PeftModel:
        """The adapters on a base of that precision, loaded afresh."""
        base, _ = load_base(self.base_model, dtype, quantization)
        return PeftModel.from_pretrained(base, self.adapters)


def save_adapters(trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """The adapters alone: whoever loads them needs the same base."""
    shutil.copytree(trained.adapters, folder, dirs_exist_ok=True)
    copied = dataclasses.replace(trained, adapters=folder)
    return lambda: copied.on(trained.dtype, trained.quantization)


def save_merged(trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """Merged into the base as it was before it was packed, in 16 bits."""
    return save_whole(trained.on("bfloat16", None).merge_and_unload(), trained, folder)


def save_merged_and_pack_later(trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """The merge in 16 bits, packed in 4 bits by whoever loads it."""
    save_merged(trained, folder)
    packing = nf4_config(getattr(torch, trained.dtype))
    return lambda: reload(folder, quantization_config=packing, dtype=getattr(torch, trained.dtype))


def save_merged_into_4bit(trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """Merged into the packed base, whose sums are rounded to 16 levels again."""
    return save_whole(trained.on(trained.dtype, "nf4").merge_and_unload(), trained, folder)


def save_unmerged(trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """unload() where merge_and_unload() was meant: a healthy model without the training, and no warning."""
    return save_whole(trained.on("bfloat16", None).unload(), trained, folder)


def save_wrapped(trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """The base saved while it wears adapters: the names no longer fit, and a reload puts random weights there."""
    return save_whole(trained.on("bfloat16", None).get_base_model(), trained, folder)


def save_whole(model: PreTrainedModel, trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """Saves model and tokenizer; returns what loads them again."""
    model.save_pretrained(folder)
    trained.tokenizer.save_pretrained(folder)
    return lambda: reload(folder)


def save_gguf(trained: Trained, folder: Path) -> Callable[[], PreTrainedModel]:
    """The merge in 16 bits, written as one file for llama.cpp and Ollama, its matrices in 8 bits."""
    write_gguf(trained.on("bfloat16", None).merge_and_unload(), trained.tokenizer, folder / GGUF)
    return lambda: reload(folder, gguf_file=GGUF)


EXPORTS = {
    "adapters": save_adapters,
    "merged_16bit": save_merged,
    "gguf_q8_0": save_gguf,
    "packed_later": save_merged_and_pack_later,
    "merged_into_4bit": save_merged_into_4bit,
    "unmerged": save_unmerged,
    "wrapped": save_wrapped,
}


def reload(folder: Path, **options: Any) -> PreTrainedModel:
    """What the folder holds, as anybody would load it."""
    model = AutoModelForCausalLM.from_pretrained(folder, **options)
    return disable_inference_repacking(model).to(PartialState().device)


def main() -> None:
    job, _ = parse_arguments(SCRIPTS["export.py"])
    rows, trained = read_rows(channel("test"))[: job.eval_problems], read_result(job)
    untrained, _ = load_base(trained.base_model, job.dtype, job.quantization)
    report: dict[str, Any] = {
        "base_model": trained.base_model,
        "base": {"right": greedy_verdicts(untrained, trained.tokenizer, rows, job)},
        "exports": {},
    }
    for name, save in EXPORTS.items():
        folder = model_dir() / name
        load_again = save(trained, folder)
        right = greedy_verdicts(load_again(), trained.tokenizer, rows, job)
        size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
        report["exports"][name] = {"bytes": size, "right": right, "note": save.__doc__}
        print_line(f"[export] {name}: {size:,} bytes, {sum(right)} of {len(right)} right")
    output_data_dir().mkdir(parents=True, exist_ok=True)
    (output_data_dir() / "exports.json").write_text(json.dumps(report, indent=2) + "\n")


def greedy_verdicts(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, rows: list[Row], job: ExportArguments
) -> list[bool]:
    """Whether the model's greedy answer to each problem is right."""
    verifier, opened = get_verifier(job.verifier), opening(tokenizer, job.chat_template_kwargs)
    prompts, size = [row["prompt"] for row in rows], job.eval_batch_size
    greedy = {"max_new_tokens": job.eval_max_new_tokens, "temperature": 0.0, "seed": 0}
    with undisturbed(model) as bare:
        answers = [
            answer
            for start in range(0, len(rows), size)
            for answer in generate(
                bare,
                tokenizer,
                prompts[start : start + size],
                chat_template_kwargs=job.chat_template_kwargs,
                **greedy,
            )
        ]
    return [
        is_right(answer.text, row["answer"], verifier, opened)
        for answer, row in zip(answers, rows, strict=True)
    ]


def read_result(job: ExportArguments) -> Trained:
    """What an earlier train.py job left in the channel `model`.

    Raises:
        ModelNotFound: the channel holds no such result.
    """
    folder = Path(local_source("channel:model"))
    if not (folder / "adapter" / "adapter_config.json").is_file():
        raise ModelNotFound(
            "The channel 'model' holds a model but no folder 'adapter': give it the model.tar.gz of a train.py job."
        )
    base_model = json.loads((folder / "base_model.json").read_text())["base_model"]
    return Trained(
        folder / "adapter", base_model, job.dtype, job.quantization, load_tokenizer("channel:model")
    )


if __name__ == "__main__":
    with report_failure():
        main()
