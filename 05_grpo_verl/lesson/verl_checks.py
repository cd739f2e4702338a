"""Preflight of a recipe for verl, which has a form of its own: preflight(trainer, channels, recipe=check_verl_recipe)."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from job.arguments import RecipeError
from lesson.verl_memory import (
    ACTOR,
    ROLLOUT,
    actor_memory,
    evaluation_problem,
    fit_problems,
    sequences_at_once,
)
from rl.tasks import DataError, read_rows
from verl_arguments import VerlJob
from verl_data import admitted_rows, check_rows
from verl_keys import TEMPLATE, Settings, key_problems, value_of
from verl_recipe import TOOL_FILES, read_verl_recipe, recipe_problems
from workshop.checks.data_checks import Unread, local_path
from workshop.checks.instances import find_instance, gpu_bytes
from workshop.checks.memory import FRAMEWORK_BYTES, GB, ModelShape, shape_of
from workshop.checks.request import NOTE, OK, PROBLEM, Check, JobRequest

CPUS_OF_A_SLOT = 8  # that RayCluster offers at least
UNITS = "transfer_queue.backend.SimpleStorage.num_data_storage_units"


def check_verl_recipe(request: JobRequest) -> tuple[dict[str, Any], list[Check]]:
    """What the other checks need to know of the recipe, and what is wrong with it on the machines asked for."""
    recipe_file = request.hyperparameters.get("config")
    if recipe_file is None:
        return {}, [Check("recipe", PROBLEM, 'verl needs the hyperparameter "config": "recipes/tiny.yaml"')]
    if request.source_dir is None:
        return {}, [Check("recipe", NOTE, "the source is not on this machine, so its recipe is not checked")]
    overrides = request.hyperparameters.get("overrides", [])
    try:
        overrides = json.loads(overrides) if isinstance(overrides, str) else overrides
        job, settings = read_verl_recipe(request.source_dir / str(recipe_file), overrides)
    except json.JSONDecodeError as error:
        return {}, [Check("recipe", PROBLEM, f"overrides is no JSON list of texts: {error}")]
    except RecipeError as error:
        return {}, [Check("recipe", PROBLEM, str(error))]
    if problems := list(key_problems(settings)):
        return {"base_model": job.base_model}, [Check("recipe", PROBLEM, problem) for problem in problems]
    unknown = sorted(set(request.hyperparameters) - {"config", "overrides"})
    problems = [f"hyperparameter {key!r}: write it as overrides=['{key}=...']" for key in unknown]
    problems += recipe_problems(job, settings, hosts=request.hosts, gpus_per_host=request.processes_per_host)
    if shape := shape_of(job.base_model):
        problems += shape_problems(shape, settings)
    instance = find_instance(request.instance_type or "")
    if instance:
        problems += cpu_problems(settings, request.hosts, request.processes_per_host, instance.vcpus)
    for key in TOOL_FILES:
        tools = value_of(settings, f"{ROLLOUT}.multi_turn.{key}")
        if tools and not (request.source_dir / tools).is_file():
            problems.append(f"multi_turn.{key}: there is no {tools} in the source")
    checks = [Check("recipe", PROBLEM, problem) for problem in problems]
    checks = checks or [Check("recipe", OK, _describe(recipe_file, settings, request))]
    checks += _check_rows(request, settings)
    return _in_words_of_trl(job, settings, request), [*checks, *_check_memory(request, job, settings)]


def shape_problems(shape: ModelShape, settings: Settings) -> Iterator[str]:
    """Cuts that do not go evenly through the model's attention heads or layers; the engines refuse them on the GPUs."""
    cuts = [(f"{ROLLOUT}.tensor_model_parallel_size", "attention heads", shape.heads)]
    if value_of(settings, "model_engine") == "megatron":
        tensor = f"{ACTOR}.megatron.tensor_model_parallel_size"
        cuts += [(tensor, "attention heads", shape.heads), (tensor, "rows of vocabulary", shape.vocabulary)]
        cuts.append((f"{ACTOR}.megatron.pipeline_model_parallel_size", "layers", shape.layers))
    else:
        sequence = f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size"
        cuts.append((sequence, "attention heads", shape.heads))
    for key, what, count in cuts:
        parts = value_of(settings, key)
        if count % parts:
            yield f"{key} is {parts}, and the model's {count} {what} cannot be dealt evenly to {parts} GPUs: choose a divisor of {count}."


def cpu_problems(settings: Settings, hosts: int, slots: int, vcpus: int) -> Iterator[str]:
    """More actors than Ray has CPUs for: those that find none wait, and verl waits for them without a word (0.9.1).

    Each takes one: verl's task runner, TransferQueue's controller, each of its storage units, and three in each slot.
    """
    units = value_of(settings, UNITS)
    needed, offered = 2 + units + 3 * hosts * slots, hosts * max(vcpus, CPUS_OF_A_SLOT * slots)
    if needed > offered:
        yield (
            f"verl's actors ask Ray for {needed} CPUs ({units} for {UNITS}), and there are {offered}: "
            "the job would wait for ever. Lower it to 1, or take a larger instance."
        )


