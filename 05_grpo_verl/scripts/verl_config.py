"""verl's configuration, made from a recipe and checked by verl itself; and the evaluation that goes with it."""

import contextlib
import functools
import io
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_module
from job.arguments import RecipeError
from job.container import output_data_dir
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rl import rewards
from rl.evaluation import Generate
from tool_use import generate_with_tools
from verl.tools.function_tool import load_function_tools_from_path
from verl.trainer.ppo.utils import need_critic, need_reference_policy
from verl.utils.config import omega_conf_to_dataclass, validate_config
from verl_arguments import VerlJob
from verl_keys import Settings, value_of
from verl_recipe import recipe_problems, score_arguments

# Sections that verl keeps open: a recipe may put any key there, everywhere else only what verl knows.
OPEN_SECTIONS = (
    "ray_kwargs.ray_init",
    "actor_rollout_ref.model.override_config",
    "actor_rollout_ref.rollout.engine_kwargs",
    "actor_rollout_ref.actor.fsdp_config",
    "actor_rollout_ref.ref.fsdp_config",
    "actor_rollout_ref.actor.megatron.override_transformer_config",
    "actor_rollout_ref.actor.optim.override_optimizer_config",
    "reward.custom_reward_function",
    "data.apply_chat_template_kwargs",
)


def trainer_config(
    job: VerlJob, settings: Settings, *, hosts: int, gpus_per_host: int, given: Settings
) -> DictConfig:
    """verl's whole configuration: its defaults, then the recipe's `settings`, then `given` (what the job knows: paths).

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
    own["reward"]["custom_reward_function"] = {
        "path": str(Path(rewards.__file__)),
        "name": "compute_score",
        "reward_kwargs": score_arguments(job, settings),
    }
    try:
        config = OmegaConf.merge(config, settings, own, given)
        # verl prints "All configuration checks passed successfully!"
        with contextlib.redirect_stdout(io.StringIO()):
            validate_config(config, need_reference_policy(config), need_critic(config))
            omega_conf_to_dataclass(config.actor_rollout_ref.rollout)
    except (AssertionError, ValueError, TypeError, OmegaConfBaseException) as error:
        raise RecipeError(f"verl refuses this recipe: {error}") from error
    _complete_paths(config)
    return config


def _complete_paths(config: DictConfig) -> None:
    """A recipe names its tools as a file beside train.py, and the rollouts to keep as a folder of the job's outputs."""
    turns, trainer = config.actor_rollout_ref.rollout.multi_turn, config.trainer
    if turns.function_tool_path:
        turns.function_tool_path = str(Path(__file__).resolve().parent / turns.function_tool_path)
    if trainer.rollout_data_dir:
        trainer.rollout_data_dir = str(output_data_dir() / trainer.rollout_data_dir)


def evaluation_generate(config: DictConfig) -> Generate | None:
    """How the common evaluation completes prompts so that the model has the tools and turns of its rollouts.

    None without tools: the evaluation then has its own way.
    """
    turns = config.actor_rollout_ref.rollout.multi_turn
    if not turns.enable:
        return None
    return functools.partial(
        generate_with_tools,
        tools=[tool.fn for tool in load_function_tools_from_path(turns.function_tool_path)],
        max_turns=turns.max_assistant_turns,
        max_result_length=turns.max_tool_response_length,
    )
