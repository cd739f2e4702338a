"""The life of one training job, from its request to its artifacts; runs in a thread of the endpoint."""

import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from local_sagemaker.api.record import MAX_REASON, JobRecord
from local_sagemaker.api.training_request import TrainingRequest
from local_sagemaker.disk import no_space
from local_sagemaker.environments import EnvironmentBuildError
from local_sagemaker.environments.build import environments_folder
from local_sagemaker.environments.image import build_outcome, job_requirements, start_build
from local_sagemaker.home import note, write_json
from local_sagemaker.hosts.hosts import discard_scratch, make_scratch
from local_sagemaker.jobs.artifacts import upload_archive, upload_files
from local_sagemaker.jobs.attempt import POLL_S, Attempt, JobFailed, Order, Settings
from local_sagemaker.jobs.channels import ChannelError
from local_sagemaker.jobs.logs import HostLog, Metrics
from local_sagemaker.jobs.storage import aws_client


class JobEnded(Exception):
    """Ends the job as Stopped, by `order`."""

    def __init__(self, order: Order):
        super().__init__(order.value)
        self.order = order


class Job:
    """One job. `run` carries it out; `order` may be called from any thread at any time."""

    def __init__(self, request: TrainingRequest, record: JobRecord, settings: Settings, region: str):
        self.request, self.record, self._settings, self._region = request, record, settings, region
        self.folder = settings.jobs_folder / request.name
        self._s3 = aws_client("s3", settings.url, region)
        self._metrics = Metrics(request.metrics)
        self._logs: list[HostLog] = []
        self._latest: Attempt | None = None
        self._order: Order | None = None
        self._created = time.monotonic()
        self._training_seconds = 0.0  # of finished attempts
        self._attempt_started: float | None = None
        self._lock = threading.Lock()
        write_json(self.folder / "request.json", request.body)

    def order(self, order: Order) -> None:
        """Ask for `order`; the first one stands, except that nothing outranks a shutdown."""
        with self._lock:
            if self._order in (None, Order.INTERRUPT) or order is Order.SHUTDOWN:
                self._order = order
                if order is not Order.INTERRUPT:
                    self.record.phase("Stopping")

    @property
    def interruptible(self) -> bool:
        """Whether the containers of a spot job are running."""
        return self.request.spot and self._attempt_started is not None

    def run(self) -> None:
        """Carry the job out. Whatever happens, the job is terminal afterwards."""
        reason = None
        try:
            scratch = make_scratch(self.folder)
            self._check_orders()  # it may have been stopped while it waited in the queue
            self._train(scratch)
            status, secondary = "Completed", "Completed"
        except JobEnded as end:
            status = "Stopped"
            secondary = "Stopped" if end.order is Order.SHUTDOWN else end.order.value
        except JobFailed as error:
            status, secondary, reason = "Failed", "Failed", str(error)[:MAX_REASON]
        except Exception as error:
            status, secondary, reason = "Failed", "Failed", self._reason(error)
            if reason.startswith("InternalServerError"):
                raise
        finally:
            self._finish(status, secondary, reason)
            discard_scratch(self.folder)

    def _reason(self, error: Exception) -> str:
        """FailureReason of an error outside the containers: a full disk, bad data or requirements.

        Any other is a fault of the endpoint itself: the job says so, the traceback goes to the endpoint's log.
        """
        places = (self.folder, Path(tempfile.gettempdir()), environments_folder())
        if full := no_space(error, *places):
            return full[:MAX_REASON]
        known = isinstance(error, (ChannelError, EnvironmentBuildError))
        return (str(error) if known else f"InternalServerError: {type(error).__name__}: {error}")[:MAX_REASON]

    def _train(self, scratch: Path) -> None:
        """All attempts: one, or for a spot job as many as there are interruptions, plus one."""
        self._open_logs()
        if self._settings.isolation.rewrites:
            self._logs[0].write(f"Hosts are kept apart by {self._settings.isolation.meaning}")
        venv = self._build_image()
        attempt = 1
        while self._run_attempt(attempt, venv, scratch) is Order.INTERRUPT:
            with self._lock:
                if self._order is Order.INTERRUPT:
                    self._order = None
            attempt += 1
            self.record.phase("Interrupted")
            self.record.phase("Starting")

    def _open_logs(self) -> None:
        logs = aws_client("logs", self._settings.url, self._region)
        stamp = int(time.time())
        for host in self.request.hosts:
            stream = f"{self.request.name}/{host}-{stamp}"
            self._logs.append(HostLog(logs, stream, self.folder / "logs" / f"{host}.log", self._metrics.read))

    def _build_image(self) -> Path:
        """The virtual environment that stands for the image; the build's progress goes to the first host's log."""
        folder = self.folder / "image"
        folder.mkdir()
        base, requirements = job_requirements(self._s3, self.request, folder)
        build = start_build(base, requirements, folder / "result.json")
        with ThreadPoolExecutor(1) as pool:
            following = pool.submit(self._logs[0].follow, build.output)
            try:
                while build.exit_code() is None:
                    time.sleep(POLL_S)
                    self._check_orders()
            finally:
                build.kill()
                build.wait()
            following.result()
        return build_outcome(folder / "result.json")

    def _run_attempt(self, number: int, venv: Path, scratch: Path) -> Order | None:
        """Fresh containers, run to their end: None if that was a good one, INTERRUPT if they were lost."""
        self.record.phase("Downloading")
        self._attempt_started = time.monotonic()
        attempt = Attempt(self.request, self._settings, self._region, self._logs, self._pending_order)
        self._latest = attempt
        try:
            attempt.prepare(self.folder / f"attempt-{number}", scratch, self._check_orders)
            self.record.phase("Training")
            order = attempt.run(venv, self.record.arn)
        finally:
            self._training_seconds += time.monotonic() - self._attempt_started
            self._attempt_started = None
            attempt.discard_scratch()
        if order not in (None, Order.INTERRUPT):
            raise JobEnded(order)
        return order

    def _pending_order(self) -> Order | None:
        """The order given from outside, or the one that a time limit gives."""
        now = time.monotonic()
        trained = self._training_seconds + (now - self._attempt_started if self._attempt_started else 0.0)
        if self._order is None and trained > self.request.max_runtime_s:
            self.order(Order.MAX_RUNTIME)
        if self._order is None and self.request.max_wait_s and now - self._created > self.request.max_wait_s:
            self.order(Order.MAX_WAIT)
        return self._order

    def _check_orders(self) -> None:
        """Raise JobEnded if an order is pending. Before the containers run there is nothing to interrupt."""
        order = self._pending_order()
        if order not in (None, Order.INTERRUPT):
            raise JobEnded(order)

    def _finish(self, status: str, secondary: str, reason: str | None) -> None:
        """Upload the job's results and make the record terminal."""
        model_uri = None
        try:
            if self._latest and self._order is not Order.SHUTDOWN:
                if status == "Completed":
                    self.record.phase("Uploading")
                model_uri = self._upload(self._latest, with_model=status != "Failed")
        except Exception as error:
            status, secondary = "Failed", "Failed"
            full = no_space(error, self.folder)
            reason = (
                reason
                or (full or f"ClientError: The job's results could not be stored: {error}")[:MAX_REASON]
            )
        for log in self._logs:
            try:
                log.close()
            except Exception as error:  # the stream itself cannot be reached: nothing that the job could say
                note(f"{self.request.name}: its log could not be closed: {error}")
        self.record.finish(
            status,
            secondary,
            reason=reason,
            metrics=self._metrics.final(),
            model_uri=model_uri,
            training_seconds=self._training_seconds,
        )

    def _upload(self, attempt: Attempt, with_model: bool) -> str | None:
        """Upload the outputs and, unless the job failed, the model; returns the model's address."""
        uri = f"{self.request.output_uri.rstrip('/')}/{self.request.name}/output"
        outputs = [host.ml / "output" / "data" for host in attempt.hosts]
        models = [host.ml / "model" for host in attempt.hosts] if with_model else []
        if not self.request.compressed:
            upload_files(self._s3, outputs, f"{uri}/data")
            return upload_files(self._s3, models, f"{uri}/model")
        keep = self.folder / "artifacts"
        upload_archive(self._s3, "output.tar.gz", outputs, uri, keep)
        return upload_archive(self._s3, "model.tar.gz", models, uri, keep)
