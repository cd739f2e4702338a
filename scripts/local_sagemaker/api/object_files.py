"""The files that hold a bucket, so that its objects outlive the endpoint: in <home>/s3/<bucket>/

    bucket.json     region and time of creation
    objects.jsonl   one line for each object that was stored: its key, the file of its content, etag, time, metadata
    data/           the contents, a file each
    parts/          of uploads that are not complete yet; they are forgotten when the endpoint ends

An object is there when its line is; the last line of a key counts, and none whose file is gone, so that to delete an object is
to delete its file, which works on a full disk too. A line that was cut off by a crash is passed over.
"""

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, NotRequired, TypedDict

from local_sagemaker.home import write_json

CHUNK = 1 << 20  # bytes that are in memory at a time


class ObjectLine(TypedDict):
    """One object in objects.jsonl."""

    key: str
    file: str  # its name in data/
    size: int  # bytes
    etag: str
    modified: str  # ISO 8601, UTC
    # What the request that stored it said besides.
    metadata: NotRequired[dict[str, str]]
    checksum: NotRequired[list[str | None]]  # algorithm and value
    tags: NotRequired[dict[str, str]]


class Content:
    """The bytes of an object, read from its file when they are asked for: by slice, or from the start in chunks."""

    def __init__(self, path: Path):
        """Raises OSError if the file cannot be read. What is open can be read to its end, even if it is deleted."""
        self._file: IO[bytes] = open(path, "rb")
        self._size = os.fstat(self._file.fileno()).st_size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, part: slice) -> bytes:
        start, stop, _ = part.indices(self._size)
        self._file.seek(start)
        return self._file.read(max(0, stop - start))

    def __iter__(self) -> Iterator[bytes]:
        self._file.seek(0)
        while chunk := self._file.read(CHUNK):
            yield chunk

    def close(self) -> None:
        self._file.close()


class BucketFiles:
    """The files of one bucket. Every method that writes raises OSError if it cannot, and leaves what was there."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._lines = folder / "objects.jsonl"
        self._lock = threading.Lock()

    def create(self, bucket: dict[str, str]) -> None:
        """Make the folders; `bucket` is what bucket.json holds."""
        for name in ("data", "parts"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        write_json(self.folder / "bucket.json", bucket)

    def remove(self) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def path(self, line: ObjectLine) -> Path:
        return self.folder / "data" / line["file"]

    def write(self, content: Iterable[bytes], folder: str = "data") -> tuple[Path, str]:
        """A new file with the content; returns it and the content's MD5, in hexadecimal."""
        path = self.folder / folder / secrets.token_hex(16)
        digest = hashlib.md5(usedforsecurity=False)
        try:
            with open(path, "xb") as file:
                for chunk in content:
                    file.write(chunk)
                    digest.update(chunk)
        except OSError:
            path.unlink(missing_ok=True)
            raise
        return path, digest.hexdigest()

    def join(self, parts: list[Path]) -> Path:
        """A new file of data/ with what the files hold, one after the other; they are gone afterwards.

        They grow into the first one, so that no more is needed than the largest part besides. Whatever fails, the
        upload has to be begun again.
        """
        first, *others = parts
        with open(first, "ab") as whole:
            for part in others:
                with open(part, "rb") as source:
                    shutil.copyfileobj(source, whole, CHUNK)
                part.unlink()
        return first.rename(self.folder / "data" / secrets.token_hex(16))

    def add_line(self, line: ObjectLine) -> None:
        """Add to objects.jsonl, all of the line or nothing."""
        text = json.dumps(line).encode() + b"\n"
        with self._lock, open(self._lines, "ab", buffering=0) as file:
            end = file.tell()
            try:
                if file.write(text) < len(text):
                    file.write(text)  # the rest fails for the same reason, and says it
            except OSError:
                file.truncate(end)
                raise

    def read(self) -> tuple[dict[str, str], list[ObjectLine]]:
        """What bucket.json holds, and the objects that are there; what belongs to none is deleted.

        In time and memory by the number of objects, whatever their size. Raises OSError or ValueError if bucket.json
        cannot be read.
        """
        bucket = json.loads((self.folder / "bucket.json").read_text())
        shutil.rmtree(self.folder / "parts", ignore_errors=True)
        self.create(bucket)
        files = {entry.name: entry.stat().st_size for entry in os.scandir(self.folder / "data")}
        found: dict[str, ObjectLine] = {}
        if self._lines.exists():
            with open(self._lines, encoding="utf-8", errors="replace") as lines:
                for text in lines:
                    if line := _parsed(text):
                        found[line["key"]] = line
        objects = [line for line in found.values() if files.get(line["file"]) == line["size"]]
        for name in files.keys() - {line["file"] for line in objects}:
            (self.folder / "data" / name).unlink()
        self._rewrite(objects)
        return bucket, objects

    def _rewrite(self, objects: list[ObjectLine]) -> None:
        """objects.jsonl without what no longer counts; on a full disk it stays as it is."""
        fresh = self._lines.with_suffix(".tmp")
        try:
            fresh.write_text("".join(json.dumps(line) + "\n" for line in objects))
            fresh.replace(self._lines)
        except OSError:
            fresh.unlink(missing_ok=True)


def _parsed(text: str) -> Any:
    try:
        line = json.loads(text)
    except ValueError:
        return None
    return line if isinstance(line, dict) and {"key", "file", "size"} <= line.keys() else None
