"""Files of data as people have them: CSV, TSV, JSON, JSONL (each also .gz) and parquet, alone or as shards in a folder.

What cannot be read is refused with file, line and what to do. `rl.own_data` makes rows of the records.
"""

import codecs
import gzip
import io
import json
import os
import re
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from rl.data_csv import csv_rows
from rl.data_tables import given_rows, parquet_rows
from rl.data_values import DataError

MOST_BYTES = 2_000_000_000  # of one file: its rows are held in memory several times
SHOWN = 40  # characters of a line in a message
KINDS = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
SPLIT = re.compile(  # names of splits, in a text in lower case
    r"(?:^|[^a-z])(train|training|test|testing|validation|valid|val|dev|eval|evaluation)(?![a-z])"
)
# What the library datasets writes about the data that lie beside it.
_ABOUT = re.compile(r"dataset_infos?\.json|dataset_dict\.json|state\.json")


class Record(NamedTuple):
    """One row of a source, and where it stands, for messages."""

    where: str
    values: dict[str, Any]


def read_records(source: Any, *, encoding: str = "utf-8", delimiter: str | None = None) -> list[Record]:
    """All rows of a file, of the shards in a folder, of a `datasets.Dataset`, a DataFrame or an iterable of dicts.

    Args:
        encoding: of text files; a byte order mark is accepted.
        delimiter: between the fields of a CSV; if not given, a comma (in .tsv a tab) or what Excel's line "sep=" says.

    Raises:
        DataError: no such file, another kind of file, or one that is damaged; names file, line and what to do.
    """
    if not isinstance(source, str | Path):
        records = [_record(f"row {number}", row) for number, row in enumerate(given_rows(source), start=1)]
        if not records:
            raise DataError("There are no rows.")
        return records
    records = [record for file in files_of(source) for record in _file_records(file, encoding, delimiter)]
    if not records:
        raise DataError(f"{source} holds no rows.")
    return records


def files_of(source: Any) -> list[Path]:
    """The files that `read_records` reads: the file itself, a folder's shards; none where the source is no path.

    Raises:
        DataError: as `shards`.
    """
    if not isinstance(source, str | Path):
        return []
    path = Path(source).expanduser()
    return shards(path) if is_folder(path) else [path]


def are_texts(source: Any) -> bool:
    """Whether all cells are texts, as in a CSV: True is "True" there, and 3 is "3"."""
    files = files_of(source)
    return bool(files) and all(kind_of(file) in (".csv", ".tsv") for file in files)


def kind_of(path: Path) -> str:
    """The suffix that says what a file holds, .gz left out; "" if it is no data file."""
    suffix = path.with_suffix("").suffix if path.suffix.lower() == ".gz" else path.suffix
    suffix = {".ndjson": ".jsonl"}.get(suffix.lower(), suffix.lower())
    return suffix if suffix in KINDS else ""


def shards(folder: Path) -> list[Path]:
    """The data files of a folder, by name; of a file that is there as JSONL and as parquet, the JSONL.

    Raises:
        DataError: there is none, they are of several kinds, or of several splits.
    """
    inside = [path for path in sorted(folder.iterdir()) if path.name[0] not in "._"]
    files = [path for path in inside if path.is_file() and kind_of(path) and not _ABOUT.fullmatch(path.name)]
    lines = {path.stem for path in files if path.suffix == ".jsonl"}
    files = [path for path in files if not (path.suffix == ".parquet" and path.stem in lines)]
    if not files:
        raise DataError(f"{folder} holds no data file ({', '.join(KINDS)}).{_folder_hint(folder, inside)}")
    splits = dict.fromkeys(found[1] for path in files if (found := SPLIT.search(path.name.lower())))
    if len(splits) > 1:
        raise DataError(
            f"{folder} holds files of several splits ({', '.join(splits)}), which would be mixed. Name one file (or one "
            "folder of shards)."
        )
    if len(kinds := Counter(map(kind_of, files))) > 1:
        counted = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        raise DataError(
            f"{folder} holds files of several kinds ({counted}). Name one file, or move the others away."
        )
    return files


def _folder_hint(folder: Path, inside: list[Path]) -> str:
    names = {path.name for path in inside}
    if names & {"state.json", "dataset_dict.json"}:
        return (
            f" It was written by save_to_disk: give datasets.load_from_disk('{folder}') instead of its path."
        )
    if arrow := [path for path in inside if path.suffix == ".arrow"]:
        return f" Give datasets.Dataset.from_file('{arrow[0]}') instead of its path."
    folders = [path.name for path in inside if path.is_dir()]
    return f" Name one of the folders in it: {', '.join(folders)}." if folders else ""


