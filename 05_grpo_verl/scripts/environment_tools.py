"""A method of an environment (rl.environments) as a tool of verl: for tool_config_path, as in environment_tools.yaml.

verl has one tool for all conversations of a worker, and makes and releases an instance of it for each call. What outlives a
call is the conversation's AgentData, which `execute` is given; the environment is kept there, one for each conversation.
Of the data's row an environment gets the question alone: `reset(question=...)`. verl hands no more to its tools.
"""

import asyncio
import contextlib
import importlib
import inspect
import io
from dataclasses import dataclass, field
from typing import Any

from tool_use import Conversation
from tools import SECONDS, guarded, within
from transformers.utils import get_json_schema
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

KEPT_AS = "episode"


@dataclass
class Episode:
    """The environment of one conversation. Its calls come one after the other, also where a turn has several."""

    environment: Any
    begun: bool = False
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)


class EnvironmentTool(BaseTool):
    """Its `config` names the environment's class (`environment: rl.environments.Till`) and a method of it (`method: scan`).

    `reset` and the methods may be async or not. Each has SECONDS to answer, and none holds up the other conversations.
    """

    def __init__(self, config: dict[str, Any], tool_schema: OpenAIFunctionToolSchema | None = None):
        """Raises TypeError: the environment's `reset` asks for what it cannot be given."""
        module, _, name = config["environment"].rpartition(".")
        self._environment = getattr(importlib.import_module(module), name)
        environment = self._environment()
        try:
            inspect.signature(environment.reset).bind(question="")
        except TypeError as error:
            raise TypeError(
                f"{config['environment']}.reset: {error}. It is called as reset(question=...), and gets no other column of "
                "the data: write what it needs into the question."
            ) from error
        schema = get_json_schema(getattr(environment, config["method"]))
        with contextlib.redirect_stdout(io.StringIO()):  # verl prints the schema, once for each worker
            super().__init__(config, tool_schema or OpenAIFunctionToolSchema.model_validate(schema))

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], *, agent_data: Any, **kwargs: Any
    ) -> tuple[ToolResponse, float, dict]:
        """Calls the method on the conversation's environment, which begins with its first call."""
        if (episode := getattr(agent_data, KEPT_AS, None)) is None:
            episode = Episode(self._environment())
            setattr(agent_data, KEPT_AS, episode)
        async with episode.turn:
            if not episode.begun:
                question = Conversation(agent_data.messages).question
                await within(SECONDS, episode.environment.reset, question=question)
                episode.begun = True
            method = guarded()(getattr(episode.environment, self.config["method"]))
            return ToolResponse(text=await method(**parameters)), 0.0, {}
