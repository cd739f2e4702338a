"""The training jobs of a run, as the local endpoint's files tell of them: jobs/<name>/job.json and the hosts' logs.

Files, and no requests: they say the same while a job runs, after it, and when the endpoint has ended.
"""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from job.metrics import Metrics, add_metrics, last_step, parse_metrics
from local_sagemaker.home import JobFile

_MADE_UNIQUE = re.compile(r"-[0-9a-f]{6}-\d{14}$")  # by WorkshopSession.unique() and by the SDK
TERMINAL = ("Completed", "Failed", "Stopped")


@dataclass
class Job:
    """One job at one moment. Times have a time zone; `history` has the metrics of the log's lines, one dict a step."""

    name: str
    status: str
    phase: str  # SageMaker's SecondaryStatus
    failure_reason: str | None
    created: datetime
    ended: datetime | None
    steps: int | None = None  # that it was asked for
    history: list[Metrics] = field(default_factory=list, repr=False)

    @property
    def label(self) -> str:
        """The name that its notebook gave it: "grpo" of "grpo-3f9c2a-20261127063003"."""
        return _MADE_UNIQUE.sub("", self.name)

    @property
    def step(self) -> int:
        """The last step that it has logged."""
        return int(self.history[-1]["step"]) if self.history else 0

    @property
    def is_over(self) -> bool:
        """Whether it goes on no more."""
        return self.status in TERMINAL

    def seconds(self, now: datetime) -> float:
        """From its request to its end, or to `now`."""
        return ((self.ended or now) - self.created).total_seconds()


def read_jobs(
    home: Path, since: datetime, until: datetime | None = None, known: Iterable[Job] = ()
) -> list[Job]:
    """The jobs created on the endpoint of `home` in that time, oldest first.

    Those of `known` (of an earlier call for the same time) that are over are not read again: verl's logs are long.

    An endpoint that was running before may get others' jobs meanwhile: these are among them, since no request says
    which notebook sent it.
    """
    over = {job.name: job for job in known if job.is_over}
    jobs = list(over.values())
    for file in (home / "jobs").glob("*/job.json"):
        if file.parent.name in over:
            continue
        record: JobFile = json.loads(file.read_text(encoding="utf-8"))
        created = datetime.fromisoformat(record["created"])
        if created < since or (until and created > until):
            continue
        ended = datetime.fromisoformat(record["ended"]) if record["ended"] else None
        job = Job(
            record["name"],
            record["status"],
            record["secondary_status"],
            record["failure_reason"],
            created,
            ended,
        )
        _read_logs(job, file.parent / "logs")
        jobs.append(job)
    return sorted(jobs, key=lambda job: job.created)


def _read_logs(job: Job, folder: Path) -> None:
    """Take the metrics out of the hosts' logs; one host writes them, whichever that is."""
    for log in sorted(folder.glob("*.log")):
        with open(log, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                metrics = parse_metrics(line)
                if metrics:
                    job.steps = last_step(line) or job.steps
                    add_metrics(job.history, metrics)
