"""Completions of several turns: the model calls a tool, reads the result, and goes on.

Calls are written as Hermes and Qwen write them, `<tool_call>{"name": ..., "arguments": {...}}</tool_call>`. This is how
verl's agent loop `tool_agent` carries a rollout out, for the evaluation before and after training.
"""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import get_json_schema

from rl.generation import Messages, generate
from rl.tool_calls import find_call
from rl.tools import guarded

TURN_SEEDS = 10_000  # a turn's distance to the next in random seeds, more than an evaluation has batches


def converse(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    *,
    tools: Sequence[Callable[..., Any]],
    max_turns: int,
    longest_result: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[tuple[str, int]]:
    """One completion of at most `max_turns` turns for each conversation: (text, tokens that the model wrote).

    The text holds the tools' results too, with their roles, as verl's rewards see it:
    `<tool_call>...</tool_call>`, a line `tool`, the result, a line `assistant`, `<answer>...</answer>`.
    `max_new_tokens` is the limit of each turn; a result of more than `longest_result` characters loses its middle.
    """
    by_name = {
        tool.__name__: tool if inspect.iscoroutinefunction(tool) else guarded()(tool) for tool in tools
    }
    schemas = [get_json_schema(tool) for tool in tools]
    talks = [list(prompt) for prompt in prompts]
    texts, tokens = [""] * len(prompts), [0] * len(prompts)
    speaking = list(range(len(prompts)))
    for turn in range(max_turns):
        outputs = generate(
            model,
            tokenizer,
            [talks[place] for place in speaking],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed + TURN_SEEDS * turn,
            tools=schemas,
        )
        calls = {}
        for place, (text, length) in zip(speaking, outputs, strict=True):
            texts[place] += text
            tokens[place] += length
            talks[place].append({"role": "assistant", "content": text})
            if call := find_call(text):
                calls[place] = call
        if not calls or turn == max_turns - 1:
            break
        results = asyncio.run(_answer_all(list(calls.values()), by_name))
        for place, result in zip(calls, results, strict=True):
            if len(result) > longest_result:
                half = longest_result // 2
                result = f"{result[:half]}...(truncated)...{result[-half:]}"
            texts[place] += f"\ntool\n{result}\nassistant\n"
            talks[place].append({"role": "tool", "content": result})
        speaking = list(calls)
    return list(zip(texts, tokens, strict=True))


async def _answer_all(calls: list[dict[str, Any]], tools: dict[str, Callable[..., Any]]) -> list[str]:
    return await asyncio.gather(*(_answer(call, tools) for call in calls))


async def _answer(call: dict[str, Any], tools: dict[str, Callable[..., Any]]) -> str:
    tool = tools.get(str(call["name"]))
    if tool is None:
        return f"Error: there is no tool {call['name']}; there is {', '.join(tools)}"
    if not isinstance(call["arguments"], dict):
        return "Error: the arguments must have names"
    return await tool(**call["arguments"])
