"""What stands in a cell: a text, a conversation, an answer."""

import ast
import json
import os
import re
from collections.abc import Mapping
from typing import Any, cast

from rl.data_values import DataError, json_value
from rl.tasks import Message

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")  # how Anthropic's hh-rlhf writes a conversation
_WRITTEN = re.compile(r"\s*\[\s*\{\s*(['\"])(?:role|content|from)\1\s*:")  # a list of messages, as a text
# ShareGPT's names for those who speak
_SPEAKERS = {"human": "user", "gpt": "assistant"} | {
    role: role for role in ("user", "assistant", "system", "tool")
}


class BadRow(DataError):
    """One row that cannot be used, while others can."""

    def __init__(self, where: str, reason: str, cure: str) -> None:
        super().__init__(f"{where}: {reason}. {cure}, or leave such rows out: skip_bad=True.")
        self.where, self.reason = where, reason


def text_of(value: Any, where: str) -> str:
    """The text of a cell, "" of an empty one; a whole number without ".0", a date as ISO text, lines that end in \\n.

    Raises:
        DataError: a list or an object, which is no text.
    """
    value = json_value(value, where)
    if isinstance(value, list | dict):
        raise DataError(
            f"{where}: one text is needed, not {_named(value)}. Make a column that holds the text itself."
        )
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return "" if value is None else _lines(str(value)).strip()


def one_answer(value: Any, where: str) -> str:
    """The text of a cell that a built-in verifier compares with: it knows one answer.

    Raises:
        DataError: a list, also one of texts that a table keeps as text: ['Paris', 'City of Paris'].
    """
    found = parsed(value)
    if (
        isinstance(value, str)
        and isinstance(found, list)
        and found
        and all(isinstance(t, str) for t in found)
    ):
        raise DataError(
            f"{where}: one text is needed, not a list that is written as text, {value.strip()!r}. Make a column that holds "
            "one answer, or name a verifier of your own, which is given the whole text."
        )
    return text_of(value, where)


def _lines(text: str) -> str:
    """With the line ends that a model writes: Windows and old Macs have others, and `exact` takes none of them for it."""
    return text.replace("\r\n", "\n").replace("\r", "\n")


def parsed(value: Any) -> Any:
    """A list or an object that a table keeps as text, JSON or Python's own (pandas' to_csv writes that); else the value."""
    if hasattr(value, "tolist"):  # numpy's, as in a DataFrame read from parquet
        return value.tolist()
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        for read in (json.loads, ast.literal_eval):
            try:
                return read(value.strip())
            except (ValueError, SyntaxError, MemoryError, RecursionError):
                continue  # a text that begins so
    return value


def turns_of(value: Any, where: str) -> list[Message]:
    """The messages of a cell, as `conversation` finds them; any other text is the user's one message.

    Raises:
        BadRow: nothing is there.
        DataError: a message without role and text.
    """
    turns = conversation(value, where)
    if turns is None:
        text = text_of(value, where)
        turns = [Message(role="user", content=text)] if text else []
    if not any(turn["content"].strip() for turn in turns):
        raise BadRow(where, "it is empty", "Fill it")
    return turns


def question_of(turns: list[Message]) -> str:
    """What is asked, as one text: the user's message, or if there are more the whole conversation."""
    turns = [turn for turn in turns if turn["role"] != "system"]
    if len(turns) == 1:
        return turns[0]["content"]
    return "\n\n".join(f"{turn['role']}: {turn['content']}" for turn in turns)


def conversation(value: Any, where: str) -> list[Message] | None:
    """The messages of a cell: a list of them, also as text, or a text "Human: ... Assistant: ..."; None if it is neither.

    Messages have role and content, or ShareGPT's from and value.

    Raises:
        BadRow: a text that begins as a list of messages does and cannot be read.
        DataError: a message without role and text.
    """
    if isinstance(value, str):
        if (turns := _spoken(_lines(value).strip())) is not None:
            return turns
        found = parsed(value)
        if isinstance(found, str) and _WRITTEN.match(value):
            raise BadRow(where, "a list of messages that cannot be read", "Write it as JSON (json.dumps)")
        if not (isinstance(found, list) and any(map(_like_message, found))):
            return None
    else:
        found = [value] if _like_message(value) else parsed(value)
    if not isinstance(found, list | tuple):
        return None
    return [_message(json_value(item, where), where) for item in found]


def _spoken(text: str) -> list[Message] | None:
    """The turns of "Human: ... Assistant: ..."; an empty one at the end is only where the answer goes."""
    _, *parts = _TURN.split(text)
    if not text.startswith("Human:") or "Assistant" not in parts[::2]:
        return None
    if not parts[-1].strip():
        parts = parts[:-2]
    roles = {"Human": "user", "Assistant": "assistant"}
    turns = zip(parts[::2], parts[1::2], strict=True)
    return [Message(role=roles[who], content=said.strip()) for who, said in turns]


def answer_turns(text: str) -> list[Message]:
    """A text as the assistant's message; none if it is empty."""
    return [Message(role="assistant", content=text)] if text else []


def common_words(texts: list[str]) -> tuple[str, list[str]]:
    """The whole words that texts begin with in common, and what is left of each."""
    prefix = os.path.commonprefix(texts)
    if prefix[-1:].strip():  # it may end within a word
        prefix = prefix[: len(prefix) - len(prefix.split()[-1])]
    return prefix.strip(), [text[len(prefix) :].strip() for text in texts]


def without_prompt(prompt: str, texts: list[str]) -> list[str]:
    """The texts without the prompt where all of them repeat it and go on after it; else as they are."""
    prompt = prompt.strip()
    left = [text[len(prompt) :] for text in texts if text.startswith(prompt)]
    if len(left) < len(texts) or not all(text.strip() for text in left):
        return texts
    if prompt[-1:].isalnum() and any(text[0].isalnum() for text in left):
        return texts  # "Is it" begins "Is italics so?" too
    return [text.strip() for text in left]


def _like_message(value: Any) -> bool:
    forms = ({"role", "content"}, {"role", "tool_calls"}, {"from", "value"})
    return isinstance(value, Mapping) and any(keys <= value.keys() for keys in forms)


def _message(value: Any, where: str) -> Message:
    if isinstance(value, dict) and "role" not in value and {"from", "value"} <= value.keys():
        rest = {key: item for key, item in value.items() if key not in ("from", "value")}
        if value["from"] not in _SPEAKERS:
            raise DataError(
                f"{where}: a message is from {value['from']!r}; known are {', '.join(_SPEAKERS)}. Rename it."
            )
        value = {"role": _SPEAKERS[value["from"]], "content": value["value"], **rest}
    if not isinstance(value, dict) or not isinstance(value.get("role"), str):
        there = f" with {', '.join(value)}" if isinstance(value, dict) else ""
        raise DataError(f"{where}: a message needs 'role' and 'content', not {_named(value)}{there}.")
    content = value.get("content")
    if isinstance(content, list) and all(
        isinstance(part, dict) and part.get("type") == "text" for part in content
    ):
        content = "".join(part.get("text") or "" for part in content)
    if content is not None and not isinstance(content, str):
        raise DataError(f"{where}: the content of a message must be text, not {_named(content)}.")
    kept = {key: item for key, item in value.items() if item is not None}
    return cast(Message, {**kept, "content": _lines(content or "")})


def _named(value: Any) -> str:
    return {list: "a list", dict: "an object", str: "a text"}.get(type(value), type(value).__name__)
