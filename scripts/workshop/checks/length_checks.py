"""Preflight of lengths in tokens: prompts and completions against what the recipe and the model have room for."""

from collections.abc import Iterator
from typing import Any

from rl.preferences import SIDES, length_report
from rl.tasks import DataError

from workshop.checks.request import OK, PROBLEM, WARNING, Check, JobRequest
from workshop.checks.signatures import load_signature
from workshop.checks.tokenizer_checks import Model


class Limits:
    """The numbers of a recipe, with the defaults of what the script reads."""

    def __init__(self, request: JobRequest, settings: dict[str, Any]) -> None:
        self.config = request.script.config if request.script else None
        known = request.script.reads(load_signature) if request.script else {}
        self._values = {key: setting.default for key, setting in known.items()} | settings

    def __getitem__(self, key: str) -> int | None:
        """The setting as a number; None where it is not set, or no number (which another check says)."""
        text = str(self._values.get(key))
        return int(text) if text.isdigit() else None

    def __contains__(self, key: str) -> bool:
        return str(self._values.get(key)).lower() in ("true", "1")


def check_evaluation(limits: Limits) -> Iterator[Check]:
    """pass@1 is measured with as many tokens as the training allowed."""
    evaluated, trained = limits["eval_max_new_tokens"], limits["max_completion_length"]
    if evaluated is None or trained is None or evaluated == trained:
        return
    differ = f"eval_max_new_tokens is {evaluated}, but completions have up to {trained} tokens in training"
    if evaluated < trained:
        effect = (
            "the evaluation cuts off answers that the training lets end and counts them as wrong, before and after, so "
            "pass@1 is too low"
        )
    else:
        effect = (
            "answers that only end beyond the training's limit count as right in the evaluation and earned nothing in "
            "training, so pass@1 before and after is not what was trained for, and the gain looks smaller"
        )
    yield Check("evaluation", WARNING, f"{differ}: {effect}. Set both to the same number")


def check_lengths(
    limits: Limits, model: Model, lengths: list[int], rows: list[dict[str, Any]], total: int
) -> Iterator[Check]:
    """The prompts of the training data, with the answers to them, fit where they have to.

    Args:
        lengths: of the prompts in tokens.
        rows: the rows that they belong to; of a DPO job, its pairs.
        total: of all rows; those that are not among them have shorter texts.
    """
    found = [
        *_check_verl(limits, lengths, total),
        *_check_max_length(limits, model, lengths, rows, total),
        *_check_context(limits, model, lengths, total),
    ]
    if not found:
        counted = f", tokens counted in the {len(lengths):,} longest" if len(lengths) < total else ""
        text = f"up to {max(lengths)} tokens (of {total:,} prompts{counted})"
        found = [Check("prompts", OK, text)]
    yield from found


def _over(lengths: list[int], limit: int, total: int) -> str:
    count = sum(length > limit for length in lengths)
    at_least = "at least " if count == len(lengths) < total else ""
    return (
        f"{at_least}{count:,} of {total:,} prompts have more than {limit} tokens (the longest {max(lengths)})"
    )


def _check_verl(limits: Limits, lengths: list[int], total: int) -> Iterator[Check]:
    limit = limits["max_prompt_length"]
    if limit is not None and max(lengths) > limit:
        yield Check(
            "prompts",
            PROBLEM,
            f"{_over(lengths, limit, total)}: verl cuts off their beginning and trains on the rest. Set data.max_prompt_length to "
            f"{max(lengths)} or more, or leave those rows out",
        )


def _check_max_length(
    limits: Limits, model: Model, lengths: list[int], rows: list[dict[str, Any]], total: int
) -> Iterator[Check]:
    """Trainers that learn from pairs leave out those whose prompt fills max_length, and cut off the end of the others."""
    if limits.config not in ("trl.DPOConfig", "trl.RewardConfig"):
        return
    counted = [{"prompt_tokens": length} for length in lengths]
    for side in SIDES:  # a reward model's job makes its pairs itself, so that there are no answers yet
        answers = [row[side][-1].get("content") or "" if side in row else "" for row in rows]
        ids = model.tokenizer(answers, add_special_tokens=False)["input_ids"]
        for pair, row, answer in zip(counted, rows, ids, strict=True):
            pair[f"{side}_tokens"] = len(answer) + (side in row)  # the end token
    counted += [dict.fromkeys(counted[0], 0)] * (total - len(counted))  # shorter ones
    try:
        for sentence in length_report(counted, limits["max_length"]):
            yield Check("prompts", WARNING, sentence)
    except DataError as error:
        yield Check("prompts", PROBLEM, str(error))


def _check_context(limits: Limits, model: Model, lengths: list[int], total: int) -> Iterator[Check]:
    """A prompt and the longest completion to it are one sequence for the model."""
    answers = {key: room for key in ("max_completion_length", "eval_max_new_tokens") if (room := limits[key])}
    longest, answer = max(lengths), max(answers.values(), default=0)
    key = max(answers, key=lambda name: answers[name], default="")
    whole = f"the longest prompt has {longest} tokens, with {key} = {answer} that makes {longest + answer}"
    window = limits["vllm_max_model_length"]
    positions = model.positions
    if window and positions and window > positions and "use_vllm" in limits:
        text = f"vllm_max_model_length is {window}, and the model was made for {positions} tokens: vLLM refuses that"
        yield Check("prompts", PROBLEM, text)
    if window and longest >= window:
        text = f"{_over(lengths, window - 1, total)}, which leaves no room for an answer in vllm_max_model_length = {window}"
        yield Check("prompts", PROBLEM, text)
    elif window and longest + answer > window:
        text = f"{whole}, but vllm_max_model_length is {window}: the longest completions are cut off before. Raise it"
        yield Check("prompts", WARNING, text)
    if not positions or longest + answer <= positions:
        return
    if longest >= positions:
        text = f"{_over(lengths, positions - 1, total)}, and the model was made for {positions} (max_position_embeddings)"
        yield Check(
            "prompts", PROBLEM, f"{text}: leave those rows out, or take a model with a longer context"
        )
    elif any(name.startswith("rope") for name in model.config):
        text = f"{whole}, and the model was made for {positions} (max_position_embeddings): what it writes beyond is noise"
        yield Check("prompts", WARNING, f"{text}. Lower {key} to {positions - longest}")
    else:
        text = f"{whole}, and the model has {positions} positions (max_position_embeddings): more end in an index error"
        yield Check("prompts", PROBLEM, f"{text}. Lower {key} to {positions - longest}")
