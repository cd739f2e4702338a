"""The workshop's rows as verl reads them: parquet files with the columns of `verl.utils.dataset.RLHFDataset`."""

from pathlib import Path
from typing import TypedDict

from rl.tasks import Message, Row


class GroundTruth(TypedDict):
    """What the reward compares a completion with."""

    style: str  # "rule": verl's word for a function, in contrast to a model
    ground_truth: str


class Origin(TypedDict):
    """Where a row comes from."""

    index: int
    split: str


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
        "extra_info": {"index": row["index"], "split": row["split"]},
    }
