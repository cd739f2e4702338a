"""A recipe for verl: what it says, and the mistakes in it that verl finds late, or never.

The section `job` holds the workshop's settings (`verl_arguments.VerlJob`); every other key is verl's own, nested as in verl's
documentation. Overrides have Hydra's form, and `job.` in front for the first kind:

    python train.py --config recipes/tiny.yaml --overrides '["trainer.total_training_steps=2", "job.eval_samples=1"]'

Needs neither verl nor torch, so that a notebook refuses a bad recipe before a job is created.
"""

import dataclasses
import re
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from job.arguments import RecipeError
from job.recipe import read_recipe
from rl.spelling import unknown_name
from verl_arguments import VerlJob
from verl_keys import ACTOR, DEFAULTS, ESTIMATORS, ROLLOUT, Settings, key_problems, value_of
from verl_known_keys import unknown_keys
from verl_layout import gpus_per_copy, layout_problems

ROLLOUTS = {"vllm": "GPUs", "sglang": "GPUs", "trtllm": "GPUs", "hf": "CPU, with job.device: cpu"}
_BATCH_SIZES = (
    "A step takes data.train_batch_size prompts with rollout.n completions each; the actor learns from "
    "ppo_mini_batch_size prompts (times n) in one optimizer step, ppo_micro_batch_size_per_gpu completions at a time "
    "on each GPU."
)
LOOPS = ("single_turn_agent", "tool_agent")
TOOL_FILES = ("function_tool_path", "tool_config_path")
TOOL_FORMATS = ("hermes", "qwen3_coder")  # of verl's, those that are plain text
MAX_LORA_RANK = 512  # that vLLM serves
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_LEGACY_REWARDS = ("custom_reward_function", "reward_model", "sandbox_fusion")


def read_verl_recipe(path: Path | str, overrides: Sequence[str] = ()) -> tuple[VerlJob, Settings]:
    """The recipe's two parts with overrides ("key.of.verl=value") applied: the job, and verl's nested settings.

    Raises:
        RecipeError: see `job.recipe.read_recipe`; an unknown key or a useless value in `job`; an override of another
            form.
    """
    settings = read_recipe(path)
    if isinstance(overrides, str) or not isinstance(overrides, Sequence):
        raise RecipeError(f'overrides is {overrides!r}: write a list of texts, such as ["data.seed=1"].')
    for override in overrides:
        _apply(settings, override)
    section = settings.pop("job", None) or {}
    settings = _with_numbers(settings)
    if not isinstance(section, dict):
        raise RecipeError(f"job is {section!r}, but it is a section: keys of its own stand below it.")
    known = {field.name for field in dataclasses.fields(VerlJob)}
    for key in section:
        if key not in known:
            raise RecipeError(unknown_name("key of job", key, known))
    if "reward_weights" in section:
        section["reward_weights"] = _with_numbers(section["reward_weights"])
    return VerlJob(**section), settings


