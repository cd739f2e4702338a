"""The jobs that earlier endpoints left in the home folder, described again: their state, their logs, their end.

A job that ran when its endpoint ended is Failed, and says so; what is left of its processes is ended, and what its containers
would have taken with them is removed. The objects in S3 come back by buckets.py.
"""

import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

from moto.core import DEFAULT_ACCOUNT_ID
from moto.logs.models import LogEvent, LogGroup, LogStream, logs_backends
from moto.sagemaker.models import FakeTrainingJob, sagemaker_backends

from local_sagemaker.api.record import JobRecord
from local_sagemaker.api.training_request import TrainingRequest
from local_sagemaker.client import REGION
from local_sagemaker.home import JobFile, note
from local_sagemaker.hosts.hosts import discard_scratch
from local_sagemaker.hosts.leftovers import end_leftovers
from local_sagemaker.jobs.log_files import read_events, read_stream_name
from local_sagemaker.jobs.logs import GROUP

ENDED = (
    "The endpoint ended while the job ran: it was killed, or the machine stopped. "
    "Send the job again, under a new name{resume}."
)
BEFORE_THE_REQUEST = {"room", "job.json", "job.json.tmp", "request.json.tmp"}  # written before request.json
RESUME = ": with the same checkpoint address, {uri}, it goes on from the checkpoints that are there"
FROM_THE_START = "; it had no CheckpointConfig, so that it begins from the start"


def take_over(jobs_folder: Path) -> None:
    """Enter all jobs into moto's state, the oldest first. One whose files cannot be read is left out, with a line in the log."""
    found = []
    for folder in jobs_folder.iterdir() if jobs_folder.exists() else ():
        try:
            if not (folder / "request.json").exists():
                _discard(folder)
                continue
            body = json.loads((folder / "request.json").read_text())
            file: JobFile = json.loads((folder / "job.json").read_text())
            found.append((file["created"], folder, TrainingRequest(body), file))
        except (OSError, ValueError, KeyError) as error:
            note(f"{folder} is left out, since it cannot be read: {type(error).__name__}: {error}")
    running = []
    for _, folder, request, file in sorted(found, key=lambda item: item[0]):
        region = file.get("region", REGION)
        record = JobRecord(_describe(request, region), request, folder, file)
        for log in sorted((folder / "logs").glob("*.log")):
            if stream := read_stream_name(log):
                KeptStream(_log_group(region), stream, log)
        if not record.done:
            running.append((record, request, folder))
    end_leftovers([folder for _, _, folder in running])
    # Before a job is said to have ended: a kill in between leaves it to the next endpoint.
    for _, folder, _, _ in found:
        discard_scratch(folder)
    for record, request, folder in running:
        _end(record, request, folder)


def _discard(folder: Path) -> None:
    """Delete what is left of a request that the endpoint took while it ended: nothing was answered, nothing begun.

    A folder with anything else in it is not the endpoint's, and stays. Raises OSError.
    """
    others = sorted({path.name for path in folder.iterdir()} - BEFORE_THE_REQUEST)
    if others:
        note(
            f"{folder} is left as it is: it has no request.json, so that it is no job's, and it holds {others[0]}"
        )
    else:
        shutil.rmtree(folder)


def _describe(request: TrainingRequest, region: str) -> FakeTrainingJob:
    """moto's description of the job, as CreateTrainingJob enters it."""
    body = request.body
    return sagemaker_backends[DEFAULT_ACCOUNT_ID][region].create_training_job(
        training_job_name=request.name,
        hyper_parameters=body.get("HyperParameters"),
        algorithm_specification=dict(body["AlgorithmSpecification"]),  # which moto changes
        role_arn=body["RoleArn"],
        input_data_config=body.get("InputDataConfig"),
        output_data_config=body["OutputDataConfig"],
        resource_config=body["ResourceConfig"],
        vpc_config=body.get("VpcConfig"),
        stopping_condition=body.get("StoppingCondition"),
        tags=body.get("Tags"),
        enable_network_isolation=body.get("EnableNetworkIsolation", False),
        enable_inter_container_traffic_encryption=body.get("EnableInterContainerTrafficEncryption", False),
        enable_managed_spot_training=body.get("EnableManagedSpotTraining", False),
        checkpoint_config=body.get("CheckpointConfig"),
        debug_hook_config=body.get("DebugHookConfig"),
        debug_rule_configurations=body.get("DebugRuleConfigurations"),
        tensor_board_output_config=body.get("TensorBoardOutputConfig"),
        experiment_config=body.get("ExperimentConfig"),
    )


def _end(record: JobRecord, request: TrainingRequest, folder: Path) -> None:
    last = max(file.stat().st_mtime for file in [folder / "job.json", *(folder / "logs").glob("*.times")])
    started = record.training_started
    uri = request.checkpoint_uri
    record.finish(
        "Failed",
        "Failed",
        reason=ENDED.format(resume=RESUME.format(uri=uri) if uri else FROM_THE_START),
        metrics=record.metrics,
        model_uri=None,
        training_seconds=max(0.0, last - started.replace(tzinfo=UTC).timestamp()) if started else 0.0,
    )


def _log_group(region: str) -> LogGroup:
    backend = logs_backends[DEFAULT_ACCOUNT_ID][region]
    backend.ensure_log_group(GROUP)
    return backend.groups[GROUP]


class KeptStream(LogStream):
    """A stream of an earlier endpoint; its lines are read from the log's files once somebody asks for them."""

    def __init__(self, group: LogGroup, name: str, file: Path):
        self._unread: Path | None = None
        super().__init__(group, name)
        self._unread = file
        status = file.stat()
        self.stored_bytes = status.st_size
        self.last_ingestion_time = _naive(status.st_mtime)
        stamp = name.rpartition("-")[2]
        self.creation_time = _naive(int(stamp) if stamp.isdecimal() else status.st_mtime)
        group.streams[name] = self

    @property
    def events(self) -> list[LogEvent]:
        if self._unread:
            file, self._unread = self._unread, None
            lines = [{"timestamp": time, "message": line or " "} for time, line in read_events(file)]
            self._events = [LogEvent(line["timestamp"], line) for line in lines]
        return self._events

    @events.setter
    def events(self, events: list[LogEvent]) -> None:
        self._events = events


def _naive(seconds: float) -> datetime:
    """UTC without saying so, as moto's times are."""
    return datetime.fromtimestamp(seconds, UTC).replace(tzinfo=None)
