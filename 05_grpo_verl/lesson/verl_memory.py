"""Memory on each GPU when verl trains a recipe: while the actor learns, and while the rollout engine generates.

    fit_problems(SHAPES["Qwen3-32B"], settings, gpus=16, gpu_bytes=80e9)      # [] if it fits

verl holds two models on the same GPUs in turn: the actor's shards with gradients and optimizer state, and the engine's
copy with its KV cache. The states are exact: FSDP2 keeps weights, gradients and AdamW's two moments in float32, in equal
shards; Megatron keeps bfloat16 weights, float32 gradients, and 12 bytes a weight of optimizer state that its distributed
optimizer shards over the copies of the model. Activations are an estimate, as in workshop.checks.memory. Unlike TRL, verl
holds all logits of a micro batch, unless its fused kernels are switched on (verl 0.9.1, use_fused_kernels), which no recipe here does.
"""

from verl_keys import Settings, value_of
from workshop.checks.memory import (
    BYTES,
    FRAMEWORK_BYTES,
    GB,
    Memory,
    ModelShape,
    activation_bytes,
    kv_cache_bytes,
)

ACTOR, ROLLOUT = "actor_rollout_ref.actor", "actor_rollout_ref.rollout"
COMPUTE_BYTES = 2  # a number in the forward pass: bfloat16
DTYPES = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def actor_memory(shape: ModelShape, settings: Settings, gpus: int) -> Memory:
    """Bytes on each of `gpus` GPUs while the actor learns as verl's nested `settings` say."""
    if value_of(settings, "model_engine") == "megatron":
        return _megatron_memory(shape, settings, gpus)
    sequence = value_of(settings, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size")
    rank = value_of(settings, "actor_rollout_ref.model.lora_rank")
    dtype = value_of(settings, f"{ACTOR}.fsdp_config.model_dtype")
    stored = BYTES[DTYPES.get(dtype, dtype)]
    trained = shape.adapter_parameters(rank) if rank else shape.parameters
    frozen = shape.parameters if rank else 0
    unit = max(shape.layer_parameters, shape.vocabulary * shape.hidden) * COMPUTE_BYTES
    tokens = _tokens(settings) / (1 if value_of(settings, f"{ACTOR}.use_dynamic_bsz") else sequence)
    checkpointing = bool(value_of(settings, "actor_rollout_ref.model.enable_gradient_checkpointing"))
    activations = activation_bytes(shape, tokens, COMPUTE_BYTES, checkpointing)
    return Memory(
        parameters=(frozen + trained) * stored / gpus,
        gathered=2 * unit,  # the unit in use and the next one
        gradients=trained * stored / gpus,
        optimizer=2 * trained * stored / gpus,
        activations=activations + tokens * shape.vocabulary * _logit_bytes(settings),
        kv_cache=0.0,
    )


def _megatron_memory(shape: ModelShape, settings: Settings, gpus: int) -> Memory:
    tensor = value_of(settings, f"{ACTOR}.megatron.tensor_model_parallel_size")
    parts = tensor * value_of(settings, f"{ACTOR}.megatron.pipeline_model_parallel_size")
    tokens = _tokens(settings)
    # A pipeline's first stage holds as many micro batches as there are stages, each of its share of the layers.
    logits = tokens * shape.vocabulary * 2 * 4  # and their gradient, both in float32
    activations = activation_bytes(shape, tokens, COMPUTE_BYTES) + logits
    return Memory(
        parameters=shape.parameters * 2 / parts,
        gathered=0.0,
        gradients=shape.parameters * 4 / parts,
        optimizer=shape.parameters * 12 / gpus,
        activations=activations / tensor,
        kv_cache=0.0,
    )


def _tokens(settings: Settings) -> int:
    """Tokens that one GPU works on at a time."""
    if value_of(settings, f"{ACTOR}.use_dynamic_bsz"):
        return value_of(settings, f"{ACTOR}.ppo_max_token_len_per_gpu")
    # Without a micro batch size verl refuses the recipe: recipe_problems says so.
    micro = value_of(settings, f"{ACTOR}.ppo_micro_batch_size_per_gpu") or 1
    return micro * _longest(settings)


def _logit_bytes(settings: Settings) -> int:
    """Of one logit: bfloat16, and flash attention's cross entropy writes its gradient over it, unless the entropy is asked for.

    Source: verl 0.9.1, workers/engine/fsdp/transformer_impl.py, inplace_backward.
    """
    return 4 if value_of(settings, f"{ACTOR}.calculate_entropy") else 2


def sequences_at_once(settings: Settings) -> int:
    """Whole sequences that one GPU works on at a time; one, where several GPUs share it."""
    return max(1, _tokens(settings) // _longest(settings))


def _longest(settings: Settings) -> int:
    """Tokens of the longest sequence: prompt and response."""
    return value_of(settings, "data.max_prompt_length") + value_of(settings, "data.max_response_length")


def _window(shape: ModelShape, settings: Settings) -> int:
    """Tokens of the longest sequence that vLLM plans for: without max_model_len, what the model was made for."""
    return value_of(settings, f"{ROLLOUT}.max_model_len") or shape.positions or _longest(settings)


def rollout_memory(shape: ModelShape, settings: Settings, gpus: int) -> Memory:
    """Bytes on each of `gpus` GPUs while the engine generates: what the actor leaves there, and what the engine needs.

    `gathered` is the engine's copy of the weights, `kv_cache` that of one sequence of the greatest length.
    """
    tensor = value_of(settings, f"{ROLLOUT}.tensor_model_parallel_size")
    held = actor_memory(shape, settings, gpus)
    section = "megatron" if value_of(settings, "model_engine") == "megatron" else "fsdp_config"
    parameters_away = value_of(settings, f"{ACTOR}.{section}.param_offload")
    optimizer_away = value_of(settings, f"{ACTOR}.{section}.optimizer_offload")
    cache = kv_cache_bytes(shape, _window(shape, settings), COMPUTE_BYTES)
    return Memory(
        parameters=0.0 if parameters_away else held.parameters,
        gathered=shape.parameters * COMPUTE_BYTES / tensor,
        gradients=0.0,
        optimizer=0.0 if optimizer_away else held.optimizer,
        activations=0.0,
        kv_cache=cache / min(tensor, shape.kv_heads),
    )


def evaluation_problem(
    shape: ModelShape, *, sequences: int, tokens: int, gpus: int, gpu_bytes: float
) -> str | None:
    """Why the evaluation before and after training does not fit the head's GPUs, over which it spreads one model.

    Args:
        sequences: that are answered at a time.
        tokens: of the longest of them, prompt and answer.
        gpus: of one host, whether verl uses them or not.
    """
    weights, cache = (
        shape.parameters * COMPUTE_BYTES,
        kv_cache_bytes(shape, sequences * tokens, COMPUTE_BYTES),
    )
    if (weights + cache) / gpus + FRAMEWORK_BYTES <= gpu_bytes:
        return None
    return (
        f"The evaluation needs about {(weights + cache) / GB:.0f} GB ({weights / GB:.0f} weights, {cache / GB:.0f} KV cache) "
        f"on the {gpus} GPUs of {gpu_bytes / GB:.0f} GB of one host: lower job.eval_batch_size."
    )


def fit_problems(shape: ModelShape, settings: Settings, *, gpus: int, gpu_bytes: float) -> list[str]:
    """What does not fit on GPUs of this size, each with the settings that would change it; empty if all fits.

    `gpus` counts those that Ray gets, of all hosts (hosts x process_count_per_node); `gpu_bytes` is the memory of one.
    """
    problems, size = [], f"{gpu_bytes / GB:.0f} GB"
    learns = actor_memory(shape, settings, gpus)
    if learns.total + FRAMEWORK_BYTES > gpu_bytes:
        parts = {
            "parameters": learns.parameters,
            "gathered weights": learns.gathered,
            "gradients": learns.gradients,
            "optimizer": learns.optimizer,
            "activations and logits": learns.activations,
        }
        shares = ", ".join(f"{name} {value / GB:.0f}" for name, value in parts.items() if value >= 0.5 * GB)
        problems.append(
            f"The actor needs about {(learns.total + FRAMEWORK_BYTES) / GB:.0f} GB on each of {gpus} GPUs of {size} ({shares} GB): "
            "spread it over more GPUs, train adapters (model.lora_rank), or lower the tokens that are worked on at a "
            "time (ppo_micro_batch_size_per_gpu, or ppo_max_token_len_per_gpu with use_dynamic_bsz)."
        )
    share = value_of(settings, f"{ROLLOUT}.gpu_memory_utilization")
    generates = rollout_memory(shape, settings, gpus)
    engine, kept = generates.gathered + generates.kv_cache, generates.parameters + generates.optimizer
    if engine > share * gpu_bytes:
        problems.append(
            f"The rollout engine may take {share:.0%} of a GPU of {size} (rollout.gpu_memory_utilization), and its share of "
            f"the weights and one sequence of {_window(shape, settings):,} tokens take {engine / GB:.0f} GB: raise "
            "rollout.tensor_model_parallel_size, or set rollout.max_model_len to the longest prompt and response."
        )
    if share * gpu_bytes + kept + FRAMEWORK_BYTES > gpu_bytes:
        problems.append(
            f"While the engine generates in its {share:.0%} of {size}, the actor keeps {kept / GB:.0f} GB on the GPU: set "
            "param_offload and optimizer_offload, or lower rollout.gpu_memory_utilization."
        )
    return problems
