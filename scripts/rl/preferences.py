"""Preference pairs: two answers to one prompt, of which the first is better. What DPO and reward models learn from.

A pair is a problem's row (rl.tasks) with two answers more, each a list of messages. `count_tokens` adds their lengths
in the model's own tokens, for those who look at the data without a tokenizer.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NotRequired, cast

from rl.evaluation import SAMPLED, Evaluation
from rl.tasks import DataError, Message, Row, read_rows, write_whole

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SIDES = ("chosen", "rejected")
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

    Cut by question, not by pair: two pairs of one problem have answers in common.

    Raises:
        DataError: one of the parts would be empty.
    """
    questions = list(dict.fromkeys(pair["question"] for pair in pairs))
    held = set(questions[len(questions) - round(share * len(questions)) :])
    learned, kept = ([pair for pair in pairs if (pair["question"] in held) == side] for side in (False, True))
    if not learned or not kept:
        raise DataError(f"A share of {share} cannot be held out of {len(questions)} questions.")
    return learned, kept


def as_texts(pair: Pair, tokenizer: "PreTrainedTokenizerBase") -> dict[str, str]:
    """The prompt as the model is asked it, by its own chat template with the pair's tools, and both answers bare.

    DPOTrainer adds the end token to an answer that is plain text, and nothing else. Given messages it would apply the
    chat template to them, and ChatML's puts a line break behind the end token. No model ever writes that one, so its
    log-probability is about -20, and DPO could earn margin with a token that no answer contains.
    """
    tools = json.loads(pair["tools"]) if pair.get("tools") else None
    prompt = tokenizer.apply_chat_template(
        pair["prompt"], tools=tools, add_generation_prompt=True, tokenize=False
    )
    return {"prompt": prompt} | {side: pair[side][-1]["content"] for side in SIDES}


def count_tokens(pairs: list[Pair], tokenizer: "PreTrainedTokenizerBase") -> list[Pair]:
    """The pairs with prompt_tokens, chosen_tokens and rejected_tokens (the end token included), as DPOTrainer counts."""
    counted = []
    for pair in pairs:
        texts = as_texts(pair, tokenizer)
        lengths = {name: len(tokenizer(text)["input_ids"]) for name, text in texts.items()}
        counted.append({**pair, **{f"{name}_tokens": lengths[name] + (name in SIDES) for name in texts}})
    return cast(list[Pair], counted)


def write_pairs(pairs: list[Pair], path: Path) -> None:
    """Writes one pair a line."""
    write_whole(path, "".join(json.dumps(pair, ensure_ascii=False) + "\n" for pair in pairs).encode())


def read_pairs(path: Path | str) -> list[Pair]:
    """Pairs of a JSONL or parquet file, or of the one such file in a channel's folder.

    Raises:
        DataError: as `read_rows`; or an answer is missing, empty or no list of messages, or both answers are the same,
            or `tools` is no JSON list. Names the file, the row (counted from 1) and the field.
    """
    pairs = cast(list[Pair], read_rows(path))
    for number, pair in enumerate(pairs, start=1):
        _check_pair(pair, f"{path}, row {number}")
    return pairs


def _check_pair(pair: Pair, where: str) -> None:
    for side in SIDES:
        if side not in pair:
            raise DataError(f"{where}: the field '{side}' is missing. Are these problems and not pairs?")
        messages = pair[side]
        if not isinstance(messages, list) or not messages or not all(map(_is_message, messages)):
            raise DataError(
                f"{where}: the field '{side}' must be a list of {{'role': ..., 'content': ...}} with text."
            )
    if pair["chosen"] == pair["rejected"]:
        raise DataError(f"{where}: 'chosen' and 'rejected' are the same, so nothing is preferred.")
    if pair.get("tools"):
        try:
            tools = json.loads(pair["tools"])
        except (TypeError, ValueError) as error:
            raise DataError(
                f"{where}: the field 'tools' is not the JSON text of a list ({error})."
            ) from error
        if not isinstance(tools, list):
            raise DataError(f"{where}: the field 'tools' is not the JSON text of a list.")


def _is_message(message: Any) -> bool:
    return isinstance(message, dict) and all(
        isinstance(message.get(key), str) and message[key].strip() for key in ("role", "content")
    )
