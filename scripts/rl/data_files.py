"""Files of data as people have them: CSV, TSV, JSON, JSONL (each also .gz) and parquet, alone or as shards in a folder.

What cannot be read is refused with file, line and what to do. `rl.own_data` makes rows of the records.
"""

import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rl.data_values import DataError

KINDS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_MISSING = frozenset(["nan", "NaN", "<NA>", "#N/A"])  # what programs write for an empty cell of a table


class Record(NamedTuple):
    """One row of a source, and where it stands, for messages."""

    where: str
    values: dict[str, Any]


def read_records(source: Any, *, encoding: str = "utf-8", delimiter: str | None = None) -> list[Record]:
    """All rows of a file, of the shards in a folder, of a `datasets.Dataset`, a DataFrame or an iterable of dicts.

    Args:
        encoding: of text files; a byte order mark is accepted.
        delimiter: between the fields of a CSV; a comma (in .tsv a tab) if not given.

    Raises:
        DataError: no such file, another kind of file, or one that is damaged; names file, line and what to do.
    """
    if not isinstance(source, str | Path):
        return list(_given_records(source))
    path = Path(source).expanduser()
    files = shards(path) if path.is_dir() else [path]
    records = [record for file in files for record in _file_records(file, encoding, delimiter)]
    if not records:
        raise DataError(f"{path} holds no rows.")
    return records


def kind_of(path: Path) -> str:
    """The suffix that says what a file holds, .gz left out; "" if it is no data file."""
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    suffix = {".ndjson": ".jsonl"}.get(suffix.lower(), suffix.lower())
    return suffix if suffix in KINDS else ""


def shards(folder: Path) -> list[Path]:
    """The data files of a folder, by name; of a file that is there as JSONL and as parquet, the JSONL.

    Raises:
        DataError: there is none, or they are of several kinds.
    """
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and path.name[0] not in "._" and kind_of(path)
    ]
    lines = {path.stem for path in files if path.suffix == ".jsonl"}
    files = [path for path in files if not (path.suffix == ".parquet" and path.stem in lines)]
    if not files:
        inside = [path.name for path in sorted(folder.iterdir()) if path.is_dir() and path.name[0] != "."]
        hint = f" Name one of the folders in it: {', '.join(inside)}." if inside else ""
        raise DataError(f"{folder} holds no data file ({', '.join(KINDS)}).{hint}")
    if len(kinds := Counter(map(kind_of, files))) > 1:
        counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise DataError(
            f"{folder} holds files of several kinds ({counted}). Name one file, or move the others away."
        )
    return files


def _file_records(path: Path, encoding: str, delimiter: str | None) -> Iterator[Record]:
    kind = kind_of(path)
    if not path.is_file():
        raise DataError(f"There is no file {path}.")
    if not kind:
        raise DataError(
            f"{path} is no data file that can be read here: {', '.join(KINDS)} (and .gz) are. A spreadsheet can be saved as "
            "CSV (UTF-8)."
        )
    content = file_content(path)
    if kind == ".parquet":
        yield from (Record(f"{path}, row {number}", row) for number, row in parquet_rows(path, content))
        return
    text = decoded(path, content, encoding)
    if kind == ".json":
        yield from _json_records(path, text)
    elif kind == ".jsonl":
        for number, value in jsonl_values(path, text):
            yield _record(f"{path}, line {number}", value)
    else:
        yield from _csv_records(path, text, delimiter or ("\t" if kind == ".tsv" else ","))


