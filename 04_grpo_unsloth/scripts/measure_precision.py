"""One line of measure.py: memory, time and quality of a model in one precision, in a process of its own.

    python measure_precision.py nf4 result.json --config recipes/tiny.yaml

A process's peak memory never goes down, so each precision needs a fresh one. The model comes from train.py's own
`load_policy`, so that what is measured is what is trained: by Unsloth, in all three precisions.
"""

from train import load_policy  # isort: skip  # first of all, since it loads Unsloth

import dataclasses
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from arguments import SCRIPTS, AdapterArguments
from job.arguments import LoraArguments
from job.container import channel, print_line
from job.failure import report_failure
from job.models import load_tokenizer
from job.quantization import QuantizationError, frozen_weights
from job.recipe import parse_arguments
from job.sharding import held_bytes
from job.summary import peak_rss, versions
from peft import PeftModel
from rl.evaluation import greedy_pass_at_1
from rl.tasks import Row, read_rows
from rl.verifiers import get_verifier
from transformers import PreTrainedTokenizerBase

PRECISIONS: dict[str, dict[str, Any]] = {
    "fp32": {"dtype": "float32", "quantization": None},
    "bf16": {"dtype": "bfloat16", "quantization": None},
    # What is not packed, and the arithmetic, is bfloat16.
    "nf4": {"dtype": "bfloat16", "quantization": "nf4"},
}
STEPS = 3  # timed, after one that is not
TOKENS = 64  # of each sequence; longer ones are cut

Batch = dict[str, torch.Tensor]


def main(precision: str, result: Path, arguments: list[str]) -> None:
    job, config = parse_arguments(SCRIPTS["measure.py"], arguments)
    own = {field.name: getattr(job, field.name) for field in dataclasses.fields(LoraArguments)}
    measured_policy = AdapterArguments(base_model=job.base_model, **own, **PRECISIONS[precision])
    verifier = get_verifier(job.verifier)
    config.use_vllm = False  # training is measured; vLLM would take its own share of the memory
    rows, tokenizer = read_rows(channel("test")), load_tokenizer(job.base_model)
    peak = {"imported": peak_bytes()}

    started = time.perf_counter()
    policy = load_policy(measured_policy, config)
    seconds = {"load": time.perf_counter() - started}
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
    step_seconds, states = train(policy, batch)
    peak["trained"] = peak_bytes()

    started = time.perf_counter()
    with policy.disable_adapter():  # the quality of the base: the steps above were for the clock
        greedy = greedy_pass_at_1(
            policy,
            tokenizer,
            rows[: job.eval_problems],
            verifier=verifier,
            max_new_tokens=job.eval_max_new_tokens,
            batch_size=job.eval_batch_size,
            chat_template_kwargs=config.chat_template_kwargs,
        )
    seconds["evaluate"] = time.perf_counter() - started

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
        "loss": loss,
        "greedy": dataclasses.asdict(greedy),
        "seconds": {key: round(value, 3) for key, value in seconds.items()},
    }
    result.write_text(json.dumps({"about": about, "measured": measured}))
    print_line(
        f"[measure] {precision}: {weights / 1e6:.2f} MB of weights, {step_seconds:.3f} s a step, loss {loss:.3f}, pass@1 {greedy}"
    )


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


def train(policy: PeftModel, batch: Batch) -> tuple[float, dict[str, int]]:
    """Median seconds of a training step, and the bytes that adapters, gradients and optimizer take."""
    adapters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(adapters, lr=1e-4)
    policy.train()
    times = []
    for _ in range(1 + STEPS):
        started = time.perf_counter()
        optimizer.zero_grad()
        policy(**batch).loss.backward()
        optimizer.step()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    held = held_bytes(policy, optimizer)
    states = {"adapters": sum(parameter.nbytes for parameter in adapters)}
    return statistics.median(times[1:]), states | {key: held[key] for key in ("gradients", "optimizer")}


def peak_bytes() -> int:
    """Most memory held so far: of the GPU if there is one, else of this process."""
    return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else int(peak_rss() * 2**20)


if __name__ == "__main__":
    with report_failure():
        main(sys.argv[1], Path(sys.argv[2]), sys.argv[3:])
