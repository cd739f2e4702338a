"""Data as people bring it, for the tests of the reader."""

import gzip
import json

import pyarrow
import pyarrow.parquet
from rl.own_data import pairs_from, rows_from

CAPITALS = {"France": "Paris", "Norway": "Oslo", "Peru": "Lima", "Italy": "Rome", "Cuba": "Havana"}
ROWS = [{"question": country, "answer": capital} for country, capital in CAPITALS.items()]
ALL = {"train": 1.0}


def csv_text(rows=ROWS, *, delimiter=",", names=None) -> str:
    lines = [names or list(rows[0]), *(row.values() for row in rows)]
    return "".join(delimiter.join(line) + "\n" for line in lines)


def as_file(folder, name: str, content: str | bytes):
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def parquet(folder, rows, name="data.parquet"):
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / name)
    return folder / name


def read(source, **options) -> list[dict]:
    """All rows in the source's order."""
    splits, _ = rows_from(source, **{"splits": ALL, "verifier": "text", **options})
    return sorted(splits["train"], key=lambda row: row["index"])


def read_as_pairs(source, **options) -> list[dict]:
    splits, _ = pairs_from(source, splits=ALL, **options)
    return sorted(splits["train"], key=lambda row: row["index"])


def capitals(rows) -> dict[str, str]:
    return {row["question"]: row["answer"] for row in rows}


JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


# Pairs


def assistant(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


USER, SAID = {"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}


GOOD, BAD = assistant("4"), assistant("5")