def _with_numbers(value: Any) -> Any:
    """The same with 1e-4 as a number: YAML 1.1 wants 1.0e-4, reads 1e-4 as text, and verl would stumble over that."""
    if isinstance(value, dict):
        return {key: _with_numbers(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_with_numbers(below) for below in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _apply(settings: Settings, override: str) -> None:
    """Sets what "key.of.verl=value" says, in place."""
    key, equals, text = str(override).partition("=")
    if not equals or not key:
        raise RecipeError(
            f"override '{override}' must have the form key=value, such as data.train_batch_size=8."
        )
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise RecipeError(f"override '{override}': the value is not valid YAML: {error}") from error
    *above, last = key.lstrip("+").split(".")
    for name in above:
        settings = settings.setdefault(name, {})
        if not isinstance(settings, dict):
            raise RecipeError(
                f"override '{override}': '{name}' holds a value, so nothing can stand below it."
            )
    settings[last] = value


def score_arguments(job: VerlJob, settings: Settings, opening: str = "") -> dict[str, Any]:
    """The keyword arguments with which verl calls `rl.rewards.compute_score` under this recipe.

    `opening` is what the chat template puts into an answer before the model writes (`rl.templates.opening`).
    """
    return {
        "rewards": job.rewards,
        "reward_weights": job.reward_weights,
        "verifier": job.verifier,
        "opening": opening,
        "max_completion_length": value_of(settings, "data.max_response_length"),
    }


def recipe_problems(job: VerlJob, settings: Settings, *, hosts: int, gpus_per_host: int) -> list[str]:
    """What keeps a job with this recipe from running on `hosts` x `gpus_per_host` GPUs; empty if nothing is found."""
    gpus = hosts * gpus_per_host
    if problems := list(key_problems(settings)):
        return problems  # the other checks reckon with these values
    checks = (
        _legacy_rewards,
        _unknown,
        _rollout,
        _rollout_parts,
        _tools,
        layout_problems,
        _batches,
        _lengths,
        _lora,
    )
    problems = [problem for check in checks for problem in check(job, settings, gpus, gpus_per_host)]
    if hosts > 1 and job.base_model.startswith("pypi:"):
        problems.append(
            f"job.base_model {job.base_model} is unpacked on the first host only: name one with hub:."
        )
    return problems


def check_source(source: str, base_model: str, *, hosts: int) -> None:
    """Whether each host finds the model at `source`, the path or name that all of verl's processes are given.

    Raises:
        RecipeError: it was merged or unpacked on this host, and there are others.
    """
    if hosts > 1 and Path(source).is_relative_to(tempfile.gettempdir()):
        raise RecipeError(
            f"job.base_model {base_model} holds adapters or a model.tar.gz; merged or unpacked, it lies on the first host "
            "only: give the whole model as a folder, with config.json and its weights side by side in the channel."
        )


Problems = Iterator[str]


def _legacy_rewards(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    for key in _LEGACY_REWARDS:
        if key in settings:
            yield (
                f"'{key}' at the top level is verl's old name; verl 0.9 reads it without a word and ignores it. Rewards "
                f"belong in job.rewards; other settings of this kind below 'reward' (reward.{key})."
            )


def _unknown(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    own = {key: value for key, value in settings.items() if key not in _LEGACY_REWARDS}
    yield from unknown_keys(own, value_of(settings, "model_engine"))


def _rollout(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    name = value_of(settings, f"{ROLLOUT}.name")
    if name not in ROLLOUTS:
        known = ", ".join(f"{known} ({where})" for known, where in ROLLOUTS.items())
        yield f"{ROLLOUT}.name is '{name}'; verl would find out only when the GPUs run. Known: {known}."
    elif (name == "hf") != (job.device == "cpu"):
        yield (
            f"{ROLLOUT}.name is '{name}', which is for {ROLLOUTS[name]}, but job.device is {job.device}: change one "
            "of them."
        )
    estimator = value_of(settings, "algorithm.adv_estimator")
    if estimator not in ESTIMATORS:
        yield f"algorithm.adv_estimator: {unknown_name('estimator', estimator, ESTIMATORS)}"
    if estimator in ("grpo", "rloo", "gdpo") and value_of(settings, f"{ROLLOUT}.n") < 2:
        yield f"{ROLLOUT}.n must be 2 or more: a completion is compared with others to the same prompt."


def _rollout_parts(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    tensor = value_of(settings, f"{ROLLOUT}.tensor_model_parallel_size")
    size = tensor * value_of(settings, f"{ROLLOUT}.pipeline_model_parallel_size")
    size *= value_of(settings, f"{ROLLOUT}.data_parallel_size")
    if value_of(settings, f"{ROLLOUT}.name") == "hf" and size != 1:
        yield (
            f"The rollout hf holds a whole model in each process: set {ROLLOUT}.tensor_model_parallel_size to 1 "
            f"(verl's default is {DEFAULTS[f'{ROLLOUT}.tensor_model_parallel_size']})."
        )
    if gpus % size or (size <= per_host and per_host % size) or (size > per_host and size % per_host):
        yield (
            f"One copy of the rollout model takes {size} GPUs ({ROLLOUT}.tensor_model_parallel_size {tensor}, times its "
            f"pipeline and data parallel sizes), which does not divide the {gpus} GPUs in hosts of {per_host}: choose a "
            f"divisor of {per_host}."
        )


def _tools(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    enabled = bool(value_of(settings, f"{ROLLOUT}.multi_turn.enable"))
    turns = value_of(settings, f"{ROLLOUT}.multi_turn.max_assistant_turns")
    loop = value_of(settings, f"{ROLLOUT}.agent.default_agent_loop")
    form = value_of(settings, f"{ROLLOUT}.multi_turn.format")
    if loop not in LOOPS:
        yield (
            f"agent.default_agent_loop is {loop}: the evaluation before and after training knows verl's "
            f"{' and '.join(LOOPS)}, and would measure something else than what is trained."
        )
    elif enabled != (loop == "tool_agent"):
        yield (
            f"multi_turn.enable is {enabled} and agent.default_agent_loop is {loop}: verl then rolls out single turns "
            "without a word, or calls tools that are not meant. Set true with tool_agent, or neither."
        )
    elif enabled and not (
        turns and any(value_of(settings, f"{ROLLOUT}.multi_turn.{key}") for key in TOOL_FILES)
    ):
        yield (
            "multi_turn needs function_tool_path, a file that registers tools with verl's @function_tool, or "
            "tool_config_path, a file that lists classes of tools with a state, and max_assistant_turns, 2 or more: one to "
            "call, one to answer."
        )
    elif enabled and turns < 2:
        yield "multi_turn.max_assistant_turns is 1: the model would call a tool and never read its result. Set 2 or more."
    elif enabled and form not in TOOL_FORMATS:
        yield (
            f"multi_turn.format is {form}: the evaluation before and after training reads calls in the formats "
            f"{' and '.join(TOOL_FORMATS)}. Others are marked by special tokens, which a text does not show, so that "
            "training would call tools and the evaluation never."
        )


def _batches(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    prompts, group = value_of(settings, "data.train_batch_size"), value_of(settings, f"{ROLLOUT}.n")
    mini = value_of(settings, f"{ACTOR}.ppo_mini_batch_size")
    micro = value_of(settings, f"{ACTOR}.ppo_micro_batch_size_per_gpu")
    dynamic = value_of(settings, f"{ACTOR}.use_dynamic_bsz")
    copies = gpus // gpus_per_copy(settings)
    if mini > prompts or prompts % mini:
        yield f"data.train_batch_size {prompts} is not a multiple of ppo_mini_batch_size {mini}. {_BATCH_SIZES}"
    elif copies and mini * group % copies:
        yield (
            f"ppo_mini_batch_size {mini} x rollout.n {group} = {mini * group} completions cannot be dealt evenly to "
            f"{copies} copies of the model. {_BATCH_SIZES}"
        )
    elif not dynamic and not micro:
        yield f"Set ppo_micro_batch_size_per_gpu, or use_dynamic_bsz: true. {_BATCH_SIZES}"
    elif not dynamic and copies and mini * group // copies % micro:
        yield (
            f"{mini * group // copies} completions of a mini batch fall to each copy of the model, which is not a "
            f"multiple of ppo_micro_batch_size_per_gpu {micro}. {_BATCH_SIZES}"
        )
    scored = value_of(settings, f"{ROLLOUT}.log_prob_micro_batch_size_per_gpu")
    if not dynamic and scored and copies and prompts * group // copies % scored:
        yield (
            f"{prompts * group // copies} completions of a step fall to each copy of the model, which is not a multiple "
            f"of rollout.log_prob_micro_batch_size_per_gpu {scored}: how many it looks at again at a time."
        )


def _lengths(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    longest = value_of(settings, "data.max_prompt_length") + value_of(settings, "data.max_response_length")
    sharing = value_of(settings, f"{ACTOR}.fsdp_config.ulysses_sequence_parallel_size")
    room = value_of(settings, f"{ACTOR}.ppo_max_token_len_per_gpu") * sharing
    if value_of(settings, f"{ACTOR}.use_dynamic_bsz") and longest > room:
        yield (
            f"The longest prompt and response have {longest} tokens, but ppo_max_token_len_per_gpu lets {room} of them "
            "onto the GPUs that share a sequence: raise it, or shorten data.max_response_length."
        )
    window = value_of(settings, f"{ROLLOUT}.max_model_len")
    if window and window < longest:
        yield (
            f"{ROLLOUT}.max_model_len is {window}, and the longest prompt and response have {longest} tokens: vLLM would cut "
            "responses short without a word. Raise it."
        )


def _lora(job: VerlJob, settings: Settings, gpus: int, per_host: int) -> Problems:
    rank = value_of(settings, "actor_rollout_ref.model.lora_rank")
    if rank > MAX_LORA_RANK and value_of(settings, f"{ROLLOUT}.name") == "vllm":
        yield (
            f"actor_rollout_ref.model.lora_rank is {rank}, and vLLM serves adapters of rank {MAX_LORA_RANK} at most. "
            "Ranks of 8 to 64 are usual; to train more than that, train all weights (lora_rank: 0)."
        )
