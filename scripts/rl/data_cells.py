"""What stands in a cell: a text, a conversation, an answer; and where the prompt of two answers ends."""

import json
import os
import re
from itertools import takewhile
from typing import Any, cast

from rl.data_values import DataError, json_value
from rl.tasks import Message

_GSM8K = re.compile(r"(?:^|\n)[ \t]*####[ \t]*([^\n]+)$")
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")  # how Anthropic's hh-rlhf writes a conversation


class BadRow(DataError):
    """One row that cannot be used, while others can."""

    def __init__(self, where: str, reason: str, cure: str) -> None:
        super().__init__(f"{where}: {reason}. {cure}, or leave such rows out: skip_bad=True.")
        self.where, self.reason = where, reason


def text_of(value: Any, where: str) -> str:
    """The text of a cell, "" of an empty one; a whole number without ".0", a date as ISO text.

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
    return "" if value is None else str(value).strip()


def turns_of(value: Any, where: str) -> list[Message]:
    """The messages of a cell: a list of them, also as JSON text; any other text is the user's one message.

    Raises:
        BadRow: nothing is there.
        DataError: a message without role and text.
    """
    turns = _messages(value, where)
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


def reduced(answer: str) -> str:
    """What stands behind #### at the end of a solution, as in GSM8K ("... #### 1,234" is 1234); else the answer."""
    found = _GSM8K.search(answer)
    if not found:
        return answer
    last = found[1].strip()
    return last.replace(",", "") if _GROUPED.fullmatch(last) else last


def parted(
    prompt: list[Message], chosen: Any, rejected: Any, where: str
) -> tuple[list[Message], list[Message], list[Message]]:
    """Prompt, chosen and rejected answer of a pair; what both answers begin with goes to the prompt.

    Raises:
        BadRow: an answer is empty, both are the same, or they differ before an answer begins.
        DataError: a message without role and text.
    """
    turns = [
        _conversation(value, f"{where}, column '{name}'")
        for name, value in (("chosen", chosen), ("rejected", rejected))
    ]
    if turns[0] is None and turns[1] is None:
        texts = [text_of(value, where) for value in (chosen, rejected)]
        if not prompt and all(texts) and texts[0] != texts[1]:
            prefix = os.path.commonprefix(texts)
            prefix = prefix[: len(prefix) - len(prefix.split()[-1])] if prefix[-1:].strip() else prefix
            if not prefix.strip():
                raise BadRow(
                    where,
                    "no prompt: chosen and rejected begin differently",
                    "Name its column (prompt='...')",
                )
            prompt = [Message(role="user", content=prefix.strip())]
            texts = [text[len(prefix) :].strip() for text in texts]
        turns = [[Message(role="assistant", content=text)] if text else [] for text in texts]
    better, worse = (
        found if found is not None else _answer(value, where)
        for found, value in zip(turns, (chosen, rejected), strict=True)
    )
    if better == worse and better:
        raise BadRow(where, "chosen and rejected are the same", "Give two different answers")
    common = [one for one, _ in takewhile(lambda two: two[0] == two[1], zip(better, worse, strict=False))]
    better, worse = better[len(common) :], worse[len(common) :]
    for name, answer in (("chosen", better), ("rejected", worse)):
        if not any(turn["content"].strip() or "tool_calls" in turn for turn in answer):
            raise BadRow(where, f"no answer in '{name}'", "Write one")
        if answer[0]["role"] != "assistant":
            raise BadRow(
                where, f"'{name}' differs before the assistant answers", "Both answers need the same prompt"
            )
    if prompt[len(prompt) - len(common) :] == common:
        return prompt, better, worse
    if common[: len(prompt)] == prompt or question_of(prompt) in [turn["content"] for turn in common]:
        return common, better, worse  # the answers repeat the prompt
    return [*prompt, *common], better, worse


def _conversation(value: Any, where: str) -> list[Message] | None:
    """The messages of an answer's cell, or of a text "Human: ... Assistant: ..."; None if it is another text."""
    turns = _messages(value, where)
    if turns is not None or not isinstance(value, str) or not value.lstrip().startswith("Human:"):
        return turns
    parts = _TURN.split(value.strip())[1:]
    roles = {"Human": "user", "Assistant": "assistant"}
    return [
        Message(role=roles[who], content=said.strip())
        for who, said in zip(parts[::2], parts[1::2], strict=True)
    ]


def _answer(value: Any, where: str) -> list[Message]:
    text = text_of(value, where)
    return [Message(role="assistant", content=text)] if text else []


def _messages(value: Any, where: str) -> list[Message] | None:
    """A list of messages, also as JSON text; None if it is none."""
    if isinstance(value, str) and value.lstrip().startswith("[{"):
        try:
            value = json.loads(value)
        except ValueError:
            return None  # a text that begins so
    if hasattr(value, "tolist"):  # numpy's, as in a DataFrame read from parquet
        value = value.tolist()
    if not isinstance(value, list | tuple):
        return None
    return [_message(json_value(item, where), where) for item in value]


def _message(value: Any, where: str) -> Message:
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
    return cast(Message, {**kept, "content": content or ""})


def _named(value: Any) -> str:
    return {list: "a list", dict: "an object", str: "a text"}.get(type(value), type(value).__name__)
