"""How long a job takes: in words, and by arithmetic from recipe, model and GPU, before anything has been measured.

    estimate_duration(request, recipe_values(request, settings), shape, gpu).total     # seconds

What it assumes, each to be found below: training reaches a quarter of the GPU's operations (OPERATIONS_REACHED) and memory
and links seven tenths of their speed (BYTES_REACHED). A token of a batch costs reading the weights and the KV cache once, and
what it takes to start the layers: LAYER_S for each in transformers, ENGINE_TOKEN_S for all in vLLM. Completions run to the
limit. 4-bit weights are unpacked at each use (NF4_SLOWER). Between the halves of a step pass STEP_S, and before the
first START_S, without the minutes in which SageMaker finds the instance, which are not billed. GPUs of several hosts are
as well connected as those of one. It says whether a job takes one hour or five, and not more than that.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from job.record import BASE_CHANNEL

from workshop.checks.instances import Gpu, find_instance
from workshop.checks.memory import BYTES, ModelShape, kv_cache_bytes, shape_of, whole_model_bytes
from workshop.checks.recipe_values import recipe_values
from workshop.checks.request import NOTE, WARNING, Check, JobRequest

OPERATIONS_REACHED = 0.25
BYTES_REACHED = 0.7
LAYER_S = 0.0008
ENGINE_TOKEN_S = 0.003
NF4_SLOWER = 1.3
STEP_S = 2.0  # rewards, weights to the engine, its sleep
START_S = 300.0  # packages, model, engine
PROMPT_TOKENS = 128
EVALUATION_PROBLEMS = 300  # where the recipe takes all that there are
ENGINE_SEQUENCES = 256  # that vLLM answers at a time


@dataclass(frozen=True)
class Duration:
    """Seconds of a job's parts."""

    start: float
    evaluation: float  # all of them together, but what the channel `base` brings; also completions that pairs are made of
    steps: int
    generate: float  # of one step
    learn: float  # of one step

    @property
    def total(self) -> float:
        """Seconds from the instance's start to the job's end."""
        return self.start + self.evaluation + self.steps * (self.generate + self.learn)

    def __str__(self) -> str:
        parts = [f"start {in_words(self.start)}"]
        if self.evaluation:
            parts.append(f"evaluation {in_words(self.evaluation)}")
        if self.steps:
            step = f"generating {self.generate:.0f} s, " if self.generate else ""
            parts.append(
                f"{self.steps} steps of {self.generate + self.learn:.0f} s ({step}learning {self.learn:.0f} s)"
            )
        return f"about {in_words(self.total)} by arithmetic, not measured: {', '.join(parts)}"


def in_words(seconds: float) -> str:
    """90 -> "90 s", 3600 -> "60 min", 86400 -> "24.0 h"."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def job_duration(request: JobRequest, settings: dict[str, Any]) -> Duration | None:
    """The estimate for a job on AWS; None where a GPU, the model's shape or the number of steps is not known."""
    found = find_instance(request.instance_type or "")
    recipe = recipe_values(request, settings)
    shape = shape_of(str(recipe.get("base_model")), request.model_config)
    if request.local or found is None or found.gpu is None or shape is None or recipe.get("use_cpu") is True:
        return None
    try:
        return estimate_duration(request, recipe, shape, found.gpu)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None  # a value that is missing or of the wrong kind, which check_recipe reports


