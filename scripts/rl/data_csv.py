"""CSV as programs write it: with a comma, a semicolon or a tab, all quoted or not, with Excel's own first line or without."""

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rl.data_values import DataError

_MISSING = frozenset(["nan", "NaN", "<NA>", "#N/A"])  # what programs write for an empty cell of a table
_DELIMITERS = {",": "comma", ";": "semicolon", "\t": "tab", "|": "vertical bar"}
# Excel's own first line, which names the delimiter.
_EXCEL = re.compile(r'"?sep=([^\r\n"])"?(?:\r\n|\r|\n)', re.IGNORECASE)


def csv_rows(
    path: Path, text: str, delimiter: str | None = None, *, usual: str = ","
) -> Iterator[tuple[int, dict[str, str | None]]]:
    """The rows of a CSV, with the lines where they begin; None where a program wrote that a cell is empty.

    Args:
        path: for messages.
        delimiter: between the fields; if not given, what Excel's line "sep=" says, else the usual one.

    Raises:
        DataError: quotes that are not closed, another number of fields than names, one column alone, columns without
            names of their own; names the line, and the delimiter to try.
    """
    excel = _EXCEL.match(text)
    delimiter = delimiter or (excel[1] if excel else usual)
    text, skipped = (text[excel.end() :], 1) if excel else (text, 0)
    csv.field_size_limit(max(csv.field_size_limit(), len(text)))
    names: list[str] | None = None
    start = skipped + 1
    lines = _csv_reader(text, delimiter)
    try:
        for fields in lines:
            number, start = start, lines.line_num + skipped + 1
            where = f"{path}, line {number}"
            if not fields:
                continue
            if names is None:
                names = _csv_names(where, fields, text, delimiter)
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{where}: {len(fields)} fields where the first line names {len(names)} ({', '.join(names)}). Put texts "
                    f"that hold a {_said(delimiter)} into quotes."
                )
            cells = zip(names, fields, strict=True)
            yield number, {name: None if cell in _MISSING else cell for name, cell in cells if name}
    except csv.Error as error:
        if names is None and (hint := _delimiter_hint(text, delimiter)):
            raise DataError(f"{path}, line {start}: no {_said(delimiter)} behind a quote.{hint}") from error
        raise DataError(
            f"{path}, line {start}: a quote that opens here is not closed as it should be ({error}). Close it, and write a "
            'quote within a quoted text twice ("").'
        ) from error


def _csv_reader(text: str, delimiter: str) -> Any:
    try:
        return csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    except (TypeError, ValueError) as error:
        raise DataError(f"A delimiter is one character, such as ';' or '\\t', not {delimiter!r}.") from error


def _csv_names(where: str, fields: list[str], text: str, delimiter: str) -> list[str]:
    names = [field.strip() for field in fields]
    if len(names) == 1:
        raise DataError(f"{where}: only one column, {names[0]!r}.{_delimiter_hint(text, delimiter)}")
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(f"{where}: {count} columns are named '{name}'. Give each a name of its own.")
    if "" in names[1:]:  # the first may be: it is the index that pandas writes, and is left out
        raise DataError(f"{where}: column {names.index('', 1) + 1} has no name. Give it one.")
    return names


def _delimiter_hint(text: str, delimiter: str) -> str:
    """Which other delimiter gives the first line several fields; "" if none does."""
    for other, name in _DELIMITERS.items():
        try:
            if other != delimiter and len(next(filter(None, _csv_reader(text, other)), [])) > 1:
                return f" Its fields seem to be parted by a {name}: delimiter={other!r}."
        except csv.Error:  # not this one
            continue
    return ""


def _said(delimiter: str) -> str:
    return _DELIMITERS.get(delimiter, delimiter)
