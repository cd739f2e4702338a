"""Preflight of a recipe for verl, which has its own form (rl.verl_recipe)."""

import json
from collections.abc import Iterator
from typing import Any

from rl.recipe import RecipeError
from rl.verl_keys import key_problems, value_of
from rl.verl_recipe import VerlJob, read_verl_recipe, recipe_problems

from workshop.instances import gpu_bytes
from workshop.memory import GB, SHAPES, ModelShape
from workshop.request import NOTE, OK, PROBLEM, Check, JobRequest
from workshop.verl_memory import FRAMEWORK, actor_memory, fit_problems


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
    except (RecipeError, json.JSONDecodeError) as error:
        return {}, [Check("recipe", PROBLEM, str(error))]
    if problems := list(key_problems(settings)):
        return _as_others(job, settings), [Check("recipe", PROBLEM, problem) for problem in problems]
    unknown = sorted(set(request.hyperparameters) - {"config", "overrides"})
    checks = [
        Check("recipe", PROBLEM, f"hyperparameter {key!r}: write it as overrides=['{key}=...']")
        for key in unknown
    ]
    machines = {"hosts": request.hosts, "gpus_per_host": request.processes_per_host}
    checks += [Check("recipe", PROBLEM, problem) for problem in recipe_problems(job, settings, **machines)]
    if shape := _shape(job):
        checks += [Check("recipe", PROBLEM, problem) for problem in shape_problems(shape, settings)]
    tools = value_of(settings, "actor_rollout_ref.rollout.multi_turn.function_tool_path")
    if tools and not (request.source_dir / tools).is_file():
        checks.append(
            Check("recipe", PROBLEM, f"multi_turn.function_tool_path: there is no {tools} in the source")
        )
    checks = checks or [Check("recipe", OK, _describe(recipe_file, settings, request))]
    return _as_others(job, settings), [*checks, *_check_memory(request, job, settings)]


def _shape(job: VerlJob) -> ModelShape | None:
    packaged = {"pypi:smollm2": "SmolLM2-135M"}
    return SHAPES.get(packaged.get(job.base_model, job.base_model.rpartition("/")[2]))


def shape_problems(shape: ModelShape, settings: dict[str, Any]) -> Iterator[str]:
    """Cuts that do not go evenly through the model's attention heads or layers; the engines refuse them on the GPUs."""
    megatron = settings.get("model_engine", "dp") == "megatron"
    actor = "actor_rollout_ref.actor"
    cuts = [("actor_rollout_ref.rollout.tensor_model_parallel_size", 2, "attention heads", shape.heads)]
    if megatron:
        cuts.append((f"{actor}.megatron.tensor_model_parallel_size", 1, "attention heads", shape.heads))
        cuts.append((f"{actor}.megatron.pipeline_model_parallel_size", 1, "layers", shape.layers))
    else:
        sequence = f"{actor}.fsdp_config.ulysses_sequence_parallel_size"
        cuts.append((sequence, 1, "attention heads", shape.heads))
    for key, default, what, count in cuts:
        parts = value_of(settings, key, default)
        if count % parts:
            yield f"{key} is {parts}, and the model's {count} {what} cannot be dealt evenly to {parts} GPUs: choose a divisor of {count}."


def _check_memory(request: JobRequest, job: VerlJob, settings: dict[str, Any]) -> Iterator[Check]:
    """Whether model and recipe fit the instance's GPUs, as far as both are known."""
    if job.device == "cpu" or not request.instance_type:
        return
    if request.local:
        yield Check(
            "machines",
            PROBLEM,
            "job.device is gpu, and jobs of local mode have none: recipes/tiny.yaml and recipes/tools.yaml run here",
        )
    each, shape = gpu_bytes(request.instance_type, request.region), _shape(job)
    if request.gpus == 0:
        yield Check("memory", PROBLEM, f"job.device is gpu, and {request.instance_type} has none")
    elif each is None or shape is None:
        lacks = request.instance_type if each is None else f"{job.base_model} (workshop.memory.SHAPES)"
        yield Check("memory", NOTE, f"not checked: the size of {lacks} is not known here")
    else:
        gpus = request.hosts * request.gpus
        problems = fit_problems(shape, settings, gpus=gpus, gpu_bytes=each)
        needed = (actor_memory(shape, settings, gpus).total + FRAMEWORK) / GB
        fits = Check(
            "memory", OK, f"about {needed:.0f} of {each / GB:.0f} GB on each GPU while the actor learns"
        )
        yield from [Check("memory", PROBLEM, problem) for problem in problems] or [fits]


def _as_others(job: VerlJob, settings: dict[str, Any]) -> dict[str, Any]:
    """The recipe under the names that TRL's recipes have, as far as the other checks read them."""
    return {
        "base_model": job.base_model,
        "rewards": job.rewards,
        "reward_weights": job.reward_weights,
        "use_cpu": job.device == "cpu",
        "save_strategy": "steps",  # rl.verl_keys.NEEDED
    }


def _describe(recipe_file: str, settings: dict[str, Any], request: JobRequest) -> str:
    prompts = value_of(settings, "data.train_batch_size", 1024)
    group = value_of(settings, "actor_rollout_ref.rollout.n", 1)
    processes = request.hosts * request.processes_per_host
    return f"{recipe_file}: {prompts} prompts x {group} completions a step on {processes} slots of Ray"