def _file_records(path: Path, encoding: str, delimiter: str | None) -> Iterator[Record]:
    kind = kind_of(path)
    regular_file(path)
    if not kind:
        hint = "A spreadsheet can be saved as CSV (UTF-8)."
        if path.suffix == ".arrow":
            hint = f"Give datasets.Dataset.from_file('{path}') instead of the path."
        raise DataError(
            f"{path} is no data file that can be read here: {', '.join(KINDS)} (and .gz) are. {hint}"
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
        rows = csv_rows(path, text, delimiter, usual="\t" if kind == ".tsv" else ",")
        yield from (Record(f"{path}, line {number}", row) for number, row in rows)


def is_folder(path: Path) -> bool:
    """Whether there is such a folder. Raises DataError where the system cannot say."""
    try:
        return path.is_dir()
    except OSError as error:
        raise DataError(f"{str(path)[:200]} cannot be looked at: {error.strerror}.") from error


def regular_file(path: Path) -> Path:
    """The path, of a file that can be read to its end.

    Raises:
        DataError: there is none, or it is a folder, a device or a pipe, which one would read for ever.
    """
    try:
        if path.is_file():
            return path
        there = os.path.lexists(path)
    except (OSError, ValueError) as error:
        raise DataError(f"{str(path)[:200]!r} cannot be looked at: {error}.") from error
    if there:
        raise DataError(
            f"{path} is no file that can be read: a folder, a pipe, a device or a link to nowhere."
        )
    raise DataError(f"There is no file {path}.")


def file_content(path: Path) -> bytes:
    """A file's bytes, unpacked if its name ends in .gz.

    Raises:
        DataError: it is empty, or not packed as its name says, or damaged; it cannot be read, or has more than MOST_BYTES.
    """
    try:
        content = _at_most(path)
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}.") from error
    packed = content[:2] == b"\x1f\x8b"
    if packed != (path.suffix.lower() == ".gz") and content:
        wrong, right = (
            ("is packed by gzip", "add .gz to") if packed else ("is not packed by gzip", "take .gz from")
        )
        raise DataError(f"{path} {wrong}, which its name does not say: {right} its name.")
    if packed:
        try:
            content = _unpacked(path, content)
        except (OSError, EOFError, zlib.error) as error:
            raise DataError(f"{path} is damaged or cut off ({error}). Copy or pack it again.") from error
    if not content.strip():
        raise DataError(f"{path} is empty.")
    return content


def _at_most(path: Path) -> bytes:
    if path.stat().st_size > MOST_BYTES:
        raise _too_large(path)
    return path.read_bytes()


def _unpacked(path: Path, content: bytes) -> bytes:
    """Packed, a file of zeros has a thousandth of its size."""
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        unpacked = file.read(MOST_BYTES + 1)
    if len(unpacked) > MOST_BYTES:
        raise _too_large(path)
    return unpacked


def _too_large(path: Path) -> DataError:
    return DataError(
        f"{path} has more than {MOST_BYTES / 1e9:g} GB, and all rows are held in memory. Take fewer rows, or leave columns out."
    )


def decoded(path: Path, content: bytes, encoding: str = "utf-8") -> str:
    """The text of a file without its byte order mark.

    Raises:
        DataError: it is in another encoding; names the line, and the encoding to try.
    """
    try:
        return _decoded(content, codecs.lookup(encoding).name)
    except LookupError as error:
        raise DataError(
            f"There is no encoding {encoding!r}; utf-8, utf-16 and cp1252 are usual ones."
        ) from error
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = content.count(b"\n", 0, start) + 1
        likely = [other for other in _likely_encodings(content) if _decodes(content, other)]
        advice = "Save the file as UTF-8."
        if likely:
            where = "most files are" if likely[0] == "utf-8" else "an export of Excel or Windows often is"
            advice = (
                f"Try encoding='{likely[0]}' in rl.own_data.rows_from ({where}), or save the file as UTF-8."
            )
            if likely[0] == "cp1252":  # which takes nearly all bytes, those of other alphabets too
                advice += (
                    f" It would read {_around(content, start)!r}: if that is not your text, name the encoding that it "
                    "was saved in, such as cp1251 or shift_jis."
                )
        raise DataError(f"{path}, line {line}: not {encoding.upper()} text ({error}). {advice}") from error


def _around(content: bytes, position: int) -> str:
    """What cp1252 reads at a position, with the rest of its line as far as is readily shown."""
    start = max(content.rfind(b"\n", 0, position) + 1, position - SHOWN // 2)
    return content[start : start + SHOWN].decode("cp1252").splitlines()[0].strip()


def _decoded(content: bytes, encoding: str) -> str:
    text = content.decode(encoding).lstrip("\ufeff")
    if "\0" in text[:100]:  # UTF-16 of English is good UTF-8, with a zero behind each letter
        raise UnicodeError("it holds zero bytes")
    return text


def _decodes(content: bytes, encoding: str) -> bool:
    try:
        return bool(_decoded(content, encoding))
    except UnicodeError:
        return False


def _likely_encodings(content: bytes) -> list[str]:
    if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return ["utf-16"]
    if b"\0" in content[:100]:
        return ["utf-16-le" if content[1:2] == b"\0" else "utf-16-be"]
    return ["utf-8", "cp1252"]


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
    values = {str(name): item for name, item in value.items()}
    if len(values) < len(value):
        twice = next(name for name, count in Counter(map(str, value)).items() if count > 1)
        raise DataError(f"{where}: two fields are named '{twice}'. Give each a name of its own.")
    return Record(where, values)