def _check_rows(request: JobRequest, settings: Settings) -> Iterator[Check]:
    """Enough training rows for one step, as far as they can be read from here."""
    with TemporaryDirectory(prefix="preflight-") as copies:
        try:
            path, _ = local_path(request, dict(request.channels).get("train"), Path(copies))
            rows = read_rows(path)
        except (DataError, Unread):
            return  # another check says what is wrong with the data
    try:
        check_rows(settings, len(rows))
    except DataError as error:
        yield Check("steps", PROBLEM, str(error))
        return
    steps, prompts = settings["trainer"]["total_training_steps"], value_of(settings, "data.train_batch_size")
    there, asked = admitted_rows(settings, len(rows)), steps * prompts
    use = (
        f"{asked:,} of them are used, once each" if asked < there else f"{_times(asked / there)} through them"
    )
    yield Check("steps", OK, f"{steps} steps of {prompts} of the {there:,} prompts: {use}")


def _times(count: float) -> str:
    return "once" if count == 1 else f"{count:.3g} times"


def _check_memory(request: JobRequest, job: VerlJob, settings: Settings) -> Iterator[Check]:
    """Whether model and recipe fit the instance's GPUs, as far as both are known."""
    if job.device == "cpu" or not request.instance_type:
        return
    if request.local:
        yield Check(
            "machines",
            PROBLEM,
            "job.device is gpu, and jobs of local mode have none: recipes/tiny.yaml, its relatives and recipes/tools.yaml run here",
        )
    each, shape = gpu_bytes(request.instance_type, request.region), shape_of(job.base_model)
    if request.gpus == 0:
        yield Check("memory", PROBLEM, f"job.device is gpu, and {request.instance_type} has none")
    elif each is None or shape is None:
        lacks = request.instance_type if each is None else f"{job.base_model} (workshop.checks.memory.SHAPES)"
        yield Check("memory", NOTE, f"not checked: the size of {lacks} is not known here")
    else:
        gpus = request.hosts * request.processes_per_host
        problems = fit_problems(shape, settings, gpus=gpus, gpu_bytes=each)
        evaluation = evaluation_problem(
            shape,
            sequences=min(job.eval_batch_size, job.eval_problems or job.eval_batch_size),
            tokens=value_of(settings, "data.max_prompt_length") + job.eval_max_new_tokens,
            gpus=request.gpus or 1,
            gpu_bytes=each,
        )
        problems += [evaluation] if evaluation else []
        needed = (actor_memory(shape, settings, gpus).total + FRAMEWORK_BYTES) / GB
        fits = Check(
            "memory", OK, f"about {needed:.0f} of {each / GB:.0f} GB on each GPU while the actor learns"
        )
        yield from [Check("memory", PROBLEM, problem) for problem in problems] or [fits]


def _in_words_of_trl(job: VerlJob, settings: Settings, request: JobRequest) -> dict[str, Any]:
    """The recipe under the names that TRL's recipes have, as far as the other checks read them."""
    drops = value_of(settings, "data.filter_overlong_prompts")
    words = {
        "base_model": job.base_model,
        "rewards": job.rewards,
        "reward_weights": job.reward_weights,
        "verifier": job.verifier,
        "max_prompt_length": None if drops else value_of(settings, "data.max_prompt_length"),
        "eval_max_new_tokens": job.eval_max_new_tokens,
        "max_completion_length": value_of(settings, "data.max_response_length"),
        "chat_template_kwargs": value_of(settings, TEMPLATE),
        "use_cpu": job.device == "cpu",
        "rollout_name": value_of(settings, f"{ROLLOUT}.name"),
        "save_strategy": "steps",  # verl_keys.REQUIRED has trainer.save_freq
    }
    # Local mode refuses recipes for GPUs in verl's own words, above.
    return (
        words
        if request.local or job.device == "cpu"
        else words | _work_in_words_of_trl(job, settings, request)
    )


def _work_in_words_of_trl(job: VerlJob, settings: Settings, request: JobRequest) -> dict[str, Any]:
    """How much there is to do on each GPU, for the estimate of the time."""
    completions = value_of(settings, "data.train_batch_size") * value_of(settings, f"{ROLLOUT}.n")
    slots = request.hosts * request.processes_per_host
    each = max(1, completions // slots)
    at_once = min(each, sequences_at_once(settings))
    megatron = value_of(settings, "model_engine") == "megatron"
    return {
        "dtype": "bfloat16",  # of evaluation and rollout
        "bf16": True,
        "use_vllm": value_of(settings, f"{ROLLOUT}.name") == "vllm",
        "vllm_tensor_parallel_size": value_of(settings, f"{ROLLOUT}.tensor_model_parallel_size"),
        "per_device_train_batch_size": at_once,
        "gradient_accumulation_steps": each // at_once,
        "max_steps": settings["trainer"]["total_training_steps"],
        "lora_rank": value_of(settings, "actor_rollout_ref.model.lora_rank"),
        "gradient_checkpointing": bool(
            value_of(settings, "actor_rollout_ref.model.enable_gradient_checkpointing")
        ),
        "fsdp": None if megatron else "full_shard",
        "eval_problems": job.eval_problems,
        "eval_samples": job.eval_samples,
        "eval_batch_size": job.eval_batch_size,
        "eval_processes": 1,  # train.py evaluates on the head, one model over its GPUs
    }


def _describe(recipe_file: str, settings: Settings, request: JobRequest) -> str:
    prompts, group = value_of(settings, "data.train_batch_size"), value_of(settings, f"{ROLLOUT}.n")
    slots = request.hosts * request.processes_per_host
    return f"{recipe_file}: {prompts} prompts x {group} completions a step on {slots} slots of Ray"
