"""A method of an environment (rl.environments) as a tool of verl: for tool_config_path, as in environment_tools.yaml.

verl has one tool for all conversations of a worker, and makes and releases an instance of it for each call. What outlives a
call is the conversation's AgentData, which `execute` is given; the environment is kept there, one for each conversation.
"""

import contextlib
import importlib
import io
from typing import Any

from tool_use import Conversation
from transformers.utils import get_json_schema
from verl.tools.base_tool import BaseTool
from verl.tools.schemas import OpenAIFunctionToolSchema, ToolResponse

KEPT_AS = "environment"


class EnvironmentTool(BaseTool):
    """Its `config` names the environment's class (`environment: rl.environments.Till`) and a method of it (`method: scan`)."""

    def __init__(self, config: dict[str, Any], tool_schema: OpenAIFunctionToolSchema | None = None):
        module, _, name = config["environment"].rpartition(".")
        self._environment = getattr(importlib.import_module(module), name)
        schema = get_json_schema(getattr(self._environment(), config["method"]))
        with contextlib.redirect_stdout(io.StringIO()):  # verl prints the schema, once for each worker
            super().__init__(config, tool_schema or OpenAIFunctionToolSchema.model_validate(schema))

    async def execute(
        self, instance_id: str, parameters: dict[str, Any], *, agent_data: Any, **kwargs: Any
    ) -> tuple[ToolResponse, float, dict]:
        """Calls the method on the conversation's environment, which begins with its first call."""
        if (environment := getattr(agent_data, KEPT_AS, None)) is None:
            environment = self._environment()
            environment.reset(question=Conversation(agent_data.messages).question)
            setattr(agent_data, KEPT_AS, environment)
        return ToolResponse(text=getattr(environment, self.config["method"])(**parameters)), 0.0, {}
