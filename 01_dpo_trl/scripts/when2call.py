"""nvidia/When2Call: preferences on when a tool-calling model should call a tool, ask back, or say that it cannot.

Ross et al. 2025, https://aclanthology.org/2025.naacl-long.174; licence CC-BY-4.0. Each row has a conversation, the
tools that the model may call, a better and a worse answer (https://github.com/NVIDIA/When2Call names the fields). Needs
the Hugging Face Hub, so it is for runs with a network.
"""

import json
import re
from collections.abc import Iterable
from typing import Any

from rl.preferences import Pair
from rl.tasks import DataError

DATASET, CONFIG = "nvidia/When2Call", "train_pref"
FIELDS = ("messages", "tools", "chosen_response", "rejected_response")
_CALLS = re.compile(r"<TOOLCALL>(\[.*\])</TOOLCALL>", re.DOTALL)


def load_when2call(count: int | None, *, seed: int) -> list[Pair]:
    """Preference pairs from the Hub, shuffled, the first `count` of them (None: all).

    Raises:
        DataError: there is no network, or the data set is not of the form described above.
    """
    try:
        from datasets import load_dataset

        rows = load_dataset(DATASET, CONFIG, split="train").shuffle(seed=seed)
    except ImportError as error:
        raise DataError(f"{DATASET} needs the package 'datasets': pip install datasets.") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"{DATASET} could not be loaded from the Hugging Face Hub ({error}). It needs a network; pairs sampled from "
            "the base model (pairs_sampled.py) need none."
        ) from error
    return as_pairs(rows if count is None else rows.select(range(min(count, len(rows)))))


def as_pairs(rows: Iterable[dict[str, Any]]) -> list[Pair]:
    """When2Call's rows in this workshop's form; `tools` becomes JSON text, which DPOTrainer hands to the chat template.

    Raises:
        DataError: a row lacks a field, or one of its tools is no JSON object; names the row, counted from 1.
    """
    pairs = []
    for number, row in enumerate(rows, start=1):
        where = f"{DATASET} ({CONFIG}), row {number}"
        for field in FIELDS:
            if field not in row:
                raise DataError(f"{where}: the field '{field}' is missing; there are {', '.join(row)}.")
        chosen, rejected = (_answer(_message(row[field], where)) for field in FIELDS[2:])
        prompt = [_message(message, where) for message in row["messages"]]
        question = next((m["content"] for m in reversed(prompt) if m["role"] == "user"), "")
        pair = {"prompt": prompt, "question": question, "answer": chosen["content"], "task": "when2call"}
        pair |= {"split": "train", "index": number - 1, "chosen": [chosen], "rejected": [rejected]}
        pairs.append({**pair, "tools": json.dumps([_tool(tool, where) for tool in row["tools"]])})
    return pairs


def _message(message: Any, where: str) -> dict[str, str]:
    if isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content")):
        return {"role": message["role"], "content": message["content"]}
    raise DataError(f"{where}: {str(message)[:80]!r} is no message with role and content.")


def _answer(message: dict[str, str]) -> dict[str, str]:
    """An answer whose tool calls are written as Qwen's and Hermes' chat templates write them, one <tool_call> each.

    When2Call writes <TOOLCALL>[{"name": ...}]</TOOLCALL> and leaves it to its users to change that. What holds no list
    of calls stays as it is.
    """
    found = _CALLS.fullmatch(message["content"].strip())
    try:
        calls = json.loads(found[1]) if found else []
    except ValueError:
        calls = []  # a model's broken call, which is a fine example of a rejected answer
    text = "\n".join(f"<tool_call>\n{json.dumps(call)}\n</tool_call>" for call in calls)
    return {**message, "content": text or message["content"]}


def _tool(tool: Any, where: str) -> dict[str, Any]:
    """A tool in the form that chat templates know: {"type": "function", "function": {name, description, parameters}}."""
    try:
        content = json.loads(tool) if isinstance(tool, str) else tool
    except ValueError as error:
        raise DataError(f"{where}: the tool {tool[:80]!r} is not JSON ({error}).") from error
    if not isinstance(content, dict):
        raise DataError(f"{where}: the tool {str(tool)[:80]!r} is no JSON object.")
    return content if "function" in content else {"type": "function", "function": content}
