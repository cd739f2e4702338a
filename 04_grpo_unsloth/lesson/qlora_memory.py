"""What one GPU has to hold to train models of 1B to 70B parameters: all weights, LoRA, or QLoRA; and which GPU can.

    plot_methods(["Llama-3.2-1B", "Qwen3-8B", "Llama-3.3-70B"])

The arithmetic is that of workshop.checks.memory, for three recipes that differ in nothing but what is trained and how the base
is kept. Like every GRPO step, a step needs first a KV cache and then activations, not both at once.
"""

from dataclasses import asdict
from typing import Any

from workshop.checks.memory import FRAMEWORK_BYTES, GB, SHAPES, Memory, estimate
from workshop.views.comparisons import plot_parts
from workshop.views.html import HtmlView, table
from workshop.views.plots import Plot

METHODS: dict[str, dict[str, Any]] = {
    # All weights: float32 master weights, gradients and two moments, 16 bytes a weight, beside a 16-bit forward pass.
    "full": {"dtype": "float32"},
    "LoRA, bf16": {"dtype": "bfloat16", "lora_rank": 16},
    "QLoRA, NF4": {"dtype": "bfloat16", "lora_rank": 16, "quantization": "nf4"},
}
STEP: dict[str, Any] = {
    "bf16": True,
    "gradient_checkpointing": True,
    "per_device_train_batch_size": 8,  # one group of completions at a time
    "max_completion_length": 512,
}
# GB of the one GPU of each, an L4, L40S or H100 (https://aws.amazon.com/ec2/instance-types/). No T4 (ml.g4dn, 16 GB): it
# has no bfloat16, which all three methods compute in.
ONE_GPU = {"ml.g6.xlarge": 24, "ml.g6e.xlarge": 48, "ml.p5.4xlarge": 80}
NAMES = ("Llama-3.2-1B", "Qwen3-4B", "Qwen3-8B", "Llama-3.1-8B", "Qwen3-14B", "Qwen3-32B", "Llama-3.3-70B")


def training_memory(model: str, method: str, **settings: Any) -> Memory:
    """Bytes on the one GPU in a GRPO step. `settings` override those of STEP and METHODS, such as lora_rank=64.

    Raises:
        KeyError: no shape of that model in workshop.checks.memory.SHAPES, or no such method.
    """
    return estimate(SHAPES[model], STEP | METHODS[method] | settings, devices=1, sharded=False)


def held(memory: Memory) -> float:
    """Bytes that are held at once: those of the step, and CUDA with its libraries and fragmentation beside them."""
    return memory.total + FRAMEWORK_BYTES


def smallest_instance(memory: Memory) -> str | None:
    """The instance with the smallest GPU that holds it; None where one GPU is not enough."""
    fitting = [name for name, gigabytes in ONE_GPU.items() if held(memory) <= gigabytes * GB]
    return fitting[0] if fitting else None


def method_table(names: tuple[str, ...] = NAMES, **settings: Any) -> HtmlView:
    """A line for each model and method: the parts in GB, and the smallest instance that holds them."""
    parts = ("parameters", "gradients", "optimizer", "activations", "kv_cache")
    rows = []
    for name in names:
        for method in METHODS:
            memory = training_memory(name, method, **settings)
            sizes = asdict(memory)
            instance = smallest_instance(memory)
            fits = f"{instance}, {ONE_GPU[instance]} GB" if instance else "more than one GPU"
            cells = [f"{size / GB:.2f}" for size in (*(sizes[part] for part in parts), FRAMEWORK_BYTES)]
            rows.append((name, method, *cells, f"{held(memory) / GB:.1f}", fits))
    header = (
        "model",
        "trained",
        "weights",
        *(part.replace("_", " ") for part in parts[1:]),
        "framework",
        "at once",
        "fits on",
    )
    caption = "GB on one GPU; at once: activations or KV cache, whichever is larger, and all the rest"
    return table(header, rows, caption)


def plot_methods(
    names: tuple[str, ...] = NAMES, methods: tuple[str, ...] = ("LoRA, bf16", "QLoRA, NF4"), **settings: Any
) -> Plot:
    """A bar for each model and method, made of its parts, with lines at the sizes of GPUs."""
    bars = {}
    for name in names:
        for method in methods:
            memory = training_memory(name, method, **settings)
            bars[f"{name}, {method}"] = {
                "weights": memory.parameters / GB,
                "gradients and optimizer": (memory.gradients + memory.optimizer) / GB,
                "activations or KV cache": max(memory.activations, memory.kv_cache) / GB,
                "framework": FRAMEWORK_BYTES / GB,
            }
    limits = {f"{gigabytes} GB": float(gigabytes) for gigabytes in ONE_GPU.values()}
    return plot_parts(bars, "GB on one GPU", limits)
