"""A host's log as files: <host>.log for people, and <host>.times, by which the next endpoint has the stream again.

The first line of <host>.times is the name of the CloudWatch stream, each other one the time of a line of <host>.log, in
milliseconds since 1970.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import IO

from local_sagemaker.disk import no_space


class LogFile:
    """Both files of one host, to be written. What a full disk refuses is kept, and written when there is space."""

    def __init__(self, file: Path, stream: str):
        """Raises OSError if they cannot be created."""
        file.parent.mkdir(parents=True, exist_ok=True)
        self._path, self._complained = file, False
        self._pending: list[tuple[str, int]] = []
        self._lines = open(file, "ab", buffering=0)
        self._times = open(file.with_suffix(".times"), "ab", buffering=0)
        _append(self._times, f"{stream}\n")

    def write(self, line: str, time_ms: int) -> None:
        """Add a line; `flush` brings it to the disk."""
        self._pending.append((line, time_ms))

    def flush(self) -> str | None:
        """Bring what was added to the disk. Returns what to say the first time that it cannot be done."""
        if not self._pending:
            return None
        before = self._lines.tell(), self._times.tell()
        try:
            _append(self._lines, "".join(f"{line}\n" for line, _ in self._pending))
            _append(self._times, "".join(f"{time}\n" for _, time in self._pending))
            self._pending.clear()
        except OSError as error:
            self._lines.truncate(before[0])
            self._times.truncate(before[1])
            said, self._complained = self._complained, True
            return (
                None
                if said
                else f"{self._path.name} lacks lines from here on. {no_space(error, self._path) or error}"
            )
        return None

    def close(self) -> None:
        self.flush()
        self._lines.close()
        self._times.close()


def _append(file: IO[bytes], text: str) -> None:
    rest = memoryview(text.encode(errors="replace"))
    while rest:
        rest = rest[file.write(rest) :]


def read_stream_name(file: Path) -> str | None:
    """The stream that `file` (<host>.log) holds the lines of; None if that is not known."""
    try:
        with open(file.with_suffix(".times"), encoding="utf-8", newline="\n") as times:
            return times.readline().rstrip("\n") or None
    except OSError:
        return None


def read_events(file: Path) -> Iterator[tuple[int, str]]:
    """(time in ms since 1970, line) of each line that <host>.log has and whose time is known."""
    with (
        open(file, encoding="utf-8", errors="replace", newline="\n") as lines,
        open(file.with_suffix(".times"), encoding="utf-8", newline="\n") as times,
    ):
        times.readline()
        for time, line in zip(times, lines, strict=False):
            if time.rstrip("\n").isdecimal():
                yield int(time), line.rstrip("\n")
