"""Which process of the Ray cluster did what, and when: Ray's own record of its tasks, made small enough to keep."""

import json
import logging
from pathlib import Path
from typing import TypedDict

MAX_GAP_S = 0.02  # calls of one method that overlap, or follow each other as closely as this, become one


class Stretch(TypedDict):
    """A time in which one process worked on calls of one method; a line of timeline.jsonl."""

    host: str  # its address
    worker: str  # Ray's id of the process
    call: str  # "Class.method"
    start: float  # seconds, Unix time
    end: float
    calls: int


def write_timeline(path: Path) -> None:
    """Write a JSON line for each Stretch of a job. Ray keeps its record of the last tasks, as far as its limits go."""
    import ray  # here, so that the notebook side can read this file's type

    calls: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    logging.disable(logging.WARNING)  # Ray 2.60 says each time that it will read this from elsewhere one day
    events = ray.timeline()
    logging.disable(logging.NOTSET)
    for event in events:
        if event["cat"].startswith("task::") and event["name"] != "__init__":
            key = event["pid"], event["tid"].removeprefix("worker:"), event["cat"].removeprefix("task::")
            calls.setdefault(key, []).append((event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for (host, worker, call), spans in calls.items():
            for start, end, count in joined(sorted(spans)):
                stretch = Stretch(
                    host=host,
                    worker=worker,
                    call=call,
                    start=round(start, 3),
                    end=round(end, 3),
                    calls=count,
                )
                file.write(json.dumps(stretch) + "\n")


def joined(spans: list[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Sorted (start, end) pairs, in seconds, with close neighbours joined: (start, end, how many)."""
    result: list[tuple[float, float, int]] = []
    for start, end in spans:
        if result and start - result[-1][1] < MAX_GAP_S:
            first, last, count = result[-1]
            result[-1] = first, max(last, end), count + 1
        else:
            result.append((start, end, 1))
    return result
