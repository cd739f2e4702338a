"""Tools: what the calculator makes of what models write, and the guard around tools that fail or hang."""

import asyncio
import threading
import time

import pytest
from tools import calculator, find_calls, guarded
from transformers.utils import get_json_schema


@pytest.mark.parametrize(
    "text",
    [
        "<tool_call>" * 100_000,
        "<tool_call>{" * 100_000 + "</tool_call>",
        "<tool_call>" + "[" * 500_000 + "</tool_call>",
        '<tool_call>{"name": "a", "arguments": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}</tool_call>",
        '<tool_call>{"name": "a", "arguments": ' + "9" * 100_000 + "}</tool_call>",
        "<tool_call></tool_call>" * 100_000,
        "</tool_call>" * 100_000 + "<tool_call>",
    ],
    ids=["only openings", "openings and one closing", "lists", "objects", "digits", "empty", "closings"],
)
def test_a_completion_of_a_megabyte_is_looked_through_at_once(text):
    started = time.process_time()
    assert find_calls(text) == []
    assert time.process_time() - started < 5  # a search behind each opening would take hours


def call(tool, *args, **kwargs):
    return asyncio.run(tool(*args, **kwargs))


@pytest.mark.parametrize(
    ("expression", "result"),
    [
        ("482 + 917 - 305", "1094"),
        ("140 - 702", "-562"),
        ("-(3 + 4) * 2", "-14"),
        ("7 / 2", "3.5"),
        ("0.1 + 0.2", "0.3"),
        (" 5 ", "5"),
    ],
)
def test_sums(expression, result):
    assert call(calculator, expression=expression) == result


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"expression": "2 ** 99999999"}, "only numbers, + - * / and brackets"),
        ({"expression": "__import__('os').system('true')"}, "only numbers"),
        ({"expression": "9" * 199}, "more than 30 digits"),
        ({"expression": "9999999999999999 * 9999999999999999"}, "more than 30 digits"),
        ({"expression": "1" + " + 1" * 100}, "longer than 200 characters"),
        ({"expression": "(" * 150 + "1" + ")" * 40}, "not a sum of numbers"),
        ({"expression": "1e999"}, "not a sum of numbers"),
        ({"expression": "1 +"}, "not a sum of numbers"),
        ({"expression": ""}, "not a sum of numbers"),
        ({"expression": "1 / (2 - 2)"}, "division by zero"),
        ({"expression": "True + 1"}, "only numbers"),
        ({"expression": ["1", "+", "1"]}, "must be a text, not list"),
        ({"expression": None}, "must be a text, not NoneType"),
        ({"formula": "1 + 1"}, "missing a required argument: 'expression'"),
        ({}, "missing a required argument: 'expression'"),
    ],
)
def test_absurd_arguments_are_answered(arguments, message):
    answer = call(calculator, **arguments)
    assert answer.startswith("Error: ") and message in answer


@pytest.mark.parametrize(
    ("error", "answer"),
    [
        (OSError("the line is dead"), "the line is dead"),
        (OSError(), "OSError"),
        (TimeoutError("no shop answers"), "no shop answers"),
        (StopIteration(), "StopIteration"),
    ],
)
def test_a_tool_that_fails_answers(error, answer):
    @guarded()
    def broken() -> str:
        raise error

    assert call(broken) == f"Error: {answer}"


def test_an_async_tool_is_awaited_and_has_the_same_limit():
    @guarded(seconds=0.2)
    async def shop(pause: float) -> str:
        await asyncio.sleep(pause)
        return "done"

    assert call(shop, pause=0.01) == "done"
    assert call(shop, pause=30) == "Error: shop took longer than 0.2 seconds"
    assert call(shop) == "Error: missing a required argument: 'pause'"


def test_a_tool_that_hangs_is_given_up():
    release = threading.Event()

    @guarded(seconds=0.2)
    def stuck() -> str:
        release.wait(30)
        return "late"

    started = time.monotonic()
    assert call(stuck) == "Error: stuck took longer than 0.2 seconds"
    assert time.monotonic() - started < 10, "it was not waited for"
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "tool-stuck")
    release.set()


def test_hanging_calls_do_not_block_the_others():
    release = threading.Event()

    @guarded(seconds=5)
    def sometimes(hang: bool) -> str:
        if hang:
            release.wait(30)
        return "done"

    async def many():
        stuck = [asyncio.ensure_future(sometimes(hang=True)) for _ in range(50)]
        quick = await sometimes(hang=False)
        release.set()
        return quick, await asyncio.gather(*stuck)

    assert asyncio.run(many()) == ("done", ["done"] * 50)


def test_its_schema_names_its_argument():
    schema = get_json_schema(calculator)["function"]
    assert schema["name"] == "calculator" and schema["parameters"]["required"] == ["expression"]
