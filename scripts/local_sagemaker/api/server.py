"""The endpoint's process: moto's server on a loopback port, plus a few control actions of its own."""

import contextlib
import fcntl
import gc
import json
import logging
import os
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import BaseWSGIServer, make_server
from werkzeug.wsgi import ClosingIterator

from local_sagemaker.api import earlier_jobs, operations
from local_sagemaker.api.allowed import Refusal, error_answer, failed, refusal
from local_sagemaker.api.asked import read_request
from local_sagemaker.api.buckets import keep_buckets
from local_sagemaker.api.callers import LOOPBACK, objection
from local_sagemaker.api.calls import CallLog
from local_sagemaker.api.service import TrainingService
from local_sagemaker.client import CONTROL_PATH, KILLED, find_endpoint, without_proxy
from local_sagemaker.disk import no_space
from local_sagemaker.home import EndedFile, EndpointFile, make_home, note, write_json
from local_sagemaker.hosts.isolation import Isolation
from local_sagemaker.jobs.attempt import Settings
from local_sagemaker.jobs.job_queue import JobQueue

NO_SPACE = "LocalModeNoSpace"  # no error of AWS's, where disks do not end

# moto's requests are circles that hold their bodies. Python looks for circles after so many new objects, however large they
# are: an upload of 1 GB, in parts of 8 MB, once held 0.8 GB.
BODIES_HELD = 64 << 20  # bytes


class CannotServe(RuntimeError):
    """The endpoint cannot be started; the message says what to do."""


@dataclass(frozen=True)
class Options:
    """How an endpoint is to run."""

    home: Path
    isolation: Isolation
    port: int  # 0: any free one
    max_jobs: int  # that run at once
    stop_grace_s: float  # seconds from SIGTERM to SIGKILL
    idle_hours: float  # without a request or a job, after which the endpoint ends


class Application:
    """The WSGI application: control actions below CONTROL_PATH, everything else is AWS, carried out or refused."""

    def __init__(
        self,
        actions: dict[str, Callable[[dict[str, str]], dict]],
        shutdown: Callable[[], None],
        calls: CallLog,
        home: Path,
    ):
        self._aws = DomainDispatcherApplication(create_backend_app)
        self._actions = actions
        self._calls, self._home = calls, home
        self._shutdown = shutdown
        self._bodies = 0  # bytes, since garbage was collected
        self.last_request = time.monotonic()

    def __call__(self, environ: dict, start_response: Callable) -> Iterable[bytes]:
        if why := objection(environ):
            return _answer(start_response, "403 Forbidden", {"error": why})
        path = environ.get("PATH_INFO", "")
        if not path.startswith(CONTROL_PATH + "/"):
            self.last_request = time.monotonic()
            asked = read_request(environ)
            self._calls.add(environ, asked)
            self._collect(environ.get("CONTENT_LENGTH") or "0")
            wrong = refusal(asked)
            if wrong is None:
                try:
                    return self._aws(environ, start_response)
                # moto could not make sense of the request. With a 500 boto3 would ask again, and hide the cause.
                except Exception as error:
                    note(traceback.format_exc())
                    full = no_space(error, self._home)
                    wrong = Refusal(NO_SPACE, full) if full else failed(asked, error)
            headers, body = error_answer(asked, wrong)
            start_response("400 Bad Request", headers)
            return [body]
        if environ["REQUEST_METHOD"] != "POST":  # an address that somebody follows changes nothing
            return _answer(
                start_response, "405 Method Not Allowed", {"error": "control actions are POST requests"}
            )
        if path == f"{CONTROL_PATH}/shutdown":
            # Once the answer is sent: a process that ends in the middle of it looks like a crash to the caller.
            return ClosingIterator(_answer(start_response, "200 OK", {}), self._shutdown)
        action = self._actions.get(path.removeprefix(CONTROL_PATH + "/"))
        if action is None:
            return _answer(start_response, "404 Not Found", {"error": f"no action {path}"})
        query = {name: values[0] for name, values in parse_qs(environ.get("QUERY_STRING", "")).items()}
        try:
            return _answer(start_response, "200 OK", action(query))
        except ValueError as error:
            start_response("400 Bad Request", [("Content-Type", "text/plain; charset=utf-8")])
            return [str(error).encode()]

    def _collect(self, size: str) -> None:
        """Free the bodies of earlier requests once they come to BODIES_HELD, with this one, of `size` bytes."""
        self._bodies += int(size) if size.isdigit() else 0
        if self._bodies > BODIES_HELD:
            self._bodies = 0
            gc.collect()


