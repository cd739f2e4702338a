"""verl's configuration, made from a recipe and checked by verl itself; and the evaluation that goes with it."""

import asyncio
import contextlib
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from job.arguments import RecipeError
from job.container import checkpoint_dir, output_data_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rl.evaluation import Generate
from tool_use import Conversation, Tool, Turns, generate_with_tools
from tools import ToolCall, find_calls
from verl.experimental.agent_loop.tool_parser import ToolParser
from verl.tools.base_tool import BaseTool
from verl.tools.function_tool import FunctionTool, normalize_function_tool_return
from verl.tools.schemas import OpenAIFunctionToolSchema
from verl.tools.tool_registry import load_all_tools
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl_arguments import VerlJob
from verl_keys import Settings, value_of
from verl_known_keys import OPEN_SECTIONS
from verl_layout import TRANSFORMER_ON_CPU
from verl_recipe import recipe_problems, score_arguments

# Ray gives its processes a priority 15 lower than the job's, so that they wait for all else that runs on the machine; and
# verl's log has a line for each file that it writes.
RAY_VARIABLES = {"RAY_worker_niceness": "0", "VERL_LOGGING_LEVEL": "WARNING"}


def trainer_config(
    job: VerlJob, settings: Settings, *, hosts: int, gpus_per_host: int, opening: str = ""
) -> DictConfig:
    """verl's whole configuration: its defaults, then the recipe's `settings`; what a job alone knows, `fill_in` adds.

    `opening` is what the model's chat template puts into an answer before the model writes (`rl.templates.opening`).

    Raises:
        RecipeError: all problems that are found, by the workshop's checks first and by verl's own validation after.
    """
    problems = recipe_problems(job, settings, hosts=hosts, gpus_per_host=gpus_per_host)
    if problems:
        raise RecipeError("\n".join(f"- {problem}" for problem in problems))
    engine = value_of(settings, "model_engine")
    with initialize_config_module("verl.trainer.config", version_base=None):
        config = compose("ppo_trainer", overrides=[f"model_engine={engine}"])
    for key in OPEN_SECTIONS:
        if OmegaConf.is_config(node := OmegaConf.select(config, key)):
            OmegaConf.set_struct(node, False)
    own: dict[str, Any] = {
        "trainer": {"nnodes": hosts, "n_gpus_per_node": gpus_per_host},
        "reward": {},
    }
    if engine == "megatron" and job.device == "cpu":
        megatron = {"override_transformer_config": dict(TRANSFORMER_ON_CPU)}
        own["actor_rollout_ref"] = {"actor": {"megatron": megatron}}
    own["reward"]["custom_reward_function"] = {
        "path": str(Path(__file__).with_name("verl_rewards.py")),
        "name": "compute_score",
        "reward_kwargs": score_arguments(job, settings, opening),
    }
    try:
        config = OmegaConf.merge(config, settings, own)
        # verl prints "All configuration checks passed successfully!"
        with contextlib.redirect_stdout(io.StringIO()):
            validate_config(config, need_reference_policy(config), need_critic(config))
            omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    except (AssertionError, ValueError, TypeError, OmegaConfBaseException) as error:
        raise RecipeError(f"verl refuses this recipe: {error}") from error
    _complete_paths(config)
    return config


def fill_in(
    config: DictConfig,
    job: VerlJob,
    *,
    model: str,
    data: dict[str, str],
    epochs: int,
    checkpoint: Path | None,
    made_of: dict[str, str],
    variables: dict[str, str],
) -> DictConfig:
    """The configuration with what only the job knows (verl_keys.FILLED_IN).

    Args:
        model: what `from_pretrained` reads.
        data: the settings of `data` that name verl's files.
        epochs: how often verl may go through the training rows: often enough for all steps.
        checkpoint: where to go on from.
        made_of: the fingerprints with which checkpoints are marked.
        variables: the environment of verl's processes.
    """
    trainer = {
        "default_local_dir": str(checkpoint_dir()),
        "resume_mode": "resume_path" if checkpoint else "disable",
        "resume_from_path": checkpoint and str(checkpoint),
        "total_epochs": epochs,
        "logger": ["file"],  # verl_history carries it on to the job's log, MLflow and W&B
        "project_name": job.experiment,
        "experiment_name": job.recipe,
    }
    given = {
        "actor_rollout_ref": {"model": {"path": model}},
        "data": data,
        "trainer": trainer,
        "ray_kwargs": {"ray_init": {"runtime_env": {"env_vars": variables | RAY_VARIABLES}}},
    }
    config = OmegaConf.merge(config, given)
    OmegaConf.update(config, "fingerprints", made_of, force_add=True)  # verl passes it over
    return config


