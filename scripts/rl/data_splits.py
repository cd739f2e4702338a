"""Splits of data of one's own: duplicates out, shuffled, cut so that no question is in two splits."""

import json
import random
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rl.data_report import Drops, shortened
from rl.data_values import DataError, check_columns, normalised, same_columns

Sizes = Mapping[str, int | float]


@dataclass
class Draft:
    """A row that has no split yet."""

    where: str
    row: dict[str, Any]
    own: dict[str, Any]  # columns that are no part of a row


def asked(row: Mapping[str, Any]) -> tuple[str, str]:
    """The question, and what the system says beside it, as they are compared: it may hold the text to summarise."""
    system = [turn["content"] for turn in row["prompt"] if turn["role"] == "system"]
    return normalised(row["question"]), normalised("\n\n".join(system))


def without_duplicates(drafts: list[Draft], drops: Drops) -> list[Draft]:
    """Of rows with the same question (and system's message) the first; of pairs, those that also have the same answers."""
    first: dict[tuple[str, ...], Draft] = {}
    for draft in drafts:
        answers = [
            normalised(json.dumps(draft.row[side])) for side in ("chosen", "rejected") if side in draft.row
        ]
        before = first.setdefault((*asked(draft.row), *answers), draft)
        if before is draft:
            continue
        same = bool(answers) or normalised(before.row["answer"]) == normalised(draft.row["answer"])
        reason = "came before" if same else "the question came before, with another answer"
        drops.add(reason, f"{draft.where}: {shortened(draft.row['question'])!r}")
    return list(first.values())


def cut_splits(
    drafts: list[Draft], splits: Sizes, seed: int, drops: Drops
) -> dict[str, list[dict[str, Any]]]:
    """The drafts as rows of splits, all with the same columns; rows of one question stay together.

    A split of a given number does not change when a later one is added or made larger.

    Args:
        splits: rows in each, or the share of all.

    Raises:
        DataError: sizes that are neither, too few rows for them, or a column of two types.
    """
    sizes = list(splits.values())
    counted = bool(sizes) and all(type(size) is int and size >= 1 for size in sizes)
    shared = bool(sizes) and all(type(size) is float and size > 0 for size in sizes) and sum(sizes) < 1 + 1e-9
    if not counted and not shared:
        raise DataError(
            "Give each split a number of rows, such as {'train': 2000, 'test': 300}, or a share of all, such as "
            f"{{'train': 0.9, 'test': 0.1}}; got {dict(splits)}."
        )
    parts: dict[str, list[Draft]] = {}
    left, taken, over = _shuffled_groups(drafts, seed), 0, []
    for number, (split, size) in enumerate(splits.items(), start=1):
        wanted = int(size) if counted else round(sum(sizes[:number]) * len(drafts)) - taken
        part = parts[split] = []
        while len(part) < wanted and left:
            part += left.popleft()
        taken += len(part)
        if not part or len(part) < wanted:
            without = "; ".join(f"{item.count:,}: {item.reason} ({item.example})" for item in drops.all)
            raise DataError(
                f"Only {len(drafts):,} different rows can be used, too few for the splits {dict(splits)}: '{split}' would "
                f"have {len(part):,}. "
                + (f"Left out are {without}. " if without else "")
                + "Ask for fewer, or for shares such as {'train': 0.9, 'test': 0.1}."
            )
        if counted:
            over += part[wanted:]
            del part[wanted:]
    over += [draft for group in left for draft in group]
    if over:
        drops.add("left over, as the splits ask for fewer", over[0].where, len(over))
    kept = [(split, draft) for split, part in parts.items() for draft in part]
    check_columns((draft.where, draft.own) for _, draft in kept)
    rows = _one_number_type(same_columns({**draft.row, "split": split, **draft.own} for split, draft in kept))
    return {split: [row for row in rows if row["split"] == split] for split in splits}


def _shuffled_groups(drafts: list[Draft], seed: int) -> deque[list[Draft]]:
    groups: dict[tuple[str, str], list[Draft]] = {}
    for draft in drafts:
        groups.setdefault(asked(draft.row), []).append(draft)
    shuffled = list(groups.values())
    random.Random(seed).shuffle(shuffled)
    return deque(shuffled)


def _one_number_type(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """A column of 1 and 2.5 becomes one of 1.0 and 2.5, as in every table."""
    for name in rows[0]:
        if {type(row[name]) for row in rows} - {type(None)} == {int, float}:
            for row in rows:
                row[name] = None if row[name] is None else float(row[name])
    return rows
