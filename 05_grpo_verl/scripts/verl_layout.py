"""How a recipe cuts a model over processes, and what cannot be: FSDP and Ulysses (engine dp), tensor and pipeline (megatron).

    for problem in layout_problems(job, settings, gpus=16, per_host=8): ...

Needs neither verl nor torch: verl_recipe asks for it, and so does a notebook.
"""

import math
from collections.abc import Iterator

from rl.spelling import unknown_name
from verl_arguments import VerlJob
from verl_keys import ACTOR, ENGINES, MODEL, Settings, value_of

Problems = Iterator[str]
# Attention functions that call the all-to-all of verl's Ulysses, on each device. The others attend within the slice of a
# sequence that a process holds, and say nothing.
REACH_ULYSSES = {"cpu": ("packed",), "gpu": ("flash_attention_2", "flash_attention_3")}
# Of Megatron's section: what needs Transformer Engine or CUDA (key -> the value that does not, and why)
MEGATRON_ON_CPU = {
    "sequence_parallel": (False, "Megatron's torch norms refuse it (it needs those of Transformer Engine)"),
    "context_parallel_size": (1, "it needs the attention of Transformer Engine"),
    "use_distributed_optimizer": (False, "its buffers and kernels are CUDA's"),
    "param_offload": (False, "there is no other memory to move weights to"),
    "optimizer_offload": (False, "there is no other memory to move its state to"),
}
# What Megatron's layers are told on a CPU: neither fused kernels of CUDA, nor what mbridge turns on for Transformer Engine.
TRANSFORMER_ON_CPU = {
    "use_cpu_initialization": True,
    "sequence_parallel": False,
    "masked_softmax_fusion": False,
    "gradient_accumulation_fusion": False,
    "bias_activation_fusion": False,
    "bias_dropout_fusion": False,
    "apply_rope_fusion": False,
    "persist_layer_norm": False,
}