def _answer(start_response: Callable, status: str, body: dict) -> Iterable[bytes]:
    start_response(status, [("Content-Type", "application/json")])
    return [json.dumps(body).encode()]


def serve(options: Options) -> None:
    """Run until stopped by SIGTERM, Ctrl-C, the control action "shutdown", or `idle_hours` without work.

    What earlier endpoints left in the home (buckets, jobs, logs) is there again. Prints one line to standard output when
    ready. Raises CannotServe if another endpoint serves the same home, the port is taken, or the home cannot be read or
    written, operations.UnknownMoto if moto is not the version this is made for.
    """
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(_only_endpoint(options.home))
            _serve(options)
        except OSError as error:
            raise CannotServe(
                no_space(error, options.home) or f"The endpoint's home {options.home} cannot be used: {error}"
            ) from error


@contextlib.contextmanager
def _only_endpoint(home: Path) -> Iterator[None]:
    """Hold the home for this process, until it ends in whatever way. Raises CannotServe if another has it."""
    make_home(home)
    with open(home / "serve.lock", "w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            running = find_endpoint(home)
            where = (
                f" at {running.url} (process {running.pid})" if running else ", which is starting or ending,"
            )
            raise CannotServe(f"An endpoint already runs{where} for {home}") from error
        yield


def _serve(options: Options) -> None:
    _forget_own_credentials()
    stopping = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stopping.set())

    def interrupt(query: dict[str, str]) -> dict:
        service.interrupt(query.get("name", ""))  # nobody knows the address before there is a service
        return {}

    status = {"pid": os.getpid(), "isolation": options.isolation.mode}
    application = Application(
        {"status": lambda _query: status, "interrupt": interrupt},
        stopping.set,
        CallLog(options.home / "calls.jsonl"),
        options.home,
    )
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    http = _listen(options.port, application)
    url = f"http://{LOOPBACK}:{http.server_port}"
    settings = Settings(url, options.home / "jobs", options.isolation, stop_grace_s=options.stop_grace_s)
    queue = JobQueue(options.max_jobs)
    service = TrainingService(settings, queue)
    operations.install(service)
    keep_buckets(options.home / "s3")
    earlier_jobs.take_over(settings.jobs_folder)
    threading.Thread(target=http.serve_forever, daemon=True).start()
    record = options.home / "endpoint.json"
    _note_end_of_last(record)
    write_json(
        record,
        EndpointFile(url=url, pid=os.getpid(), started=time.time(), isolation=options.isolation.mode),
    )
    print(f"local_sagemaker ready at {url}", flush=True)
    why = "it was stopped"
    while not stopping.wait(1.0):
        service.save_again()
        idle_s = time.monotonic() - application.last_request
        if idle_s > options.idle_hours * 3600 and queue.idle:
            why = f"it had had nothing to do for {options.idle_hours:g} hours"
            break
    queue.close()
    service.save_again()
    _note_end(options.home, url, why)
    record.unlink(missing_ok=True)
    http.shutdown()


def _note_end(home: Path, url: str, why: str) -> None:
    try:
        write_json(home / "ended.json", EndedFile(url=url, ended=datetime.now(UTC).isoformat(), why=why))
    except OSError as error:
        note(f"ended.json cannot be written: {error}")


def _note_end_of_last(record: Path) -> None:
    """An endpoint.json that is still there is that of an endpoint which had no time to remove it."""
    try:
        last: EndpointFile = json.loads(record.read_text())
    except (OSError, ValueError):
        return
    _note_end(record.parent, last["url"], KILLED)


def _listen(port: int, application: Application) -> BaseWSGIServer:
    try:
        return make_server(LOOPBACK, port, application, threaded=True, request_handler=MotoRequestHandler)
    # werkzeug prints that an address is in use, and raises SystemExit for it.
    except (OSError, SystemExit) as error:
        reason = "another program uses the port" if isinstance(error, SystemExit) else str(error)
        raise CannotServe(
            f"Cannot listen on {LOOPBACK}:{port}: {reason}. Choose another with --port, or leave --port out to"
            " take a free one."
        ) from error


def _forget_own_credentials() -> None:
    """The endpoint needs none of the user's AWS settings, and no proxy for its calls to itself."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ["AWS_CONFIG_FILE"] = os.environ["AWS_SHARED_CREDENTIALS_FILE"] = os.devnull
    os.environ["NO_PROXY"] = os.environ["no_proxy"] = without_proxy(os.environ.get("NO_PROXY"))
