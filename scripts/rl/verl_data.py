"""The workshop's rows as verl reads them: parquet files with the columns of `verl.utils.dataset.RLHFDataset`."""

from pathlib import Path
from typing import Any

from rl.tasks import Row


def write_data(train: list[Row], test: list[Row], folder: Path) -> dict[str, str]:
    """Writes verl's data files from the workshop's rows; returns the settings of `data` that name them."""
    import pyarrow
    import pyarrow.parquet

    files = {"train_files": folder / "train.parquet", "val_files": folder / "test.parquet"}
    for rows, path in zip((train, test), files.values(), strict=True):
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist([data_columns(row) for row in rows]), path)
    return {name: str(path) for name, path in files.items()}


def data_columns(row: Row) -> dict[str, Any]:
    """A row of `rl.tasks` as verl's data set has it."""
    return {
        "data_source": row["task"],
        "prompt": row["prompt"],
        "reward_model": {"style": "rule", "ground_truth": row["answer"]},
        "extra_info": {"index": row["index"], "split": row["split"]},
    }
