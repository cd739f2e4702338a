"""The form of a completion: `<think>...</think><answer>...</answer>`, and the answer in it.

Everything up to the last `</think>` is thinking, whatever tags it names. Behind it stands one answer block and nothing
more. What the chat template has put into the answer before the model writes (`opening`, see rl.templates) counts as
part of the completion: some templates open the thinking, some put in an empty block.
"""

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
    return "".join(map(_message_text, completion))


def _message_text(message: dict[str, Any]) -> str:
    thinking = message.get("reasoning_content") or message.get("thinking")
    block = f"{THINK}{thinking}{END_THINK}" if thinking else ""
    return block + (message.get("content") or "")


def extract_answer(text: str, opening: str = "") -> str | None:
    """The answer of a completion, or None unless there is exactly one `<answer>` block, behind the thinking, and only
    white space behind it.

    An answer block before the thinking begins is an answer too, so that there would be two. Plain string search takes
    linear time on any text, which a pattern with `.*` does not.
    """
    whole = opening + text
    before, closed, rest = whole.rpartition(END_THINK)
    outside = before.partition(THINK)[0] if closed else ""
    rest = rest.rstrip()
    start, end = rest.find(ANSWER), len(rest) - len(END_ANSWER)
    if start < 0 or not rest.endswith(END_ANSWER) or rest.count(ANSWER) > 1 or rest.count(END_ANSWER) > 1:
        return None
    if THINK in rest or ANSWER in outside:  # thinking that never ends; a second answer
        return None
    return rest[start + len(ANSWER) : end].strip()


def is_formatted(text: str, opening: str = "") -> bool:
    """Whether a completion is `<think>...</think><answer>...</answer>` with nothing outside the tags.

    The thinking may be empty or have many lines, and a block of a model's own may stand before the one asked for; the
    answer may not be empty.
    """
    whole = (opening + text).strip()
    _, closed, rest = whole.rpartition(END_THINK)
    if not closed or not whole.startswith(THINK) or not rest.lstrip().startswith(ANSWER):
        return False
    return bool(extract_answer(text, opening))
