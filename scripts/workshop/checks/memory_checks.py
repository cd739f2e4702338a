"""Preflight of memory for recipes of TRL and Unsloth: what one GPU has to hold, moment by moment, against what it has.

The arithmetic is that of memory.py, with what that leaves out: CUDA itself, vLLM's share, and the evaluation's KV cache. It is
arithmetic, not measured. verl's recipes have a check of their own (05_grpo_verl/lesson).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from workshop.checks.accelerate_file import launcher_file
from workshop.checks.instances import gpu_bytes
from workshop.checks.memory import (
    BYTES,
    FRAMEWORK_BYTES,
    GB,
    Memory,
    ModelShape,
    dpo_estimate,
    estimate,
    kv_cache_bytes,
    shape_of,
    whole_model_bytes,
)
from workshop.checks.recipe_values import recipe_values
from workshop.checks.request import NOTE, OK, PROBLEM, Check, JobRequest
from workshop.checks.signatures import GROUPED

PROMPT_TOKENS = 128  # of a prompt, where nothing else says how long it may be
_FEWER = "lower per_device_train_batch_size and raise gradient_accumulation_steps"
_SMALLER = "train adapters (lora_rank), shard over more GPUs (03_grpo_trl_fsdp), or take an instance with larger ones"
_EVALUATION = "lower eval_batch_size"
_ENGINE = "lower vllm_gpu_memory_utilization"


@dataclass(frozen=True)
class Moment:
    """What one GPU holds at some time of the job, by name and in bytes, and what to change if it does not fit."""

    name: str
    parts: dict[str, float]
    advice: str

    @property
    def total(self) -> float:
        """All of it, CUDA included."""
        return sum(self.parts.values()) + FRAMEWORK_BYTES


def check_memory(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """Every moment of the job fits the memory of one GPU."""
    if request.local or not request.gpus or not request.instance_type or request.script is None:
        return
    recipe = recipe_values(request, settings)
    if recipe.get("use_cpu") is True:
        return
    each = gpu_bytes(request.instance_type, request.region)
    shape = shape_of(str(recipe.get("base_model")), request.model_config)
    if each is None or shape is None:
        lacks = (
            request.instance_type
            if each is None
            else f"{recipe.get('base_model')} (workshop.checks.memory.SHAPES)"
        )
        yield Check("memory", NOTE, f"not checked: the size of {lacks} is not known here")
        return
    try:
        found = moments(request, recipe, shape, each)
    except (KeyError, TypeError, ValueError):
        return  # a value that is missing or of the wrong kind, which check_recipe reports
    if not found:
        return
    size = f"{each / GB:.0f} GB"
    for moment in found:
        if moment.total > each:
            shares = ", ".join(
                f"{name} {value / GB:.0f}" for name, value in moment.parts.items() if value >= 0.5 * GB
            )
            yield Check(
                "memory",
                PROBLEM,
                f"{moment.name} needs about {moment.total / GB:.0f} GB on each GPU, which has {size} ({shares} GB, CUDA "
                f"{FRAMEWORK_BYTES / GB:.1f} GB): {moment.advice}",
            )
    if all(moment.total <= each for moment in found):
        most = max(found, key=lambda moment: moment.total)
        text = f"at most about {most.total / GB:.0f} of {size} on each GPU, while {most.name[0].lower()}{most.name[1:]} runs"
        yield Check("memory", OK, f"{text} (arithmetic, not measured)")


def moments(request: JobRequest, recipe: dict[str, Any], shape: ModelShape, gpu_bytes: float) -> list[Moment]:
    """The moments of a job at which most is held: learning, generating, and evaluating before and after it.

    Args:
        recipe: every key with its value, the config's defaults included.
        gpu_bytes: of one GPU, of which vLLM takes a share.
    """
    config = request.script.config if request.script else None
    devices = request.hosts * request.processes_per_host
    sharded = bool(recipe.get("fsdp")) or launcher_file(request).get("distributed_type") == "FSDP"
    engine = config in GROUPED and recipe.get("use_vllm") is True
    engine = engine and recipe.get("vllm_mode") != "server"
    share = float(recipe["vllm_gpu_memory_utilization"]) * gpu_bytes if engine else 0.0
    # Asleep, the engine holds nothing but Unsloth's weights, which the trainer counts: both use the same.
    kept_share = _named("vLLM", 0.0 if recipe.get("vllm_enable_sleep_mode") is True else share)
    unsloth = recipe.get("module") == "04_grpo_unsloth"
    answers = 0.0 if engine and unsloth else _evaluation(recipe, shape, config)  # there the engine answers
    found = []
    if answers:
        whole = whole_model_bytes(shape, recipe["dtype"], recipe.get("quantization"))
        parts = {"weights": whole, "KV cache": answers}
        name, cure = "The evaluation before training", _EVALUATION
        if config is None and "pair_batch_size" in recipe:
            name, cure = "Answering for the pairs", "lower pair_batch_size"
        found.append(Moment(name, parts, f"{cure}, or {_SMALLER}"))
    if config is None:
        return found
    if config in (*GROUPED, "trl.DistillationConfig"):
        held = estimate(shape, recipe, devices=devices, sharded=sharded, prompt_tokens=PROMPT_TOKENS)
    else:  # a reward model learns from pairs too, beside the model that it is made of
        held = dpo_estimate(shape, recipe, devices=devices, sharded=sharded)
    # A teacher is taken to be as large as its student.
    teacher = {"teacher": whole_model_bytes(shape, recipe["dtype"], None)} if recipe.get("teacher") else {}
    found.append(
        Moment("A training step", _learning(held) | teacher | kept_share, f"{_FEWER}, or {_SMALLER}")
    )
    states = {"weights": held.parameters, "optimizer": held.optimizer}
    if engine:
        beside = {"optimizer": held.optimizer} if unsloth else states
        found.append(Moment("Generating with vLLM", beside | {"vLLM": share}, f"{_ENGINE}, or {_SMALLER}"))
        found += _too_small_a_share(recipe, shape, share, gpu_bytes)
    if answers and config != "trl.RewardConfig":
        # What was sharded is put together again, by 01 as it was loaded, by 03 without quantization.
        quantization = recipe.get("quantization") if config == "trl.DPOConfig" else None
        copy = whole_model_bytes(shape, recipe["dtype"], quantization) if sharded else 0.0
        parts = states | _named("a whole copy", copy) | {"KV cache": answers} | kept_share
        found.append(Moment("The evaluation after training", parts, f"{_EVALUATION}, or {_SMALLER}"))
    return found


def _too_small_a_share(
    recipe: dict[str, Any], shape: ModelShape, share: float, gpu_bytes: float
) -> Iterator[Moment]:
    """vLLM's weights and one sequence of the greatest length, where its share of the GPU does not hold them."""
    weights = whole_model_bytes(shape, "bfloat16", recipe.get("quantization"))
    said, needed = recipe.get("vllm_max_model_length"), PROMPT_TOKENS + int(recipe["max_completion_length"])
    window = int(said or shape.positions or needed)
    sequence = kv_cache_bytes(shape, window, BYTES["bfloat16"])
    if weights + sequence > share:
        rest = {"vLLM's weights": weights, "one sequence": sequence, "the rest of the GPU": gpu_bytes - share}
        cure = "raise vllm_gpu_memory_utilization"
        if not said and window > needed:
            cure = f"set vllm_max_model_length, without which vLLM plans for the {window:,} tokens that the model can, or {cure}"
        yield Moment(f"vLLM in its share of {share / GB:.0f} GB", rest, cure)


def _learning(held: Memory) -> dict[str, float]:
    return {
        "weights": held.parameters,
        "gathered": held.gathered,
        "gradients": held.gradients,
        "optimizer": held.optimizer,
        "activations or KV cache": max(held.activations, held.kv_cache),
    }


def _named(name: str, value: float) -> dict[str, float]:
    return {name: value} if value else {}


def _evaluation(recipe: dict[str, Any], shape: ModelShape, config: str | None) -> float:
    """Bytes of the KV cache of one batch of an evaluation; 0 for a script that has none."""
    batch, answer = recipe.get("eval_batch_size"), recipe.get("eval_max_new_tokens")
    if not config:
        batch = recipe.get("pair_batch_size") or batch
    if batch is None or answer is None:
        return 0.0
    problems = recipe.get("eval_problems" if config else "pair_problems")
    batch = min(int(batch), int(problems or batch))
    # Pairs may have long prompts (tools are in them): half of what prompt and answer may have together.
    prompt = int(recipe["max_length"]) // 2 if config == "trl.DPOConfig" else PROMPT_TOKENS
    return kv_cache_bytes(shape, batch * (prompt + int(answer)), BYTES[recipe["dtype"]])
