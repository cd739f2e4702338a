"""What a row may hold: values that JSON, parquet and a `datasets` table all keep as they are, in columns of one type."""

import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID


class DataError(Exception):
    """Data that cannot be used; the message names the file, the line and the field."""


_DEEPEST = 100  # lists and objects within each other; every reader of JSON takes that many
# Variants of letters that mean another thing: 3\u00b2 is not 32, 1\u00bd not 11/2.
_OTHER_MEANING = ("<super>", "<sub>", "<fraction>", "<circle>")


def json_value(value: Any, where: str = "a row") -> Any:
    """A value as JSON has it, so that it means the same in every file and to every reward.

    Dates and times become ISO text, time spans seconds, Decimal exact text ("12.50"), bytes the UTF-8 text that they
    are, numpy's scalars and arrays numbers and lists (float32 by the fewest digits that name it: 2.7, and not
    2.700000047683716), and what is missing (NaN, NaT, NA) None.

    Raises:
        DataError: what has no such form: bytes that are no text, infinity, integers of more than 64 bits, half a
            character (a lone surrogate), more than 100 levels, any other object. `where` begins the message.
    """
    return _plain(value, where, 0)


def _plain(value: Any, where: str, depth: int) -> Any:
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _text(value, where)
    if isinstance(value, int):
        if not -(2**63) <= value < 2**63:
            raise DataError(
                f"{where}: the integer {str(value)[:30]}... needs more than 64 bits. Write it as text."
            )
        return int(value)
    if isinstance(value, float | Decimal | datetime) or type(value).__name__ == "NAType":
        return None if type(value).__name__ == "NAType" or value != value else _scalar(value, where)
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode()
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: {len(value):,} bytes that are no UTF-8 text, such as an image. Leave the column out (drop=)."
            ) from error
    if depth > _DEEPEST:
        raise DataError(f"{where}: nested more than {_DEEPEST} levels deep. Leave the column out (drop=).")
    if isinstance(value, Mapping):
        return {_text(str(key), where): _plain(item, where, depth + 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, where, depth + 1) for item in value]
    if hasattr(value, "tolist"):  # of numpy, or a tensor
        dtype = getattr(value, "dtype", None)
        kind = getattr(dtype, "name", str(dtype).removeprefix("torch."))
        value = value.tolist()
        return _plain(shortest(value, kind) if kind in ("float16", "float32") else value, where, depth + 1)
    raise DataError(
        f"{where}: JSON cannot hold a value of type {type(value).__name__}. Leave the column out (drop=)."
    )


def _scalar(value: float | Decimal | datetime, where: str) -> float | str:
    if isinstance(value, datetime):
        return value.isoformat()
    if value in (float("inf"), float("-inf")):
        raise DataError(f"{where}: JSON has no infinity. Write another number, or leave the cell empty.")
    return format(value, "f") if isinstance(value, Decimal) else float(value)


def shortest(value: Any, kind: str) -> Any:
    """A float of fewer than 64 bits, or lists of them, by the fewest digits that name it: 2.7, not 2.700000047683716.

    Args:
        kind: "float32" or "float16".
    """
    import numpy

    if isinstance(value, list):
        return [shortest(item, kind) for item in value]
    return float(str(numpy.dtype(kind).type(value)))


def _text(value: str, where: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise DataError(
            f"{where}: {value[error.start]!r} at character {error.start + 1} is half a character (a lone surrogate, as "
            "where a text was cut in the middle of an emoji). Take it out."
        ) from error
    return str(value)


def check_columns(rows: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
    """Each column holds values of one type, in lists and objects too; what is missing (None) fits any.

    Args:
        rows: each with where it stands, for the message.

    Raises:
        DataError: a column of two types, which no table can hold; both places are named.
    """
    first: dict[str, tuple[str, str]] = {}
    for where, row in rows:
        for name, value in row.items():
            for path, kind in _kinds(name, value):
                before, there = first.setdefault(path, (kind, where))
                if before != kind:
                    raise DataError(
                        f"{where}: the column '{path}' holds {kind} here and {before} in {there}. Give it one type in all "
                        f"rows, or leave it out (drop=['{name}'] of rl.own_data.rows_from)."
                    )


def _kinds(path: str, value: Any) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield path, "text"
    elif isinstance(value, bool):
        yield path, "true or false"
    elif isinstance(value, int | float):
        yield path, "a number"
    elif isinstance(value, list):
        yield path, "a list"
        for item in value:
            yield from _kinds(f"{path}[]", item)
    elif isinstance(value, dict):
        yield path, "an object"
        for key, item in value.items():
            yield from _kinds(f"{path}.{key}", item)


def same_columns(rows: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows, all with the same columns in the same order; None where a row has no such column."""
    rows = list(rows)
    names = dict.fromkeys(name for row in rows for name in row)
    return [{name: row.get(name) for name in names} for row in rows]


def compatible(text: str) -> str:
    """Full-width and other variants of letters as the usual ones, where they mean the same (3\u00b2 is not 32)."""
    if text.isascii():
        return text
    usual = (
        c if unicodedata.decomposition(c).startswith(_OTHER_MEANING) else unicodedata.normalize("NFKC", c)
        for c in text
    )
    return unicodedata.normalize("NFC", "".join(usual))


def normalised(text: str) -> str:
    """A text as it is compared: the usual variants of letters, no case, single spaces."""
    return " ".join(compatible(text).casefold().split())