def _complete_paths(config: DictConfig) -> None:
    """A recipe names its tools as a file beside train.py, and the rollouts to keep as a folder of the job's outputs."""
    turns, trainer = config.actor_rollout_ref.rollout.multi_turn, config.trainer
    for key in ("function_tool_path", "tool_config_path"):
        if turns[key]:
            turns[key] = str(Path(__file__).resolve().parent / turns[key])
    if trainer.rollout_data_dir:
        trainer.rollout_data_dir = str(output_data_dir() / trainer.rollout_data_dir)


def evaluation_tools(config: DictConfig) -> list[Tool]:
    """The tools of the rollouts, with their schemas as verl offers them and called as verl calls them; none without
    multi_turn."""
    turns = config.actor_rollout_ref.rollout.multi_turn
    if not turns.enable:
        return []
    return [_as_tool(tool) for tool in load_all_tools(turns.tool_config_path, turns.function_tool_path)]


def _as_tool(tool: FunctionTool | BaseTool) -> Tool:
    async def call(**arguments: Any) -> str:
        response, _, _ = normalize_function_tool_return(await tool.call(arguments))
        return response.text or ""

    async def call_in(conversation: Conversation, **arguments: Any) -> str:
        instance, _ = await tool.create(create_kwargs={})
        try:
            response, _, _ = await tool.execute(instance, arguments, agent_data=conversation)
        finally:
            await tool.release(instance)
        return response.text or ""

    schema = tool.tool_schema.model_dump(exclude_unset=True, exclude_none=True)
    return Tool(schema, call) if isinstance(tool, FunctionTool) else Tool(schema, call_in, remembers=True)


class _Text:
    """In the place of a tokenizer, for a parser of verl's: completions of the evaluation are texts already."""

    def decode(self, text: str) -> str:
        return text


def call_finder(form: str, tools: list[Tool]) -> Callable[[str], list[ToolCall]]:
    """Finds calls in a text as verl's rollouts do with this multi_turn.format."""
    if form == "hermes":
        return find_calls  # the same, without a line in the log for each damaged call
    parser = ToolParser.get_tool_parser(form, _Text())
    schemas = [OpenAIFunctionToolSchema.model_validate(tool.schema) for tool in tools]

    def find(text: str) -> list[ToolCall]:
        _, calls = asyncio.run(parser.extract_tool_calls(text, schemas))
        return [{"name": call.name, "arguments": json.loads(call.arguments)} for call in calls]

    return find


def evaluation_generate(config: DictConfig, tools: list[Tool]) -> Generate | None:
    """How the common evaluation completes prompts so that the model has the tools and turns of its rollouts.

    None without tools: the evaluation then has its own way.
    """
    if not tools:
        return None
    rules = config.actor_rollout_ref.rollout.multi_turn
    most = rules.max_assistant_turns
    if rules.max_user_turns:  # verl counts each turn of tools as one, and ends behind the answer to the last
        most = min(most, rules.max_user_turns + 1)
    turns = Turns(
        tools=tools,
        most=most,
        most_calls=rules.max_parallel_calls,
        result_length=rules.max_tool_response_length,
        shorten=rules.tool_response_truncate_side,
        find_calls=call_finder(rules.format, tools),
    )
    return functools.partial(generate_with_tools, turns=turns)
