"""Calls of tools in what a model writes, in the form of Hermes and Qwen.

<tool_call>{"name": "calculator", "arguments": {"expression": "3 + 4"}}</tool_call>
"""

import json
import re
from typing import Any


def find_call(text: str) -> dict[str, Any] | None:
    """The first whole call in a text, {"name": ..., "arguments": ...}; None if there is none."""
    for match in re.findall(r"<tool_call>(.*?)</tool_call>", text, re.DOTALL):
        try:
            call = json.loads(match)
            return {"name": call["name"], "arguments": call["arguments"]}
        except (ValueError, KeyError, TypeError):
            continue
    return None
