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

SECONDS = 2.0  # that a tool may take to answer
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


def guarded(seconds: float = SECONDS) -> Callable[[Callable[..., Any]], Callable[..., Awaitable[str]]]:
    """Makes a tool, async or not, that always answers, within a time limit, with a text."""

    def decorate(tool: Callable[..., Any]) -> Callable[..., Awaitable[str]]:
        @functools.wraps(tool)
        async def call(*args: object, **kwargs: object) -> str:
            try:
                inspect.signature(tool).bind(*args, **kwargs)
                return str(await within(seconds, tool, *args, **kwargs))
            except Exception as error:  # whatever a tool raises is an answer, and the training goes on
                return f"Error: {str(error) or type(error).__name__}"

        return call

    return decorate


async def within(seconds: float, function: Callable[..., Any], *args: object, **kwargs: object) -> Any:
    """What a function returns, or whatever it raises; an async one is awaited.

    Any other runs in a thread of its own, because a thread that hangs cannot be ended: it is left behind, does not
    block the next call, and does not keep the process alive at the end.

    Raises:
        ToolError: it has taken longer than `seconds`.
    """
    if inspect.iscoroutinefunction(function):
        result: asyncio.Future[Any] = asyncio.ensure_future(function(*args, **kwargs))
    else:
        result = _in_a_thread(function, *args, **kwargs)
    await asyncio.wait({result}, timeout=seconds)
    if not result.done():
        result.cancel()
        raise ToolError(f"{function.__name__} took longer than {seconds:g} seconds")
    return result.result()


def _in_a_thread(function: Callable[..., Any], *args: object, **kwargs: object) -> asyncio.Future[Any]:
    loop = asyncio.get_running_loop()
    result: asyncio.Future[Any] = loop.create_future()

    def answer(value: Any, error: Exception | None) -> None:
        if not result.done():
            result.set_exception(error) if error else result.set_result(value)

    def work() -> None:
        value, raised = None, None
        try:
            value = function(*args, **kwargs)
        except Exception as error:
            # A future takes any exception but this one.
            raised = RuntimeError("StopIteration") if isinstance(error, StopIteration) else error
        if not loop.is_closed():
            loop.call_soon_threadsafe(answer, value, raised)

    threading.Thread(target=work, daemon=True, name=f"tool-{function.__name__}").start()
    return result


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