def check_duration(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """The job probably ends before it is stopped."""
    found = job_duration(request, settings)
    if found is None:
        return
    limit = f"max_runtime_in_seconds stops it after {in_words(request.max_runtime_s)}"
    if found.total > request.max_runtime_s:
        text = f"{found}; but {limit}: raise that, or lower max_steps, eval_problems or max_completion_length"
        yield Check("time", WARNING, text)
    else:
        yield Check("time", NOTE, f"{found}; {limit}")


def estimate_duration(
    request: JobRequest, recipe: dict[str, Any], shape: ModelShape, gpu: Gpu
) -> Duration | None:
    """The arithmetic. `recipe` has every key with its value; None where the number of steps is not known.

    Raises:
        KeyError, TypeError, ValueError: a value is missing or of the wrong kind.
    """
    devices = request.hosts * request.processes_per_host
    script = request.script
    known = BASE_CHANNEL in dict(request.channels)
    evaluation = _evaluations(recipe, shape, gpu, devices, script.config if script else "", known)
    if script and script.config is None:  # no trainer: pairs out of the model's own answers
        return Duration(START_S, evaluation, steps=0, generate=0.0, learn=0.0) if evaluation else None
    sequences = int(recipe["per_device_train_batch_size"]) * int(
        recipe.get("gradient_accumulation_steps") or 1
    )
    steps = _steps(recipe, sequences * devices, script.config if script else None)
    if steps is None:
        return None
    if recipe.get("max_completion_length"):
        answer, engine = int(recipe["max_completion_length"]), recipe.get("use_vllm") is True
        generate = answer * _token_seconds(recipe, shape, gpu, sequences, answer, engine)
        generate = generate / int(recipe.get("num_iterations") or 1) + STEP_S
        tokens, more = sequences * (PROMPT_TOKENS + answer), 1 if engine else 0
    else:  # pairs: two answers to each prompt, half as long as they may be
        generate, tokens, more = 0.0, sequences * int(recipe["max_length"]), 0
    length = tokens // sequences
    return Duration(
        START_S,
        evaluation,
        steps,
        generate,
        _learn_seconds(recipe, shape, gpu, devices, tokens, length, more),
    )


def _steps(recipe: dict[str, Any], batch: int, config: str | None) -> int | None:
    steps = int(recipe.get("max_steps") or -1)
    if steps > 0:
        return steps
    # At most; how many pairs the model's own answers make, nobody knows before.
    problems, each = recipe.get("pair_problems"), recipe.get("pairs_per_problem") or 1
    if config == "trl.RewardConfig":
        problems, each = recipe.get("eval_problems"), 1
    if not problems:
        return None
    return math.ceil(float(recipe.get("num_train_epochs") or 1) * int(problems) * int(each) / batch)


def _token_seconds(
    recipe: dict[str, Any], shape: ModelShape, gpu: Gpu, sequences: int, answer: int, engine: bool
) -> float:
    """One token for each of so many sequences on one GPU, in the middle of their answers."""
    dtype = "bfloat16" if engine else recipe["dtype"]
    read = whole_model_bytes(shape, dtype, recipe.get("quantization")) / int(
        recipe.get("vllm_tensor_parallel_size") or 1
    )
    read += kv_cache_bytes(shape, sequences * (PROMPT_TOKENS + answer // 2), BYTES[dtype])
    return (ENGINE_TOKEN_S if engine else LAYER_S * shape.layers) + read / (gpu.bandwidth * BYTES_REACHED)


def _learn_seconds(
    recipe: dict[str, Any],
    shape: ModelShape,
    gpu: Gpu,
    devices: int,
    tokens: int,
    length: int,
    more_forwards: int,
) -> float:
    """Forward and backward over so many tokens on each GPU, in sequences of a length, and what the GPUs tell one another.

    A pass costs 2 operations a parameter and token, and in attention 4 for each pair of tokens and number of a head. Backward are two passes, or one where the weights are frozen;
    checkpointing repeats the forward pass; importance sampling with vLLM looks at the completions once more.
    """
    rank = int(recipe.get("lora_rank") or 0)
    fsdp = recipe.get("fsdp_config") or {}
    repeats = bool(fsdp.get("activation_checkpointing") or recipe.get("gradient_checkpointing"))
    passes = (2 if rank else 3) + repeats + more_forwards
    pairs = (
        4.0 * shape.layers * shape.heads * shape.head_size * length / 2
    )  # a token looks back at half of them
    seconds = passes * (2.0 * shape.parameters + pairs) * tokens / (gpu.flops * OPERATIONS_REACHED)
    seconds *= NF4_SLOWER if recipe.get("quantization") else 1
    if devices == 1:
        return seconds
    trained = shape.adapter_parameters(rank) if rank else shape.parameters
    sent = 2.0 * trained * 4  # gradients, gathered and given back
    if recipe.get("fsdp"):  # weights, forward and backward, for each batch that is looked at at a time
        weights = whole_model_bytes(shape, "bfloat16", recipe.get("quantization"))
        sent = int(recipe.get("gradient_accumulation_steps") or 1) * (2.0 * weights + trained * 4)
    return seconds + sent / (gpu.link * BYTES_REACHED)


def _evaluations(
    recipe: dict[str, Any], shape: ModelShape, gpu: Gpu, devices: int, config: str | None, base_known: bool
) -> float:
    """All completions outside the training steps: before and after it, in between for DPO, or to make pairs of."""
    times = 1 if base_known else 2
    if recipe.get("eval_batch_size") is None or recipe.get("eval_max_new_tokens") is None:
        return 0.0
    batch, answer = int(recipe["eval_batch_size"]), int(recipe["eval_max_new_tokens"])
    devices = int(recipe.get("eval_processes") or devices)  # verl evaluates in one process
    problems = int(recipe.get("eval_problems") or EVALUATION_PROBLEMS)
    samples = int(recipe.get("eval_samples") or 0)
    if "pair_samples" in recipe and config is None:
        problems, samples = int(recipe.get("pair_problems") or problems), int(recipe["pair_samples"])
        batch = int(recipe.get("pair_batch_size") or batch)
    if recipe.get("module") == "04_grpo_unsloth" and recipe.get("use_vllm") is True:  # the engine answers
        rounds = math.ceil(problems * (1 + samples) / ENGINE_SEQUENCES)
        once = (
            rounds
            * answer
            * _token_seconds(recipe, shape, gpu, min(ENGINE_SEQUENCES, problems), answer, True)
        )
        return times * once
    seconds = answer * _token_seconds(recipe, shape, gpu, min(batch, problems), answer, False)
    whole = math.ceil(math.ceil(problems / batch) * (1 + samples) / devices) * seconds
    if config in (
        None,
        "trl.RewardConfig",
    ):  # once: pairs, or the one evaluation of a script without a trainer
        return whole
    greedy = math.ceil(math.ceil(problems / batch) / devices) * seconds
    between = (
        int(recipe.get("max_steps") or 0) // int(recipe["eval_steps"]) if config == "trl.DPOConfig" else 0
    )
    return times * whole + max(between, 0) * greedy
