"""One attempt at a job: a set of fresh containers, from their input data to their end."""

import enum
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from local_sagemaker.api.calls import JOB_KEY
from local_sagemaker.api.record import MAX_REASON
from local_sagemaker.api.training_request import TrainingRequest
from local_sagemaker.disk import no_space
from local_sagemaker.hosts.addresses import Network
from local_sagemaker.hosts.hosts import (
    Host,
    discard_container,
    make_hosts,
    meet_on_free_port,
    rewrite_paths,
    start_host,
)
from local_sagemaker.hosts.isolation import Isolation
from local_sagemaker.hosts.process import SupervisedProcess
from local_sagemaker.jobs.channels import fetch_channel
from local_sagemaker.jobs.checkpoints import CheckpointSync
from local_sagemaker.jobs.endings import ended_by_signal, out_of_space
from local_sagemaker.jobs.hard_coded import missed_path, strayed_files
from local_sagemaker.jobs.logs import HostLog
from local_sagemaker.jobs.storage import aws_client

POLL_S = 0.1  # between two looks at the processes
PEER_GRACE_S = 5.0  # once a host has failed, the others get this long to fail by themselves and say why
LAST_LINES = 10  # of the log, in the FailureReason of a job that wrote none itself


@dataclass(frozen=True)
class Settings:
    """What all jobs of an endpoint share."""

    url: str
    jobs_folder: Path
    isolation: Isolation
    # From SIGTERM to SIGKILL; the service's 120 s are in
    # https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StopTrainingJob.html
    stop_grace_s: float = 120.0
    sync_interval_s: float = 0.3  # between scans; a checkpoint that exists for less than two is never stored


class Order(enum.Enum):
    """Why a job is to end before its time; the value is the SecondaryStatus that it leads to."""

    STOP = "Stopped"
    MAX_RUNTIME = "MaxRuntimeExceeded"
    MAX_WAIT = "MaxWaitTimeExceeded"
    INTERRUPT = "Interrupted"
    SHUTDOWN = "Stopped since the endpoint ends"


AT_ONCE = (Order.INTERRUPT, Order.SHUTDOWN)  # no SIGTERM first, no time to finish


class JobFailed(Exception):
    """Ends the job as Failed; the message becomes the FailureReason."""


