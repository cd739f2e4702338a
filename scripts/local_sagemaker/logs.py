"""A host's output: to its CloudWatch log stream in batches, to a file in the job's folder, and into metrics."""

import os
import re
import select
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from botocore.client import BaseClient

GROUP = "/aws/sagemaker/TrainingJobs"
FLUSH_S = 0.5
# Limits of PutLogEvents: 10,000 events and 1,048,576 bytes a call, counting 26 bytes beside each message.
MAX_EVENTS, MAX_BATCH_BYTES, EVENT_OVERHEAD, MAX_EVENT_BYTES = 10_000, 1_048_576, 26, 262_144


class Metrics:
    """The metric definitions of a job and the last value of each that its logs have shown."""

    def __init__(self, definitions: list[tuple[str, re.Pattern]]):
        self._definitions = definitions
        self._last: dict[str, tuple[float, datetime]] = {}

    def read(self, line: str) -> None:
        """Take the values that `line` shows; text that is no number does not count."""
        for name, pattern in self._definitions:
            match = pattern.search(line)
            if match:
                try:
                    self._last[name] = (float(match.group(1)), datetime.now(UTC))
                except (TypeError, ValueError):
                    continue

    def final(self) -> list[dict]:
        """FinalMetricDataList of DescribeTrainingJob."""
        return [{"MetricName": n, "Value": v, "Timestamp": t} for n, (v, t) in self._last.items()]


class HostLog:
    """One log stream. It is created at once: the SDK waits for the streams of all hosts before it reads any."""

    def __init__(self, logs: BaseClient, stream: str, file: Path, read: Callable[[str], None]):
        """`read` sees every line (metrics)."""
        self._logs, self._stream, self._read = logs, stream, read
        self._events: list[dict] = []
        self._bytes = 0
        self._flushed = time.monotonic()
        self._timestamp = 0
        file.parent.mkdir(parents=True, exist_ok=True)
        self._file: IO[str] = open(file, "a", encoding="utf-8", errors="replace")
        try:
            logs.create_log_group(logGroupName=GROUP)
        except logs.exceptions.ResourceAlreadyExistsException:
            pass
        logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)

    def write(self, line: str) -> None:
        """Add one line."""
        self._read(line)
        self._file.write(line + "\n")
        size = len(line.encode(errors="replace")) + EVENT_OVERHEAD
        if len(self._events) == MAX_EVENTS or self._bytes + size > MAX_BATCH_BYTES:
            self.flush()
        self._timestamp = max(self._timestamp, int(time.time() * 1000))  # order is by time: never backwards
        self._events.append({"timestamp": self._timestamp, "message": line or " "})
        self._bytes += size

    def flush(self) -> None:
        """Send what has gathered."""
        self._flushed = time.monotonic()
        self._file.flush()
        if self._events:
            self._logs.put_log_events(logGroupName=GROUP, logStreamName=self._stream, logEvents=self._events)
            self._events, self._bytes = [], 0

    def follow(self, pipe: IO[bytes]) -> None:
        """Write every line of `pipe` until its other end is closed."""
        rest = b""
        with pipe:
            while True:
                ready, _, _ = select.select([pipe], [], [], FLUSH_S)
                if ready:
                    chunk = os.read(pipe.fileno(), 65_536)
                    if not chunk:
                        break
                    *lines, rest = (rest + chunk).split(b"\n")
                    for line in lines:
                        self._write_bytes(line)
                    if len(rest) > MAX_EVENT_BYTES:
                        self._write_bytes(rest)
                        rest = b""
                if time.monotonic() - self._flushed >= FLUSH_S:
                    self.flush()
        if rest:
            self._write_bytes(rest)
        self.flush()

    def _write_bytes(self, line: bytes) -> None:
        """One line, cut where it is longer than an event may be."""
        room = MAX_EVENT_BYTES - EVENT_OVERHEAD
        for start in range(0, max(len(line), 1), room):
            self.write(line[start : start + room].decode(errors="replace").rstrip("\r"))

    def close(self) -> None:
        """Send the rest and close the file."""
        self.flush()
        self._file.close()
