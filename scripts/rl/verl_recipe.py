"""A recipe for verl: what it says, and the mistakes in it that verl finds late, or never.

The section `job` holds the workshop's settings (`VerlJob`); every other key is verl's own, nested as in verl's
documentation. Overrides have Hydra's form, and `job.` in front for the first kind:

    python train.py --config recipes/tiny.yaml --overrides '["trainer.total_training_steps=2", "job.eval_samples=1"]'

Needs neither verl nor torch, so that a notebook refuses a bad recipe before a job is created.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from typing import Any

import yaml

from rl.recipe import RecipeError, read_recipe, unknown_name
from rl.rewards import REWARDS
from rl.verl_keys import ENGINES, ESTIMATORS, key_problems, not_whole, value_of

ROLLOUTS = {"vllm": "GPUs", "sglang": "GPUs", "trtllm": "GPUs", "hf": "CPU, with job.device: cpu"}
_HOW_BATCHES_FIT = (
    "A step takes data.train_batch_size prompts with rollout.n completions each; the actor learns from "
    "ppo_mini_batch_size prompts (times n) in one optimizer step, ppo_micro_batch_size_per_gpu completions at a time "
    "on each GPU."
)
MAX_LORA_RANK = 512  # of vLLM
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+")
_LEGACY_REWARDS = ("custom_reward_function", "reward_model", "sandbox_fusion")


@dataclasses.dataclass
class VerlJob:
    """What a recipe says besides verl's own keys; the fields mean what they mean in `rl.recipe.JobArguments`.

    `device: cpu` trains on CPU processes with the package verl_cpu, `gpu` on GPUs.
    """

    module: str = ""
    recipe: str = ""
    base_model: str = "asset:tiny"
    device: str = "gpu"
    rewards: list[str] = dataclasses.field(default_factory=lambda: ["accuracy", "format"])
    reward_weights: list[float] | None = None
    eval_problems: int | None = None
    eval_samples: int = 4
    eval_batch_size: int = 64
    eval_max_new_tokens: int = 128
    report_to: list[str] = dataclasses.field(default_factory=list)
    run_name: str | None = None
    experiment: str = "rl-workshop"

    @property
    def scoring(self) -> dict[str, Any]:
        """The keyword arguments of `rl.rewards.compute_score`."""
        weights = {"reward_weights": self.reward_weights} if self.reward_weights else {}
        return {"rewards": self.rewards, **weights}

    def __post_init__(self) -> None:
        """Refuses values no job can run with. Raises RecipeError."""
        if not isinstance(self.rewards, list) or not self.rewards:
            raise RecipeError(
                f"job.rewards is {self.rewards!r}: write a list of names, such as [accuracy, format]."
            )
        for name in self.rewards:
            if name not in REWARDS:
                raise RecipeError(f"job.rewards: {unknown_name('reward', name, REWARDS)}")
        if not isinstance(self.reward_weights, list | None):
            raise RecipeError(
                f"job.reward_weights is {self.reward_weights!r}: write a list with one number for each reward."
            )
        if self.reward_weights is not None and len(self.reward_weights) != len(self.rewards):
            raise RecipeError(
                f"job.reward_weights has {len(self.reward_weights)} numbers for {len(self.rewards)} rewards."
            )
        if self.device not in ("cpu", "gpu"):
            raise RecipeError(f"job.device: '{self.device}' is neither cpu nor gpu.")
        counts = ["eval_samples", "eval_batch_size", "eval_max_new_tokens"]
        for name in counts if self.eval_problems is None else ["eval_problems", *counts]:
            if problem := not_whole(f"job.{name}", getattr(self, name), least=1):
                raise RecipeError(problem)


def read_verl_recipe(path: Any, overrides: Sequence[str] = ()) -> tuple[VerlJob, dict[str, Any]]:
    """The recipe's two parts with overrides ("key.of.verl=value") applied: the job, and verl's nested settings.

    Raises:
        RecipeError: see `rl.recipe.read_recipe`; an unknown key in `job`, or an override that has no such form.
    """
    settings = read_recipe(path)
    for override in overrides:
        key, equals, value = override.partition("=")
        if not equals or not key:
            raise RecipeError(
                f"override '{override}' must have the form key=value, such as data.train_batch_size=8."
            )
        _set(settings, key.lstrip("+"), yaml.safe_load(value), override)
    job = settings.pop("job", None) or {}
    settings = _with_numbers(settings)
    known = {field.name for field in dataclasses.fields(VerlJob)}
    for key in job:
        if key not in known:
            raise RecipeError(unknown_name("key of job", key, known))
    return VerlJob(**job), settings


def _with_numbers(value: Any) -> Any:
    """The same with 1e-4 as a number: YAML 1.1 wants 1.0e-4, reads 1e-4 as text, and verl would stumble over that."""
    if isinstance(value, dict):
        return {key: _with_numbers(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_with_numbers(below) for below in value]
    return float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value


def _set(settings: dict[str, Any], key: str, value: Any, override: str) -> None:
    *above, last = key.split(".")
    for name in above:
        settings = settings.setdefault(name, {})
        if not isinstance(settings, dict):
            raise RecipeError(
                f"override '{override}': '{name}' holds a value, so nothing can stand below it."
            )
    settings[last] = value


def recipe_problems(job: VerlJob, settings: dict[str, Any], *, hosts: int, gpus_per_host: int) -> list[str]:
    """What keeps a job with this recipe from running on `hosts` x `gpus_per_host` GPUs; empty if nothing is found."""
    gpus = hosts * gpus_per_host
    if problems := list(key_problems(settings)):
        return problems  # the other checks reckon with these values
    checks = (_legacy_rewards, _rollout, _tools, _parallel, _batches, _lengths, _lora)
    problems = [problem for check in checks for problem in check(job, settings, gpus, gpus_per_host)]
    if hosts > 1 and job.base_model.startswith("pypi:"):
        problems.append(
            f"job.base_model {job.base_model} is unpacked on the first host only: name one with hub:."
        )
    return problems


Problems = Iterator[str]


def _legacy_rewards(job: VerlJob, settings: dict[str, Any], gpus: int, per_host: int) -> Problems:
    for key in _LEGACY_REWARDS:
        if key in settings:
            yield (
                f"'{key}' at the top level is verl's old name; verl 0.9 reads it without a word and ignores it. Rewards "
                f"belong in job.rewards; other settings of this kind below 'reward' (reward.{key})."
            )


def _rollout(job: VerlJob, settings: dict[str, Any], gpus: int, per_host: int) -> Problems:
    rollout = value_of(settings, "actor_rollout_ref.rollout", {})
    name = rollout.get("name")
    if name not in ROLLOUTS:
        known = ", ".join(f"{known} ({where})" for known, where in ROLLOUTS.items())
        yield f"actor_rollout_ref.rollout.name is '{name}'; verl would find out only when the GPUs run. Known: {known}."
    elif (name == "hf") != (job.device == "cpu"):
        yield (
            f"actor_rollout_ref.rollout.name is '{name}', which is for {ROLLOUTS[name]}, but job.device is "
            f"{job.device}: change one of them."
        )
    estimator = value_of(settings, "algorithm.adv_estimator", "gae")
    if estimator not in ESTIMATORS:
        yield f"algorithm.adv_estimator: {unknown_name('estimator', estimator, ESTIMATORS)}"
    if estimator in ("grpo", "rloo", "gdpo") and rollout.get("n", 1) < 2:
        yield "actor_rollout_ref.rollout.n must be 2 or more: a completion is compared with others to the same prompt."
    size = rollout.get("tensor_model_parallel_size", 2) * rollout.get("pipeline_model_parallel_size", 1)
    size *= rollout.get("data_parallel_size", 1)
    if name == "hf" and size != 1:
        yield (
            "The rollout hf holds a whole model in each process: set actor_rollout_ref.rollout.tensor_model_parallel_size "
            "to 1 (verl's default is 2)."
        )
    if gpus % size or (size <= per_host and per_host % size) or (size > per_host and size % per_host):
        yield (
            f"One copy of the rollout model takes {size} GPUs (actor_rollout_ref.rollout.tensor_model_parallel_size "
            f"{rollout.get('tensor_model_parallel_size', 2)}, times its pipeline and data parallel sizes), which does "
            f"not divide the {gpus} GPUs in hosts of {per_host}: choose a divisor of {per_host}."
        )


def _tools(job: VerlJob, settings: dict[str, Any], gpus: int, per_host: int) -> Problems:
    turns = value_of(settings, "actor_rollout_ref.rollout.multi_turn", {})
    loop = value_of(settings, "actor_rollout_ref.rollout.agent.default_agent_loop")
    if bool(turns.get("enable")) != (loop == "tool_agent"):
        yield (
            f"multi_turn.enable is {bool(turns.get('enable'))} and agent.default_agent_loop is {loop}: verl then rolls "
            "out single turns without a word, or calls tools that are not meant. Set true with tool_agent, or neither."
        )
    elif turns.get("enable") and not (turns.get("function_tool_path") and turns.get("max_assistant_turns")):
        yield (
            "multi_turn needs function_tool_path, a file that registers tools with verl's @function_tool, and "
            "max_assistant_turns, 2 or more: one to call, one to answer."
        )
    elif turns.get("enable") and turns["max_assistant_turns"] < 2:
        yield "multi_turn.max_assistant_turns is 1: the model would call a tool and never read its result. Set 2 or more."


def _parallel(job: VerlJob, settings: dict[str, Any], gpus: int, per_host: int) -> Problems:
    engine = settings.get("model_engine", "dp")
    if engine not in ENGINES:
        yield f"{unknown_name('model_engine', str(engine), ENGINES)} dp is FSDP, and what verl takes if nothing is said."
    if engine == "megatron":
        if job.device == "cpu":
            yield "model_engine megatron runs on GPUs only, and job.device is cpu: leave model_engine out."
        megatron = value_of(settings, "actor_rollout_ref.actor.megatron", {})
        sizes = {
            key: megatron.get(f"{key}_parallel_size", 1)
            for key in ("tensor_model", "pipeline_model", "context")
        }
        product = sizes["tensor_model"] * sizes["pipeline_model"] * sizes["context"]
        if gpus % product:
            yield (
                f"Megatron cuts one copy of the model into tensor {sizes['tensor_model']} x pipeline "
                f"{sizes['pipeline_model']} x context {sizes['context']} = {product} parts, one a GPU, and {gpus} GPUs "
                f"do not hold a whole number of copies: the product must divide {gpus}."
            )
        if sizes["tensor_model"] > per_host:
            yield (
                f"tensor_model_parallel_size {sizes['tensor_model']} reaches over several hosts of {per_host} GPUs: "
                "its traffic needs the fast links inside one host. Use pipeline_model_parallel_size between hosts."
            )
        return
    strategy = value_of(settings, "actor_rollout_ref.actor.strategy", "fsdp")
    if strategy not in ("fsdp", "fsdp2"):
        yield f"actor_rollout_ref.actor.strategy is '{strategy}': write fsdp2, or fsdp, or choose model_engine: megatron."
    if strategy == "fsdp" and job.device == "cpu":
        yield "actor_rollout_ref.actor.strategy must be fsdp2 on a CPU: torch's first FSDP shards on GPUs only."
    sequence = value_of(settings, "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size", 1)
    if gpus % sequence:
        yield (
            f"Ulysses splits each sequence over {sequence} GPUs (fsdp_config.ulysses_sequence_parallel_size), and "
            f"{gpus} GPUs are not whole groups of {sequence}: choose a divisor of {gpus}."
        )
    if sequence > 1 and value_of(settings, "actor_rollout_ref.model.use_remove_padding") is not True:
        yield (
            "Ulysses (fsdp_config.ulysses_sequence_parallel_size above 1) splits packed sequences, so "
            "actor_rollout_ref.model.use_remove_padding must be true."
        )


def _batches(job: VerlJob, settings: dict[str, Any], gpus: int, per_host: int) -> Problems:
    prompts, group = (
        value_of(settings, "data.train_batch_size", 1024),
        value_of(settings, "actor_rollout_ref.rollout.n", 1),
    )
    actor = value_of(settings, "actor_rollout_ref.actor", {})
    mini, micro = actor.get("ppo_mini_batch_size", 256), actor.get("ppo_micro_batch_size_per_gpu")
    dynamic = actor.get("use_dynamic_bsz", False)
    copies = gpus // max(1, _gpus_per_copy(settings))
    if mini > prompts or prompts % mini:
        yield (
            f"data.train_batch_size {prompts} is not a multiple of ppo_mini_batch_size {mini}. {_HOW_BATCHES_FIT}"
        )
    elif copies and mini * group % copies:
        yield (
            f"ppo_mini_batch_size {mini} x rollout.n {group} = {mini * group} completions cannot be dealt evenly to "
            f"{copies} copies of the model. {_HOW_BATCHES_FIT}"
        )
    elif not dynamic and not micro:
        yield f"Set ppo_micro_batch_size_per_gpu, or use_dynamic_bsz: true. {_HOW_BATCHES_FIT}"
    elif not dynamic and copies and mini * group // copies % micro:
        yield (
            f"{mini * group // copies} completions of a mini batch fall to each copy of the model, which is not a "
            f"multiple of ppo_micro_batch_size_per_gpu {micro}. {_HOW_BATCHES_FIT}"
        )


def _gpus_per_copy(settings: dict[str, Any]) -> int:
    """GPUs that work on the same completions: model parts under Megatron, sequence parts under Ulysses."""
    if settings.get("model_engine", "dp") == "megatron":
        megatron = value_of(settings, "actor_rollout_ref.actor.megatron", {})
        sizes = [
            megatron.get(f"{key}_parallel_size", 1) for key in ("tensor_model", "pipeline_model", "context")
        ]
        return sizes[0] * sizes[1] * sizes[2]
    return value_of(settings, "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size", 1)


def _lengths(job: VerlJob, settings: dict[str, Any], gpus: int, per_host: int) -> Problems:
    actor = value_of(settings, "actor_rollout_ref.actor", {})
    longest = value_of(settings, "data.max_prompt_length", 512) + value_of(
        settings, "data.max_response_length", 512
    )
    room = actor.get("ppo_max_token_len_per_gpu", 16384) * _gpus_per_copy({**settings, "model_engine": "dp"})
    if actor.get("use_dynamic_bsz", False) and longest > room:
        yield (
            f"The longest prompt and response have {longest} tokens, but ppo_max_token_len_per_gpu lets {room} of them "
            "onto the GPUs that share a sequence: raise it, or shorten data.max_response_length."
        )


def _lora(job: VerlJob, settings: dict[str, Any], gpus: int, per_host: int) -> Problems:
    rank = value_of(settings, "actor_rollout_ref.model.lora_rank", 0)
    if rank > MAX_LORA_RANK and value_of(settings, "actor_rollout_ref.rollout.name") == "vllm":
        yield (
            f"actor_rollout_ref.model.lora_rank is {rank}, and vLLM serves adapters of rank {MAX_LORA_RANK} at most. "
            "Ranks of 8 to 64 are usual; to train more than that, train all weights (lora_rank: 0)."
        )
