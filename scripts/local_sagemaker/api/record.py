"""What the outside sees of a job: the description that moto gives out, and job.json in the job's folder."""

import math
import threading
from datetime import UTC, datetime
from pathlib import Path

from moto.core.utils import utcnow
from moto.sagemaker.models import FakeTrainingJob

from local_sagemaker.api.training_request import TrainingRequest
from local_sagemaker.home import JobFile, TransitionRecord, note, write_json

TERMINAL = ("Completed", "Failed", "Stopped")
# Characters of FailureReason: https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_DescribeTrainingJob.html
MAX_REASON = 1024
_MESSAGES = {
    "Starting": "Preparing the instances for training",
    "Downloading": "Downloading input data",
    "Training": "Training image download completed. Training in progress.",
    "Interrupted": "Managed spot training was interrupted; it resumes when there is capacity",
    "Stopping": "Stopping the training job",
    "Uploading": "Uploading generated training model",
    "Completed": "Training job completed",
    "Failed": "Training job failed",
    "Stopped": "Training job stopped",
    "MaxRuntimeExceeded": "Training job was stopped since it reached MaxRuntimeInSeconds",
    "MaxWaitTimeExceeded": "Training job was stopped since it reached MaxWaitTimeInSeconds",
}


# Kept for the last version of job.json, so that a full disk does not hide how a job ended.
ROOM_BYTES = 16_384


