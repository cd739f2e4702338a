"""Which process of the Ray cluster did what, and when: Ray's own record of its tasks, made small enough to keep."""

import json
from pathlib import Path

import ray

CLOSE_S = 0.02  # calls of one method that overlap, or follow each other as closely as this, become one


def write_timeline(path: Path) -> None:
    """Write a JSON line for each stretch of time in which a process worked on calls of one method.

    {"host": address, "worker": Ray's id of the process, "call": "Class.method", "start": s, "end": s (Unix time),
    "calls": how many}. Ray keeps its record of the last tasks in memory, as far as its limits go.
    """
    calls: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    for event in ray.timeline():
        if event["cat"].startswith("task::") and event["name"] != "__init__":
            key = event["pid"], event["tid"].removeprefix("worker:"), event["cat"].removeprefix("task::")
            calls.setdefault(key, []).append((event["ts"] / 1e6, (event["ts"] + event["dur"]) / 1e6))
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as file:
        for (host, worker, call), times in calls.items():
            for start, end, count in stretches(sorted(times)):
                stretch = {"start": round(start, 3), "end": round(end, 3), "calls": count}
                file.write(json.dumps({"host": host, "worker": worker, "call": call, **stretch}) + "\n")


def stretches(times: list[tuple[float, float]]) -> list[tuple[float, float, int]]:
    """Sorted (start, end) pairs with neighbours joined: (start, end, how many)."""
    joined: list[tuple[float, float, int]] = []
    for start, end in times:
        if joined and start - joined[-1][1] < CLOSE_S:
            first, last, count = joined[-1]
            joined[-1] = first, max(last, end), count + 1
        else:
            joined.append((start, end, 1))
    return joined
