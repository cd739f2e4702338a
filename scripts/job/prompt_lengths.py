"""Prompts that leave a model no room for an answer, looked for before anything is computed: in preflight, and in the job."""

import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from rl.tasks import DataError, Row
from rl.templates import render

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    AnyRow = TypeVar("AnyRow", bound=Mapping[str, Any])

MOST_BYTES = 4 * 2**20  # of text whose tokens are counted, which takes a second or two
TEMPLATE_BYTES = 100  # that a chat template may write around a prompt


def longest(rows: "Sequence[AnyRow]", most_bytes: int = MOST_BYTES) -> "list[AnyRow]":
    """The rows with the longest texts, prompts and answers of pairs, in their order: as many as have `most_bytes` together.

    That is all of them, unless they are many or long; it is one at least.
    """
    by_length = sorted(range(len(rows)), key=lambda place: -_bytes_of(rows[place]))
    totals = itertools.accumulate(_bytes_of(rows[place]) for place in by_length)
    fitting = sum(total <= most_bytes for total in totals)
    return [rows[place] for place in sorted(by_length[: max(1, fitting)])]


def _bytes_of(row: Mapping[str, Any]) -> int:
    messages = itertools.chain(*(row.get(part) or () for part in ("prompt", "chosen", "rejected")))
    return TEMPLATE_BYTES + sum(len((message.get("content") or "").encode()) for message in messages)


def positions(config: Mapping[str, Any]) -> int | None:
    """The longest sequence in tokens that a model of this configuration was made for; None: it does not say."""
    found = config.get("max_position_embeddings")
    if not isinstance(found, int):
        return None
    rope = config.get("rope_scaling") or config.get("rope_parameters") or {}
    factor = rope.get("factor")
    if not isinstance(factor, int | float):
        return found
    # YaRN as the model's card has one switch it on: the number above stays that of the model without it.
    return max(found, int(factor * (rope.get("original_max_position_embeddings") or found)))


def check_prompts(
    rows: Sequence[Row], tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel", config: Any
) -> None:
    """That each prompt leaves room for an answer: else vLLM ends the job where it meets it, or the model writes noise.

    Args:
        rows: problems to train on and to evaluate on; the longest are counted in tokens (see `longest`).
        config: what has `chat_template_kwargs`, and of a trainer with vLLM its window.

    Raises:
        DataError: names how many are too long, the longest of them and what to do.
    """
    whole = model.config.to_dict()
    window = config.vllm_max_model_length if getattr(config, "use_vllm", False) else None
    made_for, of_unsloth = (
        positions(whole.get("text_config") or whole),
        getattr(model, "max_seq_length", None),
    )
    rooms = [
        (made_for, "the model was made for {}: take one with a longer context"),
        (window, "vllm_max_model_length is {}: raise it"),
        (of_unsloth, "vllm_max_model_length is {}: raise it"),
    ]
    room, why = min(((room, why) for room, why in rooms if room), default=(None, ""))
    if room is None:
        return
    counted = longest(rows)
    options = {"chat_template_kwargs": config.chat_template_kwargs}
    texts = [render(tokenizer, row["prompt"], **options) for row in counted]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    if over := sum(length >= room for length in lengths):
        length, row = max(zip(lengths, counted, strict=True), key=lambda pair: pair[0])
        raise DataError(
            f"{over} of {len(rows)} prompts leave no room for an answer. The longest has {length} tokens (split "
            f"{row['split']!r}, index {row['index']}: {row['question'][:60]!r}), and {why.format(room)}, or leave such rows out."
        )
