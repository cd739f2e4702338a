"""Completions of several turns: the model calls tools, reads the results, and goes on.

This is how verl's agent loop `tool_agent` carries out a rollout, for the evaluation before and after training.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rl.generation import Generated, Messages, generate
from tools import ToolCall, find_calls
from transformers import PreTrainedModel, PreTrainedTokenizerBase

# Distance between the random seeds of two turns. The batches of an evaluation count their seeds up by one, so this must
# be more than an evaluation has batches.
SEED_STRIDE = 10_000


@dataclass(frozen=True)
class Tool:
    """A tool as the model knows it and as it is called."""

    schema: dict[str, Any]  # in OpenAI's form, which chat templates read
    call: Callable[..., Awaitable[str]]  # with the arguments by name
    remembers: bool = False  # `call` is given the Conversation first, and may keep a state with it

    @property
    def name(self) -> str:
        """By which a model calls it."""
        return self.schema["function"]["name"]


@dataclass
class Conversation:
    """What verl's AgentData is to a tool. A tool that keeps a state gives it an attribute."""

    messages: Messages

    @property
    def question(self) -> str:
        """What the user asked last."""
        return next(message["content"] for message in reversed(self.messages) if message["role"] == "user")


@dataclass(frozen=True)
class Turns:
    """The rules of a conversation with tools, as `actor_rollout_ref.rollout.multi_turn` has them.

    Attributes:
        tools: those that the model may call.
        most: turns of the assistant; a call in the last one is not carried out.
        most_calls: calls that are carried out of one turn; further ones are passed over.
        result_length: in characters; a longer result loses its left or right side or its middle, as `shorten` says.
        find_calls: the calls in what the model wrote in one turn.
    """

    tools: Sequence[Tool]
    most: int
    result_length: int
    most_calls: int = 1
    shorten: str = "middle"
    find_calls: Callable[[str], Sequence[ToolCall]] = find_calls


def generate_with_tools(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    *,
    turns: Turns,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    chat_template_kwargs: Mapping[str, Any] | None = None,
) -> list[Generated]:
    """One completion of several turns for each conversation; a batch like that of `rl.generation.generate`.

    Args:
        max_new_tokens: the limit of each turn, in tokens.
        temperature: 0 is greedy decoding.
        seed: the random seed of the first turn.
        chat_template_kwargs: passed on to the chat template.

    Returns:
        For each prompt the text, the number of tokens that the model wrote, and whether one of its turns was cut off. The
        text holds the tools' results too, with their roles, as verl's rewards see it: `<tool_call>...</tool_call>`, a line
        `tool`, the result, a line `assistant`, then `<answer>...</answer>`.
    """
    tools = {tool.name: tool for tool in turns.tools}
    conversations = [Conversation(list(prompt)) for prompt in prompts]
    done = [Generated("", 0, cut_off=False)] * len(prompts)
    active = list(range(len(prompts)))  # conversations in which the assistant's turn comes next
    # One event loop for all turns: what a tool keeps between its calls, such as a connection, may belong to its loop.
    with asyncio.Runner() as runner:
        for turn in range(turns.most):
            outputs = generate(
                model,
                tokenizer,
                [conversations[index].messages for index in active],
                max_new_tokens=max_new_tokens,
                temperature=temperature,
                seed=seed + SEED_STRIDE * turn,
                tools=[tool.schema for tool in turns.tools],
                chat_template_kwargs=chat_template_kwargs,
            )
            calls: dict[int, Sequence[ToolCall]] = {}
            for index, output in zip(active, outputs, strict=True):
                done[index] = _joined(done[index], output)
                conversations[index].messages.append({"role": "assistant", "content": output.text})
                if found := turns.find_calls(output.text)[: turns.most_calls]:
                    calls[index] = found
            if not calls or turn == turns.most - 1:
                break
            work = [(conversations[index], turn_calls) for index, turn_calls in calls.items()]
            results = runner.run(_run_all(work, tools))
            for index, texts in zip(calls, results, strict=True):
                for text in texts:
                    result = _shorten(text, turns.result_length, turns.shorten)
                    done[index] = _joined(done[index], Generated(f"\ntool\n{result}", 0, cut_off=False))
                    conversations[index].messages.append({"role": "tool", "content": result})
                done[index] = _joined(done[index], Generated("\nassistant\n", 0, cut_off=False))
            active = list(calls)
    return done


def _joined(before: Generated, after: Generated) -> Generated:
    return Generated(
        before.text + after.text, before.tokens + after.tokens, cut_off=before.cut_off or after.cut_off
    )


def _shorten(result: str, length: int, side: str) -> str:
    if len(result) <= length:
        return result
    if side == "left":
        return f"(truncated)...{result[-length:]}"
    if side == "right":
        return f"{result[:length]}...(truncated)"
    half = length // 2
    return f"{result[:half]}...(truncated)...{result[-half:]}"


async def _run_all(
    turns: list[tuple[Conversation, Sequence[ToolCall]]], tools: Mapping[str, Tool]
) -> list[list[str]]:
    """The results of each turn's calls, all run at once."""
    return await asyncio.gather(
        *(
            asyncio.gather(*(_run_call(call, tools, conversation) for call in calls))
            for conversation, calls in turns
        )
    )


async def _run_call(call: ToolCall, tools: Mapping[str, Tool], conversation: Conversation) -> str:
    """The result of a call; of one that is impossible or fails, what verl says to the model."""
    name = call["name"]
    if name not in tools:
        return f"Unknown function '{name}'. Available tools: {list(tools)}"
    tool = tools[name]
    try:
        return await tool.call(*([conversation] if tool.remembers else []), **call["arguments"])
    except Exception as error:  # whatever a tool raises is an answer, as in verl
        return f"Error executing tool '{name}': {error}"
