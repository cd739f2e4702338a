"""Find, start, stop and connect to the local endpoint: the front door, all that a script needs to import.

A plain SDK script needs two lines before its first AWS call:

    from local_sagemaker import client
    client.connect(client.ensure_endpoint())
"""

import fcntl
import http.client
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import IO

from local_sagemaker.compat import sts_address
from local_sagemaker.home import EndedFile, EndpointFile, file_lock, home_folder, make_home
from local_sagemaker.secret_names import without_secrets

REGION = "us-east-1"
ROLE_NAME = "AmazonSageMaker-ExecutionRole"
ROLE_ARN = f"arn:aws:iam::123456789012:role/service-role/{ROLE_NAME}"
CONTROL_PATH = "/local_sagemaker"
KILLED = "it was killed, or the machine was restarted"
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 30.0


class EndpointError(RuntimeError):
    """The local endpoint could not be started, reached or stopped."""


@dataclass(frozen=True)
class Endpoint:
    """A running endpoint: its address, process id and home folder."""

    url: str
    pid: int
    home: Path


def call(url: str, action: str, **parameters: str) -> dict:
    """Ask the endpoint something that no AWS API has: "status", "shutdown", "interrupt" (name=...).

    Raises EndpointError with the endpoint's own message when it refuses, OSError when it cannot be reached.
    """
    request = f"{url}{CONTROL_PATH}/{action}?{urllib.parse.urlencode(parameters)}"
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback, never through a proxy
    try:
        with direct.open(urllib.request.Request(request, method="POST"), timeout=10) as answer:
            return json.load(answer)
    except urllib.error.HTTPError as error:
        raise EndpointError(error.read().decode(errors="replace")) from error


def find_endpoint(home: Path | str | None = None) -> Endpoint | None:
    """The endpoint that serves `home`, or None. A record left by a crashed one does not count."""
    folder = home_folder(home)
    try:
        record: EndpointFile = json.loads((folder / "endpoint.json").read_text())
        status = call(record["url"], "status")
    except (OSError, ValueError, KeyError, EndpointError, http.client.HTTPException):
        return None
    if status.get("pid") != record["pid"]:
        return None  # the port now belongs to another program
    return Endpoint(record["url"], record["pid"], folder)


def ensure_endpoint(home: Path | str | None = None, *, max_jobs: int = 1) -> Endpoint:
    """The running endpoint of `home`; starts a detached one (which outlives this process) if there is none.

    Args:
        max_jobs: how many jobs a new one runs at once; on few cores, jobs that run together slow each other down.

    Raises EndpointError with the end of its log if it does not answer within 60 s.
    """
    folder = home_folder(home)
    make_home(folder)
    with file_lock(folder / "start.lock"):  # two notebooks opened at once share one endpoint
        running = find_endpoint(folder)
        return running or _start(folder, max_jobs)


def _start(folder: Path, max_jobs: int) -> Endpoint:
    scripts = str(Path(__file__).resolve().parents[1])
    environment = {**without_secrets(os.environ), "LOCAL_SAGEMAKER_HOME": str(folder)}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [scripts, os.environ.get("PYTHONPATH")]))
    log = folder / "endpoint.log"
    with open(log, "ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "local_sagemaker", "serve", "--max-jobs", str(max_jobs)],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,  # Ctrl-C in a notebook must not end the endpoint and its jobs
        )
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline and process.poll() is None:
        running = find_endpoint(folder)
        if running:
            return running
        time.sleep(0.1)
    process.kill()
    tail = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
    raise EndpointError(f"The local endpoint did not start; the end of {log}:\n{tail}")


def shutdown(home: Path | str | None = None) -> bool:
    """Stop the endpoint of `home` and every job it runs. False when none was running.

    Raises EndpointError if it has not ended after 30 s.
    """
    running = find_endpoint(home)
    if running is None:
        return False
    call(running.url, "shutdown")
    deadline = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < deadline:
        if find_endpoint(running.home) is None:
            return True
        time.sleep(0.1)
    raise EndpointError(f"The endpoint (process {running.pid}) did not stop within {_STOP_TIMEOUT_S:.0f} s.")


def end_of(url: str, home: Path | str | None = None) -> str | None:
    """How the endpoint of `home` that answered at `url` has ended, in words; None if it runs, or never was one of `home`."""
    folder = home_folder(home)
    try:
        ended: EndedFile = json.loads((folder / "ended.json").read_text())
        if ended["url"] == url:
            return f"{ended['why']} ({datetime.fromisoformat(ended['ended']).astimezone():%Y-%m-%d %H:%M:%S})"
    except (OSError, ValueError, KeyError):
        pass  # none has ended in order yet
    try:
        record: EndpointFile = json.loads((folder / "endpoint.json").read_text())
        with open(folder / "serve.lock") as handle:
            # Which a process that lives holds (api/server.py).
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except (OSError, ValueError):
        return None
    return KILLED if record["url"] == url else None


def use(home: Path | str | None = None) -> IO[str]:
    """Keep `shutdown_if_unused` off the endpoint of `home`, until the file returned is closed or this process ends."""
    folder = home_folder(home)
    make_home(folder)
    handle = open(folder / "users.lock", "w")
    fcntl.flock(handle, fcntl.LOCK_SH)  # waits while another process shuts the endpoint down
    return handle


def shutdown_if_unused(home: Path | str | None = None) -> bool:
    """Stop the endpoint of `home`, unless a process uses it. False when one does."""
    with use(home) as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        shutdown(home)
        return True


def connect(endpoint: Endpoint | str, region: str = REGION) -> Callable[[], None]:
    """Point this process, and only this process, at the endpoint; returns a function that undoes it.

    Every AWS_* variable is set aside (real credentials and profiles included) and replaced by dummies,
    and the SDK's hard-coded STS address is made to follow the endpoint (compat/sts_address.py). Sessions and
    clients that exist already keep their old address: create them after this call.
    """
    url = endpoint.url if isinstance(endpoint, Endpoint) else endpoint
    changed = {name: None for name in os.environ if name.startswith("AWS_")}
    changed |= {
        "AWS_ENDPOINT_URL": url,
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": region,
        "AWS_REGION": region,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": without_proxy(os.environ.get("NO_PROXY") or os.environ.get("no_proxy")),
    }
    changed["no_proxy"] = changed["NO_PROXY"]
    before = {name: os.environ.get(name) for name in changed}
    _set_environment(changed)
    restore_sts = sts_address.follow_endpoint(url)
    _forget_cached_clients()

    def restore() -> None:
        _set_environment(before)
        restore_sts()
        _forget_cached_clients()

    return restore


def without_proxy(no_proxy: str | None) -> str:
    """`no_proxy` with the loopback names added, so that a proxy setting never reroutes local calls."""
    names = [name for name in (no_proxy or "").split(",") if name]
    return ",".join(dict.fromkeys([*names, "127.0.0.1", "localhost"]))


def _set_environment(values: dict[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _forget_cached_clients() -> None:
    """boto3 and the SDK keep process-wide default clients, which still talk to the previous address."""
    if "boto3" in sys.modules:
        import boto3

        boto3.DEFAULT_SESSION = None
    if "sagemaker.core.utils.utils" in sys.modules:
        utils = sys.modules["sagemaker.core.utils.utils"]
        utils.SageMakerClient.reset()
        utils.SingletonMeta._instances.clear()
