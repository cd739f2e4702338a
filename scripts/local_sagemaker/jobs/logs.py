"""A host's output: to its CloudWatch log stream in batches, to a file in the job's folder, and into metrics."""

import os
import re
import select
import threading
import time
from collections import deque
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from botocore.client import BaseClient

from local_sagemaker.jobs.log_files import LogFile

GROUP = "/aws/sagemaker/TrainingJobs"
LAST_LINES = 500  # that are kept for what a launcher says of a process that ended
FLUSH_S = 0.5  # lines wait at most this long for their batch
# Limits of PutLogEvents: 10,000 events and 1,048,576 bytes a call, counting 26 bytes for each event beside its
# message (https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_PutLogEvents.html).
MAX_EVENTS, MAX_BATCH_BYTES, EVENT_OVERHEAD_BYTES = 10_000, 1_048_576, 26
MAX_EVENT_BYTES = 262_144  # longer lines are cut


class Metrics:
    """The metric definitions of a job and the last value of each that its logs have shown."""

    def __init__(self, definitions: list[tuple[str, re.Pattern]]):
        self._definitions = definitions
        self._last: dict[str, tuple[float, datetime]] = {}

    def read(self, line: str) -> None:
        """Take the metric values out of `line`; a match that is not a number is ignored."""
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
    """One log stream. It is created at once: the SDK waits for the streams of all hosts before it reads any.

    Its lines are in `file`, too, and their times in one beside it (log_files.py), for the next endpoint. What cannot be
    written there is in the stream all the same: a log never ends a job.
    """

    def __init__(self, logs: BaseClient, stream: str, file: Path, on_line: Callable[[str], None]):
        """`on_line` is called with every line (for the metrics)."""
        self._logs, self._stream, self._on_line = logs, stream, on_line
        self._lock = threading.RLock()  # a job's thread writes too, while another follows its pipe
        self._events: list[dict] = []
        self._bytes = 0
        self._flushed = time.monotonic()
        self._timestamp = 0
        self.last: deque[str] = deque(maxlen=LAST_LINES)
        self._file = LogFile(file, stream)
        try:
            logs.create_log_group(logGroupName=GROUP)
        except logs.exceptions.ResourceAlreadyExistsException:
            pass
        logs.create_log_stream(logGroupName=GROUP, logStreamName=stream)

    def write(self, line: str) -> None:
        """Add one line."""
        with self._lock:
            self._on_line(line)
            self.last.append(line)
            self._add(line)
            self._file.write(line, self._timestamp)

    def _add(self, line: str) -> None:
        size = len(line.encode(errors="replace")) + EVENT_OVERHEAD_BYTES
        if len(self._events) == MAX_EVENTS or self._bytes + size > MAX_BATCH_BYTES:
            self.flush()
        self._timestamp = max(self._timestamp, int(time.time() * 1000))  # order is by time: never backwards
        self._events.append({"timestamp": self._timestamp, "message": line or " "})
        self._bytes += size

    def flush(self) -> None:
        """Send the lines that are waiting."""
        with self._lock:
            self._flushed = time.monotonic()
            if complaint := self._file.flush():
                self._add(complaint)
            if self._events:
                self._logs.put_log_events(
                    logGroupName=GROUP, logStreamName=self._stream, logEvents=self._events
                )
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
        room = MAX_EVENT_BYTES - EVENT_OVERHEAD_BYTES
        for start in range(0, max(len(line), 1), room):
            self.write(line[start : start + room].decode(errors="replace").rstrip("\r"))

    def close(self) -> None:
        """Send the rest and close the file."""
        with self._lock:
            self.flush()
            self._file.close()