def file_content(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in .gz.

    Raises:
        DataError: it is empty, or not packed as its name says, or damaged.
    """
    content = path.read_bytes()
    packed = content[:2] == b"\x1f\x8b"
    if packed != (path.suffix.lower() == ".gz") and content:
        wrong, right = (
            ("is packed by gzip", "add .gz to") if packed else ("is not packed by gzip", "take .gz from")
        )
        raise DataError(f"{path} {wrong}, which its name does not say: {right} its name.")
    if packed:
        try:
            content = gzip.decompress(content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged or cut off ({error}). Copy or pack it again.") from error
    if not content.strip():
        raise DataError(f"{path} is empty.")
    return content


def decoded(path: Path, content: bytes, encoding: str = "utf-8") -> str:
    """The text of a file without its byte order mark.

    Raises:
        DataError: it is in another encoding; names the line, and the encoding to try.
    """
    try:
        return content.decode("utf-8-sig" if encoding.lower() in ("utf-8", "utf8") else encoding)
    except LookupError as error:
        raise DataError(
            f"There is no encoding {encoding!r}; utf-8, utf-16 and cp1252 are usual ones."
        ) from error
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = content.count(b"\n", 0, start) + 1
        wide = content[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in content[:100]
        likely = "utf-16" if wide else "utf-8" if encoding.lower() not in ("utf-8", "utf8") else "cp1252"
        where = "an export of Excel or Windows often is" if likely != "utf-8" else "most files are"
        raise DataError(
            f"{path}, line {line}: not {encoding.upper()} text ({error}). Try "
            f"encoding='{likely}' in rl.own_data.rows_from ({where}), or save the file as UTF-8."
        ) from error


def jsonl_values(path: Path, text: str) -> Iterator[tuple[int, Any]]:
    """The values of a JSONL file, with their lines.

    Raises:
        DataError: a line that is no JSON.
    """
    lines = text.rstrip().split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            yield number, _parsed(line)
        except (ValueError, RecursionError) as error:
            hint = ""
            if line.strip() in ("[", "{"):
                hint = " One JSON text over several lines belongs into a file named .json: rl.own_data.rows_from reads it."
            elif number == len(lines):
                hint = " Is the file cut off?"
            said = getattr(error, "msg", str(error))
            raise DataError(f"{path}, line {number}: not a JSON object ({said}).{hint}") from error


def _json_records(path: Path, text: str) -> Iterator[Record]:
    try:
        value = _parsed(text)
    except (ValueError, RecursionError) as error:
        said = getattr(error, "msg", str(error))
        hint = " One JSON text a line belongs into a file named .jsonl." if said == "Extra data" else ""
        raise DataError(f"{path}, line {getattr(error, 'lineno', 1)}: not JSON ({said}).{hint}") from error
    if isinstance(value, dict):
        lists = {key: item for key, item in value.items() if isinstance(item, list)}
        if len(lists) != 1:
            what = (
                f"several lists ({', '.join(lists)})"
                if lists
                else f"no list (its keys: {', '.join(value) or 'none'})"
            )
            raise DataError(
                f"{path} is an object with {what}; it must be a list of rows, or hold one. With pandas: "
                "table.to_json(..., orient='records')."
            )
        (value,) = lists.values()
    if not isinstance(value, list):
        raise DataError(f"{path} is no list of rows, but {type(value).__name__}.")
    for number, row in enumerate(value, start=1):
        yield _record(f"{path}, row {number}", row)


def _parsed(text: str) -> Any:
    return json.loads(text, object_pairs_hook=_object)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key '{twice}' stands there twice")
    return found


def _record(where: str, value: Any) -> Record:
    if not isinstance(value, Mapping):
        raise DataError(f"{where}: a row must be an object with named fields, not {type(value).__name__}.")
    return Record(where, dict(value))


def _csv_records(path: Path, text: str, delimiter: str) -> Iterator[Record]:
    lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    names: list[str] | None = None
    start = 1
    try:
        for fields in lines:
            where, start = f"{path}, line {start}", lines.line_num + 1
            if not fields:
                continue
            if names is None:
                names = _csv_names(path, fields, delimiter)
                continue
            if len(fields) != len(names):
                raise DataError(
                    f"{where}: {len(fields)} fields where the first line names {len(names)} ({', '.join(names)}). Put texts "
                    f"that hold a {_said(delimiter)} into quotes."
                )
            cells = zip(names, fields, strict=True)
            yield Record(where, {name: None if cell in _MISSING else cell for name, cell in cells if name})
    except csv.Error as error:
        raise DataError(
            f"{path}, line {start}: a quote that opens here is not closed as it should be ({error}). Close it, and write a "
            'quote within a quoted text twice ("").'
        ) from error


def _csv_names(path: Path, fields: list[str], delimiter: str) -> list[str]:
    names = [field.strip() for field in fields]
    if len(names) == 1:
        others = [other for other in (",", ";", "\t", "|") if other != delimiter and other in names[0]]
        hint = (
            f" Its fields seem to be parted by a {_said(others[0])}: delimiter={others[0]!r}."
            if others
            else ""
        )
        raise DataError(f"{path}, line 1: only one column, {names[0]!r}.{hint}")
    for name, count in Counter(names).items():
        if count > 1:
            raise DataError(
                f"{path}, line 1: {count} columns are named '{name}'. Give each a name of its own."
            )
    if "" in names[1:]:  # the first may be: it is the index that pandas writes, and is left out
        raise DataError(f"{path}, line 1: column {names.index('', 1) + 1} has no name. Give it one.")
    return names


def _said(delimiter: str) -> str:
    return {",": "comma", ";": "semicolon", "\t": "tab"}.get(delimiter, delimiter)


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
            columns[name] = column.to_pylist()
        except (pyarrow.ArrowException, ValueError, OverflowError) as error:
            raise DataError(
                f"{path}: the column '{name}' ({column.type}) cannot be read ({error})."
            ) from error
    rows = zip(*columns.values(), strict=True)
    return ((number, dict(zip(columns, row, strict=True))) for number, row in enumerate(rows, start=1))


def _given_records(source: Any) -> Iterator[Record]:
    if isinstance(source, Mapping):
        raise DataError(
            f"Give one of its parts, such as source[{next(iter(source), 'train')!r}], not all: {', '.join(source)}."
        )
    if hasattr(source, "to_dict") and hasattr(source, "columns"):  # a DataFrame
        if twice := [str(name) for name, count in Counter(source.columns).items() if count > 1]:
            raise DataError(f"Several columns are named '{twice[0]}'. Give each a name of its own.")
        source = source.to_dict("records")
    # A Dataset holds classes as numbers, and what they are called beside them.
    features = getattr(source, "features", None) or {}
    classes = {name: feature.names for name, feature in features.items() if hasattr(feature, "int2str")}
    if isinstance(source, bytes) or not isinstance(source, Iterable):
        raise DataError(
            f"Data is a path, a list of dicts, a Dataset or a DataFrame, not {type(source).__name__}."
        )
    number = 0
    for number, value in enumerate(source, start=1):
        record = _record(f"row {number}", value)
        for name, names in classes.items():
            label = record.values.get(name)
            record.values[name] = names[label] if isinstance(label, int) and label >= 0 else None
        yield record
    if not number:
        raise DataError("There are no rows.")
