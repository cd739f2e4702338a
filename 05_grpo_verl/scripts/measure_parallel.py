"""What tensor, pipeline and sequence parallelism do to one model: the same pass in every layout, laid beside one process.

    measure_parallel.py --base_model asset:tiny-even

First by hand, with torch alone (parallel_by_hand), then by verl's engines (parallel_engines), all in processes of this host's
CPU. Leaves parallel.json in the job's output: how far log-probabilities and gradients are from those of one process, who
holds what, what each process sent, and when each stage of a pipeline was at work.
"""

import argparse
import json
import math
import os
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from job.container import output_data_dir, print_line
from job.failure import report_failure
from job.models import load_base
from parallel_by_hand import Gradients, pipeline_parallel, tensor_parallel, whole_model
from parallel_processes import in_processes
from transformers import AutoModelForCausalLM
from verl_environment import environment

SEED = 7
# Of the passes that are compared: sequences of uneven length, in four micro batches.
LENGTHS, MICRO_BATCH = (37, 90, 12, 61, 100, 5, 44, 101, 33, 72, 18, 29), 3
# Of the passes that are timed: so long that stages compute more than they wait.
LONG, MICRO_BATCHES = 384, (1, 2, 4, 8)
SHARED = "model.embed_tokens.weight"  # it is the head too, so both ends of a pipeline have a copy


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base_model", default="asset:tiny-even")
    spec = parser.parse_args().base_model
    os.environ.update(environment("cpu", engine="megatron"))
    from parallel_engines import Layout, run_layout  # brings verl, which reads its environment

    alone = Layout("one process, FSDP2", "fsdp2")
    pipeline = Layout("pipeline 2", "megatron", pipeline=2)
    layouts = (
        alone,
        Layout("Ulysses 2", "fsdp2", "packed", sequence=2),
        Layout("Ulysses 2 with sdpa", "fsdp2", "sdpa", sequence=2),
        Layout("one process, Megatron", "megatron"),
        Layout("tensor 2", "megatron", tensor=2),
        pipeline,
        Layout("tensor 2 x pipeline 2", "megatron", tensor=2, pipeline=2),
    )
    model, tokenizer = load_base(spec)
    folder = Path(tempfile.mkdtemp())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    # No special tokens: of the one that pads, transformers' embedding learns nothing, and Megatron's does.
    vocabulary = torch.tensor(
        [token for token in range(len(tokenizer)) if token not in tokenizer.all_special_ids]
    )
    generator = torch.Generator().manual_seed(SEED)
    batch = drawn_batch(LENGTHS, MICRO_BATCH, vocabulary, generator)

    passes = {}
    for layout in layouts:
        print_line(layout.name)
        passes[layout.name] = run_layout(layout, folder, batch)
    timed = {}
    for count in MICRO_BATCHES:
        print_line(f"{pipeline.name}: {count} micro batches")
        even = drawn_batch((LONG,) * count, 1, vocabulary, generator)
        timed[count] = [[vars(stage) for stage in one.stages] for one in run_layout(pipeline, folder, even)]
    print_line("by hand")
    report = {
        "by_hand": by_hand(folder, drawn((8, 64), vocabulary, generator)),
        "layouts": {name: described(found, passes[alone.name], batch) for name, found in passes.items()},
        "pipeline": timed,
    }
    output_data_dir().mkdir(parents=True, exist_ok=True)
    (output_data_dir() / "parallel.json").write_text(json.dumps(report))


def drawn(shape: tuple[int, ...], vocabulary: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Random tokens out of the vocabulary."""
    return vocabulary[torch.randint(0, len(vocabulary), shape, generator=generator)]


def drawn_batch(
    lengths: tuple[int, ...], micro_batch: int, vocabulary: torch.Tensor, generator: torch.Generator
) -> Any:
    """Sequences of random tokens; the first third of each does not count, as a prompt, nor the last token, which predicts none."""
    from parallel_engines import Batch

    tokens = [drawn((length,), vocabulary, generator) for length in lengths]
    weights = [torch.randn(length, generator=generator) for length in lengths]
    for weight in weights:
        weight[: len(weight) // 3] = weight[-1] = 0
    return Batch(tokens, weights, micro_batch)


def described(found: list[Any], alone: list[Any], batch: Any) -> dict[str, Any]:
    """A layout's passes beside that of one process."""
    log_probs = next(one.log_probs for one in found if one.log_probs)
    counts = [weight != 0 for weight in batch.weights]
    pairs = zip(log_probs, alone[0].log_probs, counts, strict=True)
    return {
        "log_prob_difference": max((mine - whole)[count].abs().max().item() for mine, whole, count in pairs),
        **differences(found[0].gradients, alone[0].gradients),
        "grad_norm": found[0].grad_norm,
        "held": [one.held for one in found],
        "parameters": [sum(math.prod(shape) for shape in one.held.values()) for one in found],
        "sent": [_summed(one.sent) for one in found],
    }


def differences(mine: Gradients, whole: Gradients) -> dict[str, float]:
    """Of the gradients under the same names."""
    return {
        "gradients": len(mine.keys() & whole.keys()),
        "gradient_difference": max((mine[name] - whole[name]).abs().max().item() for name in mine),
        "largest_gradient": max(gradient.abs().max().item() for gradient in whole.values()),
    }


def _summed(sent: list[Any]) -> dict[str, dict[str, float]]:
    """How often each kind of call was made, and the megabytes that the process handed over in all of them."""
    sums: dict[str, dict[str, float]] = defaultdict(lambda: {"calls": 0, "megabytes": 0.0})
    for one in sent:
        sums[one.call]["calls"] += 1
        sums[one.call]["megabytes"] += one.megabytes
    return dict(sums)


def by_hand(folder: Path, tokens: torch.Tensor) -> dict[str, dict[str, float]]:
    """Gradients of torch's own tensor and pipeline parallelism, beside those of the whole model."""

    def opened() -> Any:
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)

    def staged() -> Gradients:
        gradients = pipeline_parallel(opened(), tokens, micro_batches=4)
        dist.all_reduce(gradients[SHARED])  # the part of the embedding, and that of the head
        return gradients

    whole = whole_model(opened(), tokens)
    cut = in_processes(2, lambda: tensor_parallel(opened(), tokens))
    stages = in_processes(2, staged)
    return {
        "tensor parallel": differences(cut[0], whole),
        "pipeline parallel": differences(stages[0] | stages[1], whole),
    }


if __name__ == "__main__":
    with report_failure():
        main()
