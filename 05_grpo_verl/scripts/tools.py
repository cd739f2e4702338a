"""Tools that a model may call while it answers, the guard around them, and the calls in what a model writes.

A tool is a function over named arguments with type hints and a docstring with an `Args:` block, from which the schema
that the model sees is made. It returns a text. What a model passes is arbitrary: wrong types, missing names, sums that
would take hours. The guard turns each of these, and a tool that fails or hangs, into a text that begins with `Error:`,
which the model reads like any other result.

Calls have the form of Hermes and Qwen:

    <tool_call>{"name": "calculator", "arguments": {"expression": "3 + 4"}}</tool_call>

No torch is needed here, so that a notebook uses this file too.
"""

import ast
import asyncio
import functools
import inspect
import json
import operator
import threading
from collections.abc import Awaitable, Callable, Iterator
from fractions import Fraction
from typing import Any, TypedDict

MAX_EXPRESSION_LENGTH = 200  # characters
MAX_DIGITS = 30
OPERATIONS = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.USub: operator.neg,
    ast.UAdd: operator.pos,
}


class ToolError(Exception):
    """A tool cannot do what it was asked; the message is what the model gets to read."""


class ToolCall(TypedDict):
    """A call as a model wrote it: neither the tool nor its arguments need exist."""

    name: str
    arguments: Any  # a mapping if the model has the form right


def find_calls(text: str) -> list[ToolCall]:
    """The complete calls in a completion, in order; damaged ones are left out. Takes time in proportion to its length."""
    calls: list[ToolCall] = []
    for content in _between(text, "<tool_call>", "</tool_call>"):
        try:
            call = json.loads(content)
            if isinstance(call["name"], str):
                calls.append({"name": call["name"], "arguments": call["arguments"]})
        except (ValueError, KeyError, TypeError, RecursionError):
            # RecursionError: brackets in brackets in brackets
            continue
    return calls


def _between(text: str, opening: str, closing: str) -> Iterator[str]:
    """What stands between each opening and the closing that follows it. (A regex would search behind each again.)"""
    place = 0
    while (start := text.find(opening, place)) >= 0 and (end := text.find(closing, start)) >= 0:
        yield text[start + len(opening) : end]
        place = end + len(closing)


def find_call(text: str) -> ToolCall | None:
    """The first complete call in a completion; None if there is none."""
    return next(iter(find_calls(text)), None)


def guarded(seconds: float = 2.0) -> Callable[[Callable[..., str]], Callable[..., Awaitable[str]]]:
    """Makes a tool that always answers, within a time limit, with a text.

    Each call runs in a thread of its own, because a thread that hangs cannot be ended: it is left behind, does not
    block the next call, and does not keep the process alive at the end.
    """

    def decorate(tool: Callable[..., str]) -> Callable[..., Awaitable[str]]:
        @functools.wraps(tool)
        async def call(*args: object, **kwargs: object) -> str:
            try:
                inspect.signature(tool).bind(*args, **kwargs)
            except TypeError as error:
                return f"Error: {error}"
            loop, result = asyncio.get_running_loop(), asyncio.get_running_loop().create_future()

            def answer(text: str) -> None:
                if not result.done():
                    result.set_result(text)

            def work() -> None:
                try:
                    text = str(tool(*args, **kwargs))
                except Exception as error:  # whatever a tool raises is an answer, and the training goes on
                    text = f"Error: {error or type(error).__name__}"
                if not loop.is_closed():
                    loop.call_soon_threadsafe(answer, text)

            threading.Thread(target=work, daemon=True, name=f"tool-{tool.__name__}").start()
            try:
                return await asyncio.wait_for(result, seconds)
            except TimeoutError:
                return f"Error: {tool.__name__} took longer than {seconds:g} seconds"

        return call

    return decorate


@guarded()
def calculator(expression: str) -> str:
    """Works out a sum.

    Args:
        expression: numbers, + - * / and brackets, such as 3 + 4 - 5
    """
    if not isinstance(expression, str):
        raise ToolError(f"the expression must be a text, not {type(expression).__name__}")
    if len(expression) > MAX_EXPRESSION_LENGTH:
        raise ToolError(f"the expression is longer than {MAX_EXPRESSION_LENGTH} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval").body
        value = _value(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ToolError("the expression is not a sum of numbers") from error
    except ZeroDivisionError as error:
        raise ToolError("division by zero") from error
    return str(value) if value.denominator == 1 else f"{float(value):.10g}"


def _value(node: ast.expr) -> Fraction:
    """Exact value of an expression; powers are not among OPERATIONS, so that no result can grow without end."""
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        value = Fraction(str(node.value))
    elif isinstance(node, ast.UnaryOp) and type(node.op) in OPERATIONS:
        value = OPERATIONS[type(node.op)](_value(node.operand))
    elif isinstance(node, ast.BinOp) and type(node.op) in OPERATIONS:
        value = OPERATIONS[type(node.op)](_value(node.left), _value(node.right))
    else:
        raise ToolError("only numbers, + - * / and brackets are allowed")
    if abs(value) >= 10**MAX_DIGITS:
        raise ToolError(f"a number has more than {MAX_DIGITS} digits")
    return value
