"""One line of measure.py: memory, time and loss of a model in one precision, in a process that does nothing else.

The model comes from train.py's own `load_policy`, so that what is measured is what is trained: by Unsloth, in all three
precisions.
"""

from train import load_policy  # isort: skip  # first of all, since it loads Unsloth

import dataclasses
from typing import Any

import torch
from arguments import SCRIPTS, AdapterArguments
from job.arguments import LoraArguments
from job.container import channel, print_line
from job.models import load_tokenizer
from job.quantization import QuantizationError, frozen_weights
from job.recipe import parse_arguments
from job.sharding import held_bytes
from job.summary import peak_rss, versions
from peft import PeftModel
from rl.tasks import Row, read_rows
from step_timing import time_steps
from transformers import PreTrainedTokenizerBase

PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "float32", "quantization": None},
    "bf16": {"dtype": "bfloat16", "quantization": None},
    # What is not packed, and the arithmetic, is bfloat16.
    "nf4": {"dtype": "bfloat16", "quantization": "nf4"},
}
TOKENS = 64  # of each sequence; longer ones are cut

Batch = dict[str, torch.Tensor]


def measure(precision: str, arguments: list[str]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is the same in every precision (model, batch, versions), and what was measured in this one."""
    job, config = parse_arguments(SCRIPTS["measure.py"], arguments)
    own = {field.name: getattr(job, field.name) for field in dataclasses.fields(LoraArguments)}
    measured_policy = AdapterArguments(base_model=job.base_model, **own, **PRECISIONS[precision])
    config.use_vllm = False  # training is measured; vLLM would take its own share of the memory
    rows, tokenizer = read_rows(channel("test")), load_tokenizer(job.base_model)
    peak = {"imported": peak_bytes()}

    policy = load_policy(measured_policy, config)
    peak["loaded"] = peak_bytes()
    parameters, weights = frozen_weights(policy)
    if measured_policy.quantization and weights >= 2 * parameters:
        # Unsloth says so in a line of the log and goes on in 16 bits.
        raise QuantizationError(
            f"{job.base_model} was not loaded in 4 bits: bitsandbytes does not work here."
        )

    batch = fixed_batch(tokenizer, rows[: config.per_device_train_batch_size], policy.device)
    with torch.no_grad():
        loss = policy(**batch).loss.item()
    step_seconds, timed, states = train(policy, batch)
    peak["trained"] = peak_bytes()

    about = {
        "base_model": job.base_model,
        "parameters": parameters,
        "lora_rank": job.lora_rank,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "batch": list(batch["input_ids"].shape),
        "versions": versions(),
    }
    measured = {
        "weights_bytes": weights,
        "state_bytes": states,
        "peak_bytes": peak,
        "step_seconds": step_seconds,
        "timed_steps": timed,
        "loss": loss,
    }
    print_line(
        f"[measure] {precision}: {weights / 1e6:.2f} MB of weights, {step_seconds:.3f} s a step, loss {loss:.3f}"
    )
    return about, measured


def fixed_batch(tokenizer: PreTrainedTokenizerBase, rows: list[Row], device: torch.device) -> Batch:
    """Problems with their answers, the same in every precision; padding is no target.

    Returns:
        input_ids, attention_mask and labels, each of shape (rows, tokens), with at most TOKENS tokens.
    """
    texts = [
        tokenizer.apply_chat_template(
            [*row["prompt"], {"role": "assistant", "content": f"<answer>{row['answer']}</answer>"}],
            tokenize=False,
        )
        for row in rows
    ]
    batch = tokenizer(
        texts,
        return_tensors="pt",
        padding=True,
        padding_side="right",
        truncation=True,
        max_length=TOKENS,
        add_special_tokens=False,
    )
    batch["labels"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
    return {key: batch[key].to(device) for key in ("input_ids", "attention_mask", "labels")}


def train(policy: PeftModel, batch: Batch) -> tuple[float, int, dict[str, int]]:
    """Seconds of a training step, how many were timed (step_timing.time_steps), and the bytes that adapters, gradients
    and optimizer take."""
    adapters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(adapters, lr=1e-4)
    policy.train()

    def step() -> None:
        optimizer.zero_grad()
        policy(**batch).loss.backward()
        optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()

    seconds, timed = time_steps(step)
    held = held_bytes(policy, optimizer)
    states = {"adapters": sum(parameter.nbytes for parameter in adapters)}
    return seconds, timed, states | {key: held[key] for key in ("gradients", "optimizer")}


def peak_bytes() -> int:
    """Most memory held so far: of the GPU if there is one, else of this process."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else int(peak_rss() * 2**20)