def layout_problems(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    """What keeps the recipe's cut of the model from running on `gpus` GPUs (on CPUs: processes) in hosts of `per_host`."""
    engine = value_of(settings, "model_engine")
    if engine not in ENGINES:
        yield f"{unknown_name('model_engine', str(engine), ENGINES)} dp is FSDP, and what verl takes if nothing is said."
    if engine == "megatron":
        yield from _megatron(settings, gpus, per_host)
        yield from _megatron_schedule(settings)
        yield from _megatron_parts_of_the_image(settings)
        if job.device == "cpu":
            yield from _megatron_on_a_cpu(settings)
    else:
        yield from _fsdp(job, settings)
        yield from _ulysses(job, settings, gpus)
        yield from _adapters_on_a_cpu(job, settings)


def gpus_per_copy(settings: Settings) -> int:
    """GPUs that work on the same completions: model parts under Megatron, sequence parts under Ulysses."""
    if value_of(settings, "model_engine") == "megatron":
        return math.prod(megatron_parts(settings))
    return value_of(settings, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size")


def megatron_parts(settings: Settings) -> tuple[int, int, int]:
    """Into how many parts Megatron cuts each layer, the stack of layers, and each sequence."""
    tensor = value_of(settings, f"{ACTOR}.megatron.tensor_model_parallel_size")
    pipeline = value_of(settings, f"{ACTOR}.megatron.pipeline_model_parallel_size")
    return tensor, pipeline, value_of(settings, f"{ACTOR}.megatron.context_parallel_size")


def _megatron(settings: Settings, gpus: int, per_host: int) -> Problems:
    tensor, pipeline, context = megatron_parts(settings)
    product = tensor * pipeline * context
    if gpus % product:
        yield (
            f"Megatron cuts one copy of the model into tensor {tensor} x pipeline {pipeline} x context {context} = "
            f"{product} parts, one a GPU, and {gpus} GPUs do not hold a whole number of copies: the product must divide "
            f"{gpus}."
        )
    if tensor > per_host:
        yield (
            f"tensor_model_parallel_size {tensor} reaches over several hosts of {per_host} GPUs: its traffic needs the "
            "fast links inside one host. Use pipeline_model_parallel_size between hosts."
        )


def _megatron_schedule(settings: Settings) -> Problems:
    warmup, steps = (
        value_of(settings, f"{ACTOR}.optim.lr_warmup_steps"),
        settings["trainer"]["total_training_steps"],
    )
    if (warmup or 0) >= steps:
        yield (
            f"{ACTOR}.optim.lr_warmup_steps is {warmup} and trainer.total_training_steps {steps}: Megatron's schedule wants "
            "fewer steps of warm-up than of training, and says so with an empty AssertionError after everything has started."
        )
    if value_of(settings, key := f"{ACTOR}.optim.use_checkpoint_opt_param_scheduler") is not True:
        yield (
            f"Set {key}: true. Without it verl does not read Megatron's schedule from a checkpoint, and a job that goes on "
            "would begin its warm-up once more, without a word."
        )


def _megatron_parts_of_the_image(settings: Settings) -> Problems:
    if value_of(settings, f"{ACTOR}.megatron.vanilla_mbridge") is not True:
        yield (
            f"Set {ACTOR}.megatron.vanilla_mbridge: true. verl's default is Megatron-Bridge, which wants an older "
            "transformers than verl does, so that neither the image nor requirements.txt has it; mbridge, its "
            "predecessor, is there."
        )
    for key in ("lora_rank", "lora.rank"):
        if value_of(settings, f"{MODEL}.{key}"):
            yield (
                f"{MODEL}.{key} is {value_of(settings, f'{MODEL}.{key}')}, and under Megatron verl trains adapters with "
                "Megatron-Bridge only, which the image does not have: set it to 0, or leave model_engine out (FSDP)."
            )


def _megatron_on_a_cpu(settings: Settings) -> Problems:
    for key, (wanted, why) in MEGATRON_ON_CPU.items():
        if (found := value_of(settings, f"{ACTOR}.megatron.{key}")) != wanted:
            yield (
                f"{ACTOR}.megatron.{key} is {found}, and job.device is cpu, where {why}: set it to {wanted}."
            )
    if value_of(settings, f"{MODEL}.use_remove_padding") is not False:
        yield (
            f"Set {MODEL}.use_remove_padding: false. job.device is cpu, where Megatron cannot attend within packed "
            "sequences (that takes the attention of Transformer Engine)."
        )


def _fsdp(job: VerlJob, settings: Settings) -> Problems:
    strategy = value_of(settings, f"{ACTOR}.strategy")
    if strategy not in ("fsdp", "fsdp2"):
        yield f"{ACTOR}.strategy is '{strategy}': write fsdp2, or fsdp, or choose model_engine: megatron."
    if strategy == "fsdp" and job.device == "cpu":
        yield f"{ACTOR}.strategy must be fsdp2 on a CPU: torch's first FSDP shards on GPUs only."


def _adapters_on_a_cpu(job: VerlJob, settings: Settings) -> Problems:
    if job.device != "cpu" or value_of(settings, f"{MODEL}.lora.merge") is True:
        return
    for key in ("lora_rank", "lora.rank"):
        if value_of(settings, f"{MODEL}.{key}"):
            yield (
                f"Set {MODEL}.lora.merge: true. {MODEL}.{key} trains adapters, and job.device is cpu, where the rollout "
                "takes whole weights: it cannot add adapters to its own."
            )


def _ulysses(job: VerlJob, settings: Settings, gpus: int) -> Problems:
    sequence = value_of(settings, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size")
    attention = value_of(settings, f"{MODEL}.override_config").get("attn_implementation", "flash_attention_2")
    reach = REACH_ULYSSES[job.device]
    if attention == "packed" and job.device != "cpu":
        yield (
            f"{MODEL}.override_config.attn_implementation is packed, which verl_cpu brings for CPUs alone: leave it out, "
            "and verl takes flash_attention_2."
        )
    if gpus % sequence:
        yield (
            f"Ulysses splits each sequence over {sequence} GPUs (fsdp_config.ulysses_sequence_parallel_size), and "
            f"{gpus} GPUs are not whole groups of {sequence}: choose a divisor of {gpus}."
        )
    if sequence == 1:
        return
    if value_of(settings, f"{MODEL}.use_remove_padding") is not True:
        yield (
            "Ulysses (fsdp_config.ulysses_sequence_parallel_size above 1) splits packed sequences, so "
            "actor_rollout_ref.model.use_remove_padding must be true."
        )
    if attention not in reach:
        yield (
            f"Ulysses splits each sequence over {sequence} processes, which exchange what they hold within flash attention "
            f"alone; with attn_implementation {attention} each would attend within its own part, without a word, and "
            f"train something else. On a {job.device.upper()} use {' or '.join(reach)} "
            f"({MODEL}.override_config.attn_implementation)."
        )
