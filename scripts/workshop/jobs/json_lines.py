"""JSON lines that a job wrote as it went; the last one is cut off where the job was killed in the middle of writing it."""

import json
from pathlib import Path
from typing import Any


def read_json_lines(path: Path) -> list[Any]:
    """The values of all whole lines. Of a last line that was cut off it is said (printed) that it is left out.

    Raises:
        ValueError: another line is no JSON; says which.
        OSError: the file cannot be read.
    """
    # Each line ends with a line break, so that nothing stands behind the last one.
    *lines, last = path.read_bytes().split(b"\n")
    values = []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                values.append(json.loads(line))
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from error
    if last.strip():
        try:
            values.append(json.loads(last))
        except ValueError:
            print(
                f"{path.name}: its last line was cut off, as the job ended in the middle of writing it, and is left out; the "
                f"{len(values)} whole lines before it are there."
            )
    return values
