"""Rows as the data set that TRL's trainers take, each as it was written."""

import copy
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from datasets import Dataset


def as_dataset(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """A data set that gives these rows, which all have the same columns, to the trainer and so to its rewards.

    `Dataset.from_list` would not: in a table all objects of a column have the same keys, so that each gets those of all
    others, with None. Here the table holds the rows' numbers, and rows are looked up when they are asked for.
    """
    return Dataset.from_dict({"row": range(len(rows))}).with_transform(partial(_looked_up, rows))


def as_table(rows: Sequence[Mapping[str, Any]]) -> Dataset:
    """The same as a table, for a trainer that writes columns of its own beside these (RewardTrainer).

    Objects keep their keys there too, as JSON text; of their floats up to ten decimals.
    """
    return Dataset.from_list(list(map(dict, rows)), on_mixed_types="use_json")


def _looked_up(rows: Sequence[Mapping[str, Any]], numbers: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Copies, as of a table: what a reward does to its arguments changes no row."""
    found = [copy.deepcopy(rows[number]) for number in numbers["row"]]
    return {name: [row[name] for row in found] for name in rows[0]}
