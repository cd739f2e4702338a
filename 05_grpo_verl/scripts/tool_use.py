"""Completions of several turns: the model calls a tool, reads the result, and goes on.

This is how verl's agent loop `tool_agent` carries out a rollout, for the evaluation before and after training.
"""

import asyncio
import inspect
from collections.abc import Callable, Sequence
from typing import Any

from rl.generation import Messages, generate
from tools import ToolCall, find_call, guarded
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import get_json_schema

# Distance between the random seeds of two turns. The batches of an evaluation count their seeds up by one, so this must
# be more than an evaluation has batches.
SEED_STRIDE = 10_000


def generate_with_tools(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    *,
    tools: Sequence[Callable[..., Any]],
    max_turns: int,
    max_result_length: int,
    max_new_tokens: int,
    temperature: float,
    seed: int,
) -> list[tuple[str, int]]:
    """One completion of at most `max_turns` turns for each conversation; a batch like that of `rl.generation.generate`.

    Args:
        tools: functions with type hints and an `Args:` block; those that are not guarded yet get a guard.
        max_turns: turns of the assistant; a call in the last one is not carried out.
        max_result_length: in characters; a longer result of a tool loses its middle, as in verl.
        max_new_tokens: the limit of each turn, in tokens.
        temperature: 0 is greedy decoding.
        seed: the random seed of the first turn.

    Returns:
        (text, tokens that the model wrote) for each prompt. The text holds the tools' results too, with their roles, as
        verl's rewards see it: `<tool_call>...</tool_call>`, a line `tool`, the result, a line `assistant`, then
        `<answer>...</answer>`.
    """
    by_name = {
        tool.__name__: tool if inspect.iscoroutinefunction(tool) else guarded()(tool) for tool in tools
    }
    schemas = [get_json_schema(tool) for tool in tools]
    conversations = [list(prompt) for prompt in prompts]
    texts, tokens = [""] * len(prompts), [0] * len(prompts)
    active = list(range(len(prompts)))  # conversations in which the assistant's turn comes next
    for turn in range(max_turns):
        outputs = generate(
            model,
            tokenizer,
            [conversations[index] for index in active],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            seed=seed + SEED_STRIDE * turn,
            tools=schemas,
        )
        calls: dict[int, ToolCall] = {}
        for index, (text, length) in zip(active, outputs, strict=True):
            texts[index] += text
            tokens[index] += length
            conversations[index].append({"role": "assistant", "content": text})
            if call := find_call(text):
                calls[index] = call
        if not calls or turn == max_turns - 1:
            break
        results = asyncio.run(_run_calls(list(calls.values()), by_name))
        for index, result in zip(calls, results, strict=True):
            result = _shorten(result, max_result_length)
            texts[index] += f"\ntool\n{result}\nassistant\n"
            conversations[index].append({"role": "tool", "content": result})
        active = list(calls)
    return list(zip(texts, tokens, strict=True))


def _shorten(result: str, length: int) -> str:
    if len(result) <= length:
        return result
    half = length // 2
    return f"{result[:half]}...(truncated)...{result[-half:]}"


async def _run_calls(calls: list[ToolCall], tools: dict[str, Callable[..., Any]]) -> list[str]:
    return await asyncio.gather(*(_run_call(call, tools) for call in calls))


async def _run_call(call: ToolCall, tools: dict[str, Callable[..., Any]]) -> str:
    tool = tools.get(str(call["name"]))
    if tool is None:
        return f"Error: there is no tool {call['name']}; there is {', '.join(tools)}"
    if not isinstance(call["arguments"], dict):
        return "Error: the arguments must have names"
    return await tool(**call["arguments"])
