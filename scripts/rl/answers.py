"""The form of a completion: `<think>...</think><answer>...</answer>`, and the answer in it.

Everything up to the last `</think>` is thinking, whatever tags it names, but for what stands between two blocks of it.
Behind it stands one answer block and nothing more. What the chat template has put into the answer before the model writes (`opening`, see rl.templates) counts as
part of the completion: some templates open the thinking, some put in an empty block.
"""

from collections.abc import Iterator
from typing import Any

THINK, END_THINK, ANSWER, END_ANSWER = TAGS = ("<think>", "</think>", "<answer>", "</answer>")


def completion_text(completion: Any) -> str:
    """Text of a completion: a plain string, None, or a conversation (its assistant messages joined).

    Thinking that a tokenizer's response template has cut out (`reasoning_content`) is put back into its tags.
    """
    if completion is None:
        return ""
    if isinstance(completion, str):
        return completion
    return "".join(_message_text(item) for item in completion if item.get("role", "assistant") == "assistant")


def _message_text(message: dict[str, Any]) -> str:
    thinking = message.get("reasoning_content") or message.get("thinking")
    block = f"{THINK}{thinking}{END_THINK}" if thinking else ""
    content = message.get("content") or ""
    if not isinstance(content, str):  # parts, as models with images have them
        content = "".join(part.get("text") or "" for part in content)
    return block + content


def extract_answer(text: str, opening: str = "") -> str | None:
    """The answer of a completion, or None unless there is exactly one `<answer>` block, behind the thinking, and only
    white space behind it.

    A block before the thinking, or between two blocks of thinking, is an answer too, so that there would be two. Plain
    string search takes linear time on any text, which a pattern with `.*` does not.
    """
    before, closed, rest = (opening + text).rpartition(END_THINK)
    rest = rest.rstrip()
    start, end = rest.find(ANSWER), len(rest) - len(END_ANSWER)
    if start < 0 or not rest.endswith(END_ANSWER) or rest.count(ANSWER) > 1 or rest.count(END_ANSWER) > 1:
        return None
    if THINK in rest or (closed and any(ANSWER in piece for piece in _outside_thinking(before))):
        return None  # thinking that never ends; a second answer
    return rest[start + len(ANSWER) : end].strip()


def _outside_thinking(before: str) -> Iterator[str]:
    """What stands before the first block of thinking, and between two; `before` ends where the last block ends.

    A thought may name the tags ("I close with </think> now"), so a block has ended only where another one begins.
    """
    first, *blocks = before.split(THINK)
    yield first
    depth = 0
    for block in blocks[:-1]:
        depth = max(0, depth + 1 - block.count(END_THINK))
        if depth == 0:
            yield block.rpartition(END_THINK)[2]


def is_formatted(text: str, opening: str = "") -> bool:
    """Whether a completion is `<think>...</think><answer>...</answer>` with nothing outside the tags.

    The thinking may be empty or have many lines, and a block of a model's own may stand before the one asked for; the
    answer may not be empty.
    """
    before, closed, rest = (opening + text).rpartition(END_THINK)
    if not closed or THINK not in before or any(piece.strip() for piece in _outside_thinking(before)):
        return False
    return rest.lstrip().startswith(ANSWER) and bool(extract_answer(text, opening))
