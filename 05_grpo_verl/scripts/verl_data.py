"""The workshop's rows as verl reads them, and what keeps verl from training on them.

verl's data set is a parquet file with the columns of `verl.utils.dataset.RLHFDataset`. Needs neither torch nor verl, so
that a notebook looks at it too.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from rl.tasks import DataError, Message, Row
from rl.templates import render
from verl_keys import TEMPLATE, Settings, given_value, value_of

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class GroundTruth(TypedDict):
    """What the reward compares a completion with."""

    style: str  # "rule": verl's word for a function, in contrast to a model
    ground_truth: str


class Origin(TypedDict):
    """Where a row comes from, and all that it holds."""

    index: int
    split: str
    columns: (
        str  # the row as JSON text: columns of one's own, of any types, for the rewards that ask for them
    )


class VerlRow(TypedDict):
    """A row of verl's data set."""

    data_source: str
    prompt: list[Message]
    reward_model: GroundTruth
    extra_info: Origin


def write_data(train: list[Row], test: list[Row], folder: Path) -> dict[str, str]:
    """Writes verl's data files from the workshop's rows; returns the settings of `data` that name them:
    {"train_files": path, "val_files": path}."""
    import pyarrow
    import pyarrow.parquet

    files = {"train_files": folder / "train.parquet", "val_files": folder / "test.parquet"}
    for rows, path in zip((train, test), files.values(), strict=True):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([data_columns(row) for row in rows]), path)
    return {name: str(path) for name, path in files.items()}


def data_columns(row: Row) -> VerlRow:
    """A row of `rl.tasks` as verl's data set has it."""
    return {
        "data_source": row["task"],
        "prompt": row["prompt"],
        "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        "extra_info": {
            "index": row["index"],
            "split": row["split"],
            "columns": json.dumps(row, ensure_ascii=False, default=str),
        },
    }


def check_rows(settings: Settings, rows: int) -> int:
    """How often verl must go through so many training rows for the steps that the recipe asks for.

    verl calls that total_epochs, and ends there, whatever total_training_steps says.

    Raises:
        DataError: the rows do not fill one step.
    """
    prompts, used = value_of(settings, "data.train_batch_size"), admitted_rows(settings, rows)
    if used < prompts:
        limit = f" (data.train_max_samples lets no more than {used} in)" if used < rows else ""
        raise DataError(
            f"A step takes data.train_batch_size = {prompts} prompts, and the channel 'train' has {used}{limit}: give "
            f"it {prompts} rows or more, or lower data.train_batch_size."
        )
    return -(-given_value(settings, "trainer.total_training_steps") // (used // prompts))


def admitted_rows(settings: Settings, rows: int) -> int:
    """How many of so many training rows data.train_max_samples lets in."""
    most = value_of(settings, "data.train_max_samples")
    return min(rows, most) if most > 0 else rows


def fitting_rows(
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[Row],
    settings: Settings,
    *,
    use: str,
    tools: Sequence[dict[str, Any]] = (),
) -> list[Row]:
    """The rows whose prompts have no more than data.max_prompt_length tokens.

    verl cuts off the beginning of longer ones, and says so only in the log of a worker.

    Args:
        use: what verl uses the rows for, as it is said to the reader.
        tools: their schemas, which are part of each prompt.

    Raises:
        DataError: a prompt is longer, and the recipe does not leave such ones out (data.filter_overlong_prompts); names
            the rows and their lengths.
    """
    longest = value_of(settings, "data.max_prompt_length")
    options = {"chat_template_kwargs": value_of(settings, TEMPLATE), "tools": tools or None}
    texts = [render(tokenizer, row["prompt"], **options) for row in rows]
    lengths = [len(ids) for ids in tokenizer(texts, add_special_tokens=False)["input_ids"]]
    long = [(row, length) for row, length in zip(rows, lengths, strict=True) if length > longest]
    if not long:
        return rows
    found = (
        f"{use}: {len(long)} of {len(rows)} prompts are longer than data.max_prompt_length = {longest} tokens"
    )
    if not value_of(settings, "data.filter_overlong_prompts"):
        raise DataError(
            f"{found}, and verl would cut off their beginning: {'; '.join(_describe(*one) for one in long[:3])}. "
            f"Set data.max_prompt_length={max(lengths)} or more, or leave these rows out."
        )
    print(f"{found}: left out, as data.filter_overlong_prompts says.", flush=True)
    return [row for row, length in zip(rows, lengths, strict=True) if length <= longest]


def _describe(row: Row, length: int) -> str:
    return f"{row['split']} row with index {row['index']}, {length} tokens ({row['question'][:40]!r}...)"
