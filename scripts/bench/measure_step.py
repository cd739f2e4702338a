"""Times the three phases of a GRPO step on the device at hand, beside what they take at least there: one line of JSON a model.

    PYTHONPATH=scripts python -m bench.measure_step                          # a GPU if there is one, else the CPU
    PYTHONPATH=scripts python -m bench.measure_step --models Qwen3-0.6B --answer 512 --repeats 5
    ... >> docs/bench/steps.jsonl && make bench ARGS=page                    # onto the page

Weights are random and of a known model's shape, so nothing is downloaded and every completion runs to its last token. Rollouts
by transformers' generate; log-probabilities without gradient; forward, backward and AdamW on all weights, in micro batches.
bfloat16 on a GPU, float32 on a CPU. The device's own speeds are those of a large matrix product and a large copy. Seconds are
the clock's on a GPU and those of this process on a CPU, all threads together, which others on the machine do not lengthen.

Needs torch and transformers, and of the workshop only what the standard library is enough for.
"""

import argparse
import gc
import json
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, LlamaConfig, PretrainedConfig, Qwen2Config, Qwen3Config
from workshop.checks.memory import SHAPES, ModelShape

from bench.phases import Speeds, Step, Work, step_work

# Completions, tokens of a prompt and of an answer, micro batches.
MODELS: dict[str, dict[str, tuple[int, int, int, int]]] = {
    "cuda": {"Qwen3-0.6B": (32, 128, 256, 4), "Llama-3.2-1B": (32, 128, 256, 4)},
    "cpu": {"tiny": (64, 32, 96, 1), "SmolLM2-135M": (4, 64, 16, 1)},
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument(
        "--device", choices=list(MODELS), default="cuda" if torch.cuda.is_available() else "cpu"
    )
    parser.add_argument(
        "--models", nargs="+", choices=list(SHAPES), help="shapes; by default two that suit the device"
    )
    for name in ("sequences", "prompt", "answer", "micro-batches"):
        parser.add_argument(f"--{name}", type=int, help="by default what suits the device")
    parser.add_argument("--repeats", type=int, default=3, help="medians are of so many")
    given = parser.parse_args(arguments)
    torch.manual_seed(0)
    dtype = torch.bfloat16 if given.device == "cuda" else torch.float32
    speeds = measure_speeds(given.device, dtype)
    defaults = MODELS[given.device]
    for name in given.models or defaults:
        usual = defaults.get(name) or next(iter(defaults.values()))
        asked = (given.sequences, given.prompt, given.answer, given.micro_batches)
        sizes = [own or default for own, default in zip(asked, usual, strict=True)]
        step = Step(*sizes, bytes_each=dtype.itemsize, trained_bytes=dtype.itemsize)
        if step.sequences % step.micro_batches:
            parser.error(f"{step.sequences} sequences do not divide into {step.micro_batches} micro batches")
        print(json.dumps(measure(name, step, given.device, dtype, speeds, given.repeats)), flush=True)


def measure(
    name: str, step: Step, device: str, dtype: torch.dtype, speeds: Speeds, repeats: int
) -> dict[str, Any]:
    """Seconds of each phase, the least they could be at these speeds, and bytes of memory at the peak."""
    gc.collect()  # the model before
    with torch.device(device):  # on a GPU, random weights take no time
        model = AutoModelForCausalLM.from_config(config_of(SHAPES[name]), dtype=dtype)
    parameters = sum(weights.numel() for weights in model.parameters())
    if parameters != SHAPES[name].parameters:
        raise AssertionError(
            f"{name} has {parameters:,} parameters, its shape says {SHAPES[name].parameters:,}"
        )
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    prompts = torch.randint(SHAPES[name].vocabulary, (step.sequences, step.prompt), device=device)
    _rollout(model, prompts, 2)  # what is done once: kernels chosen, memory taken
    _update(model, _rollout(model, prompts, step.answer), step, optimizer)
    seconds: dict[str, list[float]] = {}
    for _ in range(repeats):
        texts, took = _timed(device, lambda: _rollout(model, prompts, step.answer))
        seconds.setdefault("rollout", []).append(took)
        _, took = _timed(device, lambda texts=texts: _old_log_probabilities(model, texts, step))
        seconds.setdefault("log-probabilities", []).append(took)
        _, took = _timed(device, lambda texts=texts: _update(model, texts, step, optimizer))
        seconds.setdefault("update", []).append(took)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _peak_resident()
    work = step_work(SHAPES[name], step)
    return {
        "model": name,
        "device": torch.cuda.get_device_name()
        if device == "cuda"
        else f"CPU, {torch.get_num_threads()} threads",
        "dtype": str(dtype).removeprefix("torch."),
        "measured": f"{datetime.now(UTC):%Y-%m-%d}",
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "speeds": asdict(speeds) | {"link": None},
        "step": asdict(step),
        "phases": {phase: _compared(seconds[phase], work[phase], speeds) for phase in work},
        "peak_bytes": peak,
    }


def _compared(seconds: list[float], work: Work, speeds: Speeds) -> dict[str, Any]:
    median = statistics.median(seconds)
    return {
        "seconds": [round(value, 5) for value in seconds],
        "median_seconds": round(median, 5),
        "least_seconds": round(work.seconds(speeds), 5),
        "limit": work.limit(speeds),
        "reached": round(work.seconds(speeds) / median, 4),
        "operations": work.operations,
        "bytes": work.bytes,
    }


def config_of(shape: ModelShape) -> PretrainedConfig:
    """A transformers config of that shape: Qwen3 where heads have norms, Qwen2 with biases, else Llama."""
    kind = Qwen3Config if shape.head_norms else Qwen2Config if shape.attention_bias else LlamaConfig
    return kind(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_size,
        tie_word_embeddings=shape.tied,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )


@torch.no_grad()
def _rollout(model: Any, prompts: torch.Tensor, answer: int) -> torch.Tensor:
    """(sequences, prompt) -> (sequences, prompt + answer), sampled at temperature 1."""
    return model.generate(
        prompts,
        attention_mask=torch.ones_like(prompts),
        max_new_tokens=answer,
        min_new_tokens=answer,
        do_sample=True,
        top_k=0,
        pad_token_id=0,
    )


@torch.no_grad()
def _old_log_probabilities(model: Any, texts: torch.Tensor, step: Step) -> None:
    for part in texts.chunk(step.micro_batches):
        _log_probabilities(model, part, step.answer)


def _update(model: Any, texts: torch.Tensor, step: Step, optimizer: torch.optim.Optimizer) -> None:
    """One optimizer step on the policy gradient, with advantages of 1 and -1."""
    advantages = torch.ones(len(texts), 1, device=texts.device)
    advantages[::2] = -1
    for part, signs in zip(
        texts.chunk(step.micro_batches), advantages.chunk(step.micro_batches), strict=True
    ):
        loss = -(signs * _log_probabilities(model, part, step.answer)).mean() / step.micro_batches
        loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def _log_probabilities(model: Any, texts: torch.Tensor, answer: int) -> torch.Tensor:
    """(sequences, answer) of each answer's tokens."""
    logits = model(texts, logits_to_keep=answer + 1, use_cache=False).logits[:, :-1]
    chosen = texts[:, -answer:]
    losses = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1).float(), chosen.flatten(), reduction="none"
    )
    return -losses.view_as(chosen)


def measure_speeds(device: str, dtype: torch.dtype) -> Speeds:
    """Operations a second of a large square matrix product, bytes a second of a large copy: the best of some."""
    side, count = (8192, 2**30) if device == "cuda" else (1536, 2**26)
    left, right = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    source = torch.zeros(count, device=device, dtype=torch.uint8)
    target = torch.empty_like(source)
    product = min(_times(device, lambda: torch.matmul(left, right)))
    copy = min(_times(device, lambda: target.copy_(source)))
    return Speeds(2.0 * side**3 / product, 2.0 * count / copy)


def _times(device: str, work: Callable[[], object], repeats: int = 10) -> Iterator[float]:
    for _ in range(repeats):
        yield _timed(device, work)[1]


def _timed(device: str, work: Callable[[], Any]) -> tuple[Any, float]:
    """What it gives, and the seconds until the device has done it."""
    if device == "cpu":
        began = time.process_time()
        return work(), time.process_time() - began
    torch.cuda.synchronize()
    began = time.perf_counter()
    result = work()
    torch.cuda.synchronize()
    return result, time.perf_counter() - began


def _peak_resident() -> int:
    """Bytes of this process so far, all models together."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


if __name__ == "__main__":
    main(sys.argv[1:])
