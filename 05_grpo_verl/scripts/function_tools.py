"""The tools of recipes/tools.yaml: verl loads this file (multi_turn.function_tool_path) and offers what it registers."""

from tools import calculator
from verl.tools.function_tool import function_tool

function_tool(calculator)
