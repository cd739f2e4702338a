"""Tables as rows: parquet files, DataFrames, Datasets. Numbers of 16 and 32 bits come as they were written (2.7)."""

import io
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rl.data_values import DataError, json_value, shortest

_FLOATS = {
    "float": "float32",  # as pyarrow calls them
    "halffloat": "float16",
    "float32": "float32",  # as numpy and pandas do
    "float16": "float16",
    "Float32": "float32",
}
_SHORT_FLOAT = re.compile(rf"\b(?:{'|'.join(_FLOATS)})\b")


def parquet_rows(path: Path, content: bytes) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a parquet file, counted from 1; times with nanoseconds are cut to microseconds.

    Raises:
        DataError: it is damaged, has two columns of one name, or holds what Python has no value for.
    """
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(io.BytesIO(content)).read()
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{path} is no readable parquet file ({error}). Copy or write it again.") from error
    columns: dict[str, list[Any]] = {}
    for name, column in zip(table.column_names, table.columns, strict=True):
        if name in columns:
            raise DataError(f"{path}: several columns are named '{name}'. Give each a name of its own.")
        try:
            if pyarrow.types.is_timestamp(column.type) and column.type.unit == "ns":
                column = column.cast(pyarrow.timestamp("us", tz=column.type.tz), safe=False)
            columns[name] = _column(column.to_pylist(), column.type)
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:
            raise DataError(
                f"{path}: the column '{name}' ({column.type}) cannot be read ({error})."
            ) from error
    return enumerate(_rows(columns), start=1)


def given_rows(source: Any) -> Iterator[Any]:
    """The rows of a `datasets.Dataset`, a DataFrame of pandas or polars, or any iterable of rows.

    Raises:
        DataError: it is none of them, or has two columns of one name.
    """
    kinds: dict[str, Any] = {}
    classes: dict[str, list[str]] = {}
    if isinstance(source, Mapping):
        raise DataError(
            f"Give one of its parts, such as source[{next(iter(source), 'train')!r}], not all: {', '.join(source)}."
        )
    if hasattr(source, "to_dicts"):  # polars
        kinds = _short_floats(source.head(0).to_arrow().schema) if hasattr(source, "to_arrow") else {}
        source = source.to_dicts()
    elif hasattr(source, "to_dict") and hasattr(source, "columns"):  # pandas
        source = _frame_rows(source)
    elif features := getattr(source, "features", None):
        kinds = _short_floats(getattr(features, "arrow_schema", ()))
        # A Dataset holds classes as numbers, and what they are called beside them.
        classes = {name: feature.names for name, feature in features.items() if hasattr(feature, "int2str")}
    if isinstance(source, bytes) or not isinstance(source, Iterable):
        raise DataError(
            f"Data is a path, a list of dicts, a Dataset or a DataFrame, not {type(source).__name__}."
        )
    for row in source:
        if kinds or classes:
            row = dict(row)
            for name in kinds.keys() & row.keys():
                row[name] = _cell(row[name], kinds[name])
            for name in classes.keys() & row.keys():
                label = json_value(row[name])
                row[name] = classes[name][label] if isinstance(label, int) and label >= 0 else None
        yield row


def _frame_rows(frame: Any) -> Iterator[dict[str, Any]]:
    columns: dict[str, list[Any]] = {}
    for name, column in frame.items():
        if str(name) in columns:
            raise DataError(f"Several columns are named '{name}'. Give each a name of its own.")
        # Not frame.to_dict: it makes long floats of short ones.
        columns[str(name)] = _column(column.tolist(), getattr(column.dtype, "pyarrow_dtype", column.dtype))
    return _rows(columns)


def _rows(columns: dict[str, list[Any]]) -> Iterator[dict[str, Any]]:
    return (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True))


def _short_floats(schema: Iterable[Any]) -> dict[str, Any]:
    """The arrow types of the columns that hold floats of fewer than 64 bits, by name."""
    return {field.name: field.type for field in schema if _SHORT_FLOAT.search(str(field.type))}


def _column(values: list[Any], kind: Any) -> list[Any]:
    return [_cell(value, kind) for value in values] if _SHORT_FLOAT.search(str(kind)) else values


def _cell(value: Any, kind: Any) -> Any:
    """A value of a type of arrow (or numpy), its short floats by the fewest digits that name them."""
    import pyarrow

    kind = getattr(kind, "storage_type", kind)  # of an extension
    inner = getattr(kind, "value_type", kind)  # of a list or a dictionary
    width = _FLOATS.get(str(inner))
    if width and hasattr(value, "tolist"):  # of numpy, which may have made it wider
        value = value.tolist()
    if isinstance(value, float):
        return shortest(value, width) if width else value
    if isinstance(value, dict) and isinstance(kind, pyarrow.StructType):
        kinds = {field.name: field.type for field in kind}
        return {name: _cell(item, kinds.get(name)) for name, item in value.items()}
    if isinstance(value, list) and isinstance(kind, pyarrow.MapType):
        return [(key, _cell(item, kind.item_type)) for key, item in value]
    if isinstance(value, list):
        return [_cell(item, inner) for item in value]
    return value