class Attempt:
    """The containers of one attempt. `pending` returns the order given to the job, None if there is none."""

    def __init__(
        self,
        request: TrainingRequest,
        settings: Settings,
        region: str,
        logs: list[HostLog],
        pending: Callable[[], Order | None],
    ):
        self.hosts: list[Host] = []
        self._request, self._settings, self._region, self._logs = request, settings, region, logs
        self._pending = pending
        self._s3 = aws_client("s3", settings.url, region)
        self._checkpoints: CheckpointSync | None = None
        self._network: Network | None = None
        self._space = True  # for what was last to be stored
        self._first_failed: int | None = None  # number of the host that failed before the others

    def prepare(self, folder: Path, scratch: Path, check_orders: Callable[[], None]) -> None:
        """Create the hosts' folders in `folder` and fetch channels and checkpoints.

        `check_orders`, called between two downloads, raises if the job has to end. Raises ChannelError.
        """
        self._network = Network(len(self._request.hosts))
        self.hosts = make_hosts(self._request, folder, scratch, self._network.addresses)
        for host in self.hosts:
            for channel in self._request.channels:
                check_orders()
                target = host.ml / "input" / "data" / channel.name
                fetch_channel(self._s3, channel, target, host.number, len(self.hosts))
        meet_on_free_port(self.hosts)
        if self._settings.isolation.rewrites:
            rewrite_paths(self.hosts)
        if self._request.checkpoint_uri:
            folders = [host.ml / self._request.checkpoint_folder for host in self.hosts]
            self._checkpoints = CheckpointSync(self._s3, self._request.checkpoint_uri, folders)
            restored = self._checkpoints.restore()
            if restored:
                self._logs[0].write(
                    f"Restored {restored} checkpoint files from {self._request.checkpoint_uri}"
                )

    def run(self, venv: Path, arn: str) -> Order | None:
        """Run the containers to their end; returns the order that ended them, None if they ended well.

        Raises JobFailed with the FailureReason if a container failed by itself.
        """
        environment = {
            "AWS_ENDPOINT_URL": self._settings.url,
            "AWS_ACCESS_KEY_ID": JOB_KEY,
            "AWS_SECRET_ACCESS_KEY": "local",
            "AWS_REGION": self._region,  # and not AWS_DEFAULT_REGION, which boto3 reads: the service does not set that
            "TRAINING_JOB_ARN": arn,
        }
        addresses = [host.address for host in self.hosts]
        processes: list[SupervisedProcess] = []
        started = time.time()
        with ThreadPoolExecutor(len(self.hosts)) as pool:
            try:
                for host in self.hosts:
                    processes.append(
                        start_host(
                            host, self._request, self._settings.isolation, venv, addresses, environment
                        )
                    )
                pumps = [
                    pool.submit(log.follow, process.output)
                    for log, process in zip(self._logs, processes, strict=True)
                ]
                order = self._watch(processes, pumps)
            finally:
                for process in processes:
                    process.kill()
                    process.wait()
            for pump in pumps:
                pump.result()
        if self._settings.isolation.rewrites and (strayed := strayed_files(started)):
            self._logs[0].write(strayed)
        codes = [process.wait() for process in processes]
        reason = self._failure_reason(codes) if order is None and any(codes) else None
        try:
            if self._checkpoints:
                # A lost machine sends no more.
                self._checkpoints.sync(everything=order is not Order.INTERRUPT)
        except Exception as error:
            if reason is None:
                raise
            # Why the job failed comes before that its checkpoints could not be sent.
            raise JobFailed(reason) from error
        if reason:
            raise JobFailed(reason)
        return order

    def discard_scratch(self) -> None:
        """Remove what a container takes with it; /opt/ml stays, for whoever wants to look at it."""
        for host in self.hosts:
            discard_container(host.folder)
        if self._network:
            self._network.close()

    def _watch(self, processes: list[SupervisedProcess], pumps: list[Future]) -> Order | None:
        """Wait until all containers have ended; returns the order that ended them, if one did."""
        order, kill_at, next_sync = None, None, 0.0
        while any(process.exit_code() is None for process in processes):
            time.sleep(POLL_S)
            now = time.monotonic()
            for pump in pumps:
                if pump.done():
                    pump.result()  # raises if the log could not be written: never hang on a full pipe
            if self._checkpoints and now >= next_sync:
                self._sync_if_there_is_space(self._checkpoints)
                next_sync = time.monotonic() + self._settings.sync_interval_s
            pending = self._pending()
            if pending in AT_ONCE:
                return pending
            if order is None and pending:
                order, kill_at = pending, now + self._settings.stop_grace_s
                for process in processes:
                    process.terminate()
            elif kill_at is None and self._note_failure(processes):
                kill_at = now + PEER_GRACE_S
            if kill_at and now >= kill_at:
                return order
        self._note_failure(processes)
        pending = self._pending()
        return order or (pending if pending is not Order.INTERRUPT else None)

    def _sync_if_there_is_space(self, checkpoints: CheckpointSync) -> None:
        """A full disk does not end a job that runs: there may be space at the next scan, and at the last one there has to be."""
        try:
            checkpoints.sync()
            self._space = True
        except Exception as error:
            full = no_space(error, self._settings.jobs_folder)
            if full is None:
                raise
            if self._space:
                self._logs[0].write(f"Checkpoints cannot be stored at present. {full}")
            self._space = False

    def _note_failure(self, processes: list[SupervisedProcess]) -> bool:
        failed = [number for number, process in enumerate(processes) if process.exit_code()]
        if failed and self._first_failed is None:
            self._first_failed = failed[0]
        return bool(failed)

    def _failure_reason(self, codes: list[int]) -> str:
        """The failure file that was written first (the others often only lost their peer), and the exit code.

        Where a signal ended a process, that comes first.
        """
        wrote = [host for host in self.hosts if host.failure and codes[host.number]]
        first = min(wrote, key=lambda host: host.failure_file.stat().st_mtime_ns, default=None)
        failed = first or self.hosts[self._first_failed or 0]
        ending = f", exit code: {codes[failed.number]}"
        read = list(self._logs[failed.number].last)
        text = failed.failure
        if not text:
            last = "\n".join(read[-LAST_LINES:]).strip()
            text = f"nothing was written to /opt/ml/output/failure; the log ends with:\n{last}"
        if signalled := ended_by_signal(read, codes[failed.number]):
            text = f"{signalled}\n{text}"
        elif space := out_of_space(read, text, failed.folder):
            text = f"{space}\n{text}"
        if self._settings.isolation.rewrites and (missed := missed_path([*read, *text.splitlines()])):
            self._logs[failed.number].write(missed)
            text = f"{missed}\n{text}"
        return ("AlgorithmError: " + text)[: MAX_REASON - len(ending)] + ending