class JobRecord:
    """Keeps moto's description of one job (`fake`, moto's own word) true, and a copy of it in job.json.

    That a copy cannot be written (a full disk) changes nothing of the job: `save_again` tries once more.
    """

    def __init__(
        self, fake: FakeTrainingJob, request: TrainingRequest, folder: Path, earlier: JobFile | None = None
    ):
        """A new job, or one that an earlier endpoint has left as `earlier` says.

        Raises OSError if there is no space for the first copy.
        """
        self._fake, self._file, self._room = fake, folder / "job.json", folder / "room"
        self._lock = threading.Lock()
        self._saved = True
        # moto says that a job is Completed at once, invents metrics and drops the environment.
        fake.algorithm_specification = request.body["AlgorithmSpecification"]
        fake.environment = request.environment
        # Members that moto does not know; it describes whatever attribute has a member's name.
        fake.retry_strategy = request.body.get("RetryStrategy")
        fake.remote_debug_config = request.body.get("RemoteDebugConfig")
        fake.infra_check_config = request.body.get("InfraCheckConfig")
        fake.warm_pool_status = {"Status": "InUse"} if request.keeps_instances else None
        fake.training_job_status, fake.secondary_status = "InProgress", "Starting"
        fake.secondary_status_transitions, fake.final_metric_data_list = [], []
        fake.training_start_time = fake.training_end_time = fake.model_artifacts = fake.failure_reason = None
        fake.training_time_in_seconds = fake.billable_time_in_seconds = None
        if earlier:
            self._read(earlier)
        else:
            self._room.write_bytes(bytes(ROOM_BYTES))
            self._write()

    @property
    def status(self) -> str:
        """TrainingJobStatus."""
        return self._fake.training_job_status

    @property
    def arn(self) -> str:
        return self._fake.arn

    @property
    def done(self) -> bool:
        return self.status in TERMINAL

    def phase(self, secondary: str, message: str | None = None) -> None:
        """Enter a phase: end the last SecondaryStatusTransition and add one, unless the job has ended."""
        with self._lock:
            if not self.done:
                self._enter(secondary, message)

    def _enter(self, secondary: str, message: str | None = None) -> None:
        now = utcnow()
        transitions = list(self._fake.secondary_status_transitions)
        if transitions:
            transitions[-1] = {**transitions[-1], "EndTime": now}
        message = message or _MESSAGES[secondary]
        transitions.append({"Status": secondary, "StartTime": now, "StatusMessage": message})
        if secondary == "Stopping":
            self._fake.training_job_status = "Stopping"
        if secondary == "Downloading" and self._fake.training_start_time is None:
            self._fake.training_start_time = now
        self._fake.secondary_status_transitions = transitions
        self._fake.secondary_status, self._fake.last_modified_time = secondary, now
        self._save()

    def finish(
        self,
        status: str,
        secondary: str,
        *,
        reason: str | None,
        metrics: list[dict],
        model_uri: str | None,
        training_seconds: float,
    ) -> None:
        """Make the job terminal. The status comes last: once the SDK sees it, it stops reading logs."""
        fake = self._fake
        with self._lock:
            fake.failure_reason, fake.final_metric_data_list = reason, metrics
            fake.model_artifacts = {"S3ModelArtifacts": model_uri} if model_uri else None
            fake.training_end_time = utcnow()
            if fake.training_start_time:
                # Nothing is billed here; on AWS a spot job's billable time is the shorter one.
                seconds = math.ceil(training_seconds)
                fake.training_time_in_seconds = fake.billable_time_in_seconds = seconds
            if fake.warm_pool_status:  # no instances are kept here
                fake.warm_pool_status = {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 0}
            self._enter(secondary)
            *earlier, last = fake.secondary_status_transitions
            fake.secondary_status_transitions = [*earlier, {**last, "EndTime": utcnow()}]
            fake.training_job_status = status
            self._room.unlink(missing_ok=True)
            self._save()

    @property
    def metrics(self) -> list[dict]:
        """FinalMetricDataList."""
        return self._fake.final_metric_data_list

    @property
    def training_started(self) -> datetime | None:
        """UTC, without saying so."""
        return self._fake.training_start_time

    def save_again(self) -> None:
        """Write job.json if that has failed."""
        with self._lock:
            if not self._saved:
                self._save()

    def _save(self) -> None:
        """Write job.json, now or at the next occasion. The endpoint's log says once why it was not at once."""
        try:
            self._write()
            self._saved = True
        except OSError as error:
            if self._saved:
                note(f"{self._file} is out of date, since it cannot be written: {error}")
            self._saved = False

    def _read(self, file: JobFile) -> None:
        """Describe the job as job.json does; endpoints of earlier versions left some of it out."""
        fake, times = self._fake, file.get("metric_times", {})
        fake.training_job_status, fake.secondary_status = file["status"], file["secondary_status"]
        fake.failure_reason = file["failure_reason"]
        fake.creation_time = fake.last_modified_time = _time(file["created"])
        started = file.get("training_started")
        fake.training_start_time = _time(started) if started else None
        fake.training_end_time = _time(file["ended"]) if file["ended"] else None
        fake.model_artifacts = {"S3ModelArtifacts": file["model"]} if file["model"] else None
        fake.training_time_in_seconds = fake.billable_time_in_seconds = file["training_seconds"]
        fake.final_metric_data_list = [
            {
                "MetricName": name,
                "Value": value,
                "Timestamp": datetime.fromisoformat(times.get(name, file["created"])),
            }
            for name, value in file["metrics"].items()
        ]
        fake.secondary_status_transitions = [
            {
                "Status": item["status"],
                "StartTime": _time(item["start"]),
                "StatusMessage": item.get("message", _MESSAGES.get(item["status"], "")),
            }
            | ({"EndTime": _time(item["end"])} if item["end"] else {})
            for item in file["transitions"]
        ]
        if fake.secondary_status_transitions:
            fake.last_modified_time = fake.secondary_status_transitions[-1]["StartTime"]
        if fake.warm_pool_status and self.done:
            fake.warm_pool_status = {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 0}

    def _write(self) -> None:
        fake = self._fake
        write_json(
            self._file,
            JobFile(
                name=fake.training_job_name,
                region=fake.arn.split(":")[3],
                status=fake.training_job_status,
                secondary_status=fake.secondary_status,
                failure_reason=fake.failure_reason,
                created=_utc(fake.creation_time),
                training_started=_utc(fake.training_start_time) if fake.training_start_time else None,
                ended=_utc(fake.training_end_time) if fake.training_end_time else None,
                model=(fake.model_artifacts or {}).get("S3ModelArtifacts"),
                training_seconds=fake.training_time_in_seconds,
                metrics={item["MetricName"]: item["Value"] for item in fake.final_metric_data_list},
                metric_times={
                    item["MetricName"]: item["Timestamp"].isoformat() for item in fake.final_metric_data_list
                },
                transitions=[
                    TransitionRecord(
                        status=item["Status"],
                        message=item["StatusMessage"],
                        start=_utc(item["StartTime"]),
                        end=_utc(item["EndTime"]) if item.get("EndTime") else None,
                    )
                    for item in fake.secondary_status_transitions
                ],
            ),
        )


def _utc(time: datetime) -> str:
    """moto's times are UTC without saying so."""
    return time.replace(tzinfo=UTC).isoformat(timespec="milliseconds")


def _time(text: str) -> datetime:
    """The other way round."""
    return datetime.fromisoformat(text).astimezone(UTC).replace(tzinfo=None)
