"""Preference pairs: two answers to one prompt, of which the first is better. What DPO and reward models learn from.

A pair is a problem's row (rl.tasks) with two answers more, each a list of messages. What is compared is one message of
the assistant with another: `normal_form` says how a pair comes to that, and which pairs cannot.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NotRequired, cast

from rl.evaluation import SAMPLED, Evaluation
from rl.tasks import DataError, Message, Row, read_rows, write_whole

SIDES = ("chosen", "rejected")
PARTS = ("prompt", *SIDES)
FEWEST = 20  # pairs; with less there is nothing to learn, and the reason should be looked at


class Pair(Row):
    """A problem with a better and a worse answer."""

    chosen: list[Message]
    rejected: list[Message]
    tools: NotRequired[str]  # JSON text of a list, for the chat template
    prompt_tokens: NotRequired[int]
    chosen_tokens: NotRequired[int]  # the end token included
    rejected_tokens: NotRequired[int]


def preference_pairs(rows: list[Row], sampled: Evaluation, *, per_problem: int = 1) -> list[Pair]:
    """Joins right with wrong sampled answers to the same problem, at most `per_problem` times.

    A problem whose answers are all right or all wrong gives no pair: there is nothing to prefer.
    """
    answers = defaultdict(lambda: {True: [], False: []})
    for item in sampled.completions:
        if item["decoding"] == SAMPLED:
            answers[item["index"]][item["correct"]].append(item["completion"])
    pairs: list[Pair] = []
    for row in rows:
        right, wrong = answers[row["index"]][True], answers[row["index"]][False]
        for chosen, rejected in list(zip(right, wrong, strict=False))[:per_problem]:
            pairs.append({**row, "chosen": _answer(chosen), "rejected": _answer(rejected)})
    return pairs


def check_contrast(pairs: list[Pair], problems: int, samples: int, *, keys: str) -> None:
    """Raises DataError if so few pairs came of `problems` x `samples` answers that nothing can be learned from them.

    `keys` names the recipe's keys that set both numbers, for the advice.
    """
    if len(pairs) < FEWEST:
        raise DataError(
            f"only {len(pairs)} pairs: of {problems} problems, answered {samples} times each, too few have both a right and "
            f"a wrong answer. Raise {keys}, or choose a base model that is neither hopeless nor perfect at this task."
        )


def _answer(text: str) -> list[Message]:
    return [{"role": "assistant", "content": text}]


def drop_duplicates(pairs: list[Pair]) -> list[Pair]:
    """The pairs without those whose prompt, chosen and rejected answer all came before.

    A model that is sure of itself gives the same answer again and again; a pair that stands there five times weighs
    five times as much.
    """
    seen, kept = set(), []
    for pair in pairs:
        key = json.dumps([pair["prompt"], pair["chosen"], pair["rejected"]], sort_keys=True)
        if key not in seen:
            seen.add(key)
            kept.append(pair)
    return kept


def hold_out(pairs: list[Pair], share: float) -> tuple[list[Pair], list[Pair]]:
    """The pairs in two parts, the last of them with that share of the questions: to learn from, and to measure on.

    Cut by question, not by pair: two pairs of one problem often have the same right answer.

    Raises:
        DataError: one of the parts would be empty.
    """
    questions = list(dict.fromkeys(pair["question"] for pair in pairs))
    held = set(questions[len(questions) - round(share * len(questions)) :])
    learned, kept = ([pair for pair in pairs if (pair["question"] in held) == side] for side in (False, True))
    if not learned or not kept:
        raise DataError(f"A share of {share} cannot be held out of {len(questions)} questions.")
    return learned, kept


def length_report(pairs: Sequence[Mapping[str, Any]], max_length: int | None, *, least: int = 1) -> list[str]:
    """What `max_length` does to the pairs, a sentence for each thing; nothing to say of pairs without lengths.

    DPO leaves out a pair whose prompt alone has `max_length` tokens, and cuts what is longer with an answer.

    Args:
        pairs: with prompt_tokens, chosen_tokens and rejected_tokens, as the jobs that make pairs add them.
        max_length: tokens of prompt and answer; None: no limit.
        least: pairs that one step of training takes, on all processes.

    Raises:
        DataError: fewer than `least` pairs are left.
    """
    report, left = [], len(pairs)
    if max_length is not None and all(
        pair.get(f"{name}_tokens") is not None for pair in pairs for name in PARTS
    ):
        full = [pair["prompt_tokens"] for pair in pairs if pair["prompt_tokens"] >= max_length]
        totals = [pair["prompt_tokens"] + max(pair[f"{side}_tokens"] for side in SIDES) for pair in pairs]
        cut = sum(total > max_length for total in totals) - len(full)
        left -= len(full)
        if full:
            report.append(
                f"{len(full)} of {len(pairs)} pairs are left out: their prompt alone fills max_length, {max_length} tokens "
                f"(the longest has {max(full)}; with its answer, a pair has up to {max(totals)})."
            )
        if cut:
            report.append(
                f"{cut} of {len(pairs)} pairs lose the end of an answer: with their prompt they have up to "
                f"{max(totals)} tokens, and max_length is {max_length}."
            )
    check_enough(left, least, report)
    return report


def check_enough(left: int, least: int, reasons: Sequence[str] = ()) -> None:
    """Raises DataError if fewer than `least` pairs are left, with what was said of those that are not."""
    if left < least:
        raise DataError(
            " ".join(
                [
                    f"{left} pairs are left to train on, and a step takes {least}.",
                    *reasons,
                    "Bring more pairs, or raise max_length."
                    if reasons
                    else "Bring more pairs, or take smaller batches.",
                ]
            )
        )


def write_pairs(pairs: list[Pair], path: Path) -> None:
    """Writes one pair a line."""
    write_whole(path, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs).encode())


def read_pairs(path: Path | str) -> list[Pair]:
    """Pairs of a JSONL or parquet file, or of the one such file in a channel's folder, in their normal form.

    Raises:
        DataError: as `read_rows` and `normal_form`; or an answer is missing, empty or no list of messages, or `tools` is
            no JSON list. Names the file, the row (counted from 1) and the field.
    """
    pairs = cast(list[Pair], read_rows(path))
    checked = []
    for number, pair in enumerate(pairs, start=1):
        try:
            _check_fields(pair)
            checked.append(normal_form(pair))
        except DataError as error:
            raise DataError(f"{path}, row {number}: {error}") from error
    return checked


class NoPair(DataError):
    """Two answers that cannot be compared: why, and what to do."""

    def __init__(self, reason: str, cure: str) -> None:
        super().__init__(f"{reason}. {cure}." if cure else f"{reason}.")
        self.reason, self.cure = reason, cure


def normal_form(pair: Pair) -> Pair:
    """The pair with one message of the assistant on each side. What both sides begin with belongs to the prompt.

    So [call, result, answer] beside [call, result, other answer] becomes a longer prompt with two answers. Exchanges that
    part earlier have no such form: the words of users and tools in them would be learned as if the model had said them.

    Raises:
        NoPair: the pair has no such form; says why, and what to do.
    """
    prompt, chosen, rejected = ([_cleaned(message) for message in pair[field]] for field in PARTS)
    for side, messages in zip(SIDES, (chosen, rejected), strict=True):
        if not any(message["content"].strip() or message.get("tool_calls") for message in messages):
            raise NoPair(f"no answer in '{side}'", "Write one")
    if chosen == rejected:
        raise NoPair("'chosen' and 'rejected' are the same, so nothing is preferred", "")
    shared = _shared(chosen, rejected)
    answers = chosen[shared:], rejected[shared:]
    if not all(answers):
        raise NoPair(
            "'chosen' and 'rejected' are the same as far as the shorter goes, so nothing is preferred", ""
        )
    if max(map(len, answers)) > 1:
        raise NoPair(
            "'chosen' and 'rejected' go on after the message at which they part",
            "One answer on each side is compared, and what users and tools say is no answer of the model: end both sides "
            f"with message {shared + 1}, where these two part",
        )
    for side, [answer] in zip(SIDES, answers, strict=True):
        if answer["role"] != "assistant":
            raise NoPair(f"the answer in '{side}' has the role '{answer['role']}'", "It must be 'assistant'")
        if not answer["content"].strip() and not answer.get("tool_calls"):
            raise NoPair(f"no answer in '{side}'", "Write one")
        if more := [key for key in answer if key not in ("role", "content", "tool_calls") and answer[key]]:
            raise NoPair(
                f"the answer in '{side}' has '{more[0]}', which would not be learned",
                "Write it into 'content' as the model would write it (thoughts as <think>...</think>), or take it out",
            )
    asked = _asked(prompt, chosen[:shared])
    return cast(Pair, {**pair, "prompt": asked, "chosen": answers[0], "rejected": answers[1]})


def _asked(prompt: list[Any], common: list[Any]) -> list[Any]:
    """The prompt and what both sides begin with, as one conversation: data sets repeat the prompt there, whole or in part."""
    asked_of, begun = ([_bare(message) for message in part] for part in (prompt, common))
    whole = any(begun[n : n + len(prompt)] == asked_of for n in range(len(begun) - len(prompt) + 1))
    if whole and common and common[0]["role"] in ("system", "user"):
        asked = common  # a whole conversation, with the prompt within
    else:
        ends = range(min(len(prompt), len(common)) + 1)
        repeated = max(n for n in ends if asked_of[len(prompt) - n :] == begun[:n])
        asked = [*prompt, *common[repeated:]]
        first = common[repeated]["role"] if len(common) > repeated else ""
        if prompt and (first == "system" or first == prompt[-1]["role"] == "user"):
            raise NoPair(
                "'prompt' is one question and both answers begin with another: which is asked?",
                "Leave one of them out",
            )
    if not asked or asked[-1]["role"] == "system":
        raise NoPair("no question before the answers", "A user must ask for an answer")
    if asked[-1]["role"] == "assistant":
        raise NoPair(
            "before both answers the assistant speaks last", "A user or a tool must ask for an answer"
        )
    return asked


def _bare(message: dict[str, Any]) -> dict[str, Any]:
    """As messages are compared: without white space around the text."""
    return {**message, "content": message["content"].strip()}


def _shared(first: list[Any], second: list[Any]) -> int:
    """How many messages both begin with."""
    pairs = zip(first, second, strict=False)
    return next((n for n, (one, other) in enumerate(pairs) if one != other), min(len(first), len(second)))


def _cleaned(message: Any) -> dict[str, Any]:
    """A message without empty fields: parquet gives every message all fields that any of them has."""
    return {
        "role": message["role"],
        "content": message.get("content") or "",
        **_without_none(message, ("content",)),
    }


def _without_none(value: Any, leave_out: tuple[str, ...] = ()) -> Any:
    if isinstance(value, dict):
        return {k: _without_none(v) for k, v in value.items() if v is not None and k not in leave_out}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _check_fields(pair: Pair) -> None:
    for side in SIDES:
        if side not in pair:
            raise DataError(f"the field '{side}' is missing. Are these problems and not pairs?")
        messages = pair[side]
        if not isinstance(messages, list) or not messages or not all(map(_is_part_of_answer, messages)):
            raise DataError(
                f"the field '{side}' must be a list of {{'role': ..., 'content': ...}} with text (or with tool_calls)."
            )
    if pair.get("tools"):
        try:
            tools = json.loads(pair["tools"])
        except (TypeError, ValueError) as error:
            raise DataError(f"the field 'tools' is not the JSON text of a list ({error}).") from error
        if not isinstance(tools, list):
            raise DataError("the field 'tools' is not the JSON text of a list.")


def _is_part_of_answer(message: Any) -> bool:
    """Whether it has a role and says something: a text that is not empty, or calls of tools."""
    if (
        not isinstance(message, dict)
        or not isinstance(message.get("role"), str)
        or not message["role"].strip()
    ):
        return False
    text = message.get("content")
    calls = message.get("tool_calls")
    if calls and not _are_calls(calls):
        return False
    return bool(calls) if text is None else isinstance(text, str) and bool(text.strip() or calls)


def _are_calls(calls: Any) -> bool:
    return isinstance(calls, list) and all(
        isinstance(call, dict)
        and isinstance(call.get("function", call), dict)
        and call.get("function", call).get("name")
        for call in calls
    )
