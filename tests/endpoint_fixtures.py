"""An endpoint of its own for each test module, and real SDK trainers whose script is given as text."""

import itertools
import json
import os
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import boto3
import psutil
import pytest
from local_sagemaker import client

SCRIPTS = Path(client.__file__).parents[1]
# In every script of the tests: report(name, value) prints a line that `reported` reads back.
REPORT = """\
import json, os, pathlib, sys
def report(name, value):
    # one write: the processes of a host share its stream, and unbuffered print writes the newline apart
    sys.stdout.flush()
    os.write(1, f"REPORT {name} {json.dumps(value)}\\n".encode())
"""
IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10.0-cpu-py312"
_NUMBERS = itertools.count()
SMALL_BASE = "psutil==7.2.2\n"  # the image without torch


@dataclass
class RunningEndpoint:
    """A `serve` process of the tests' own."""

    url: str
    home: Path
    process: subprocess.Popen

    def job_folder(self, name: str) -> Path:
        return self.home / "jobs" / name

    def command(self, *arguments: str) -> subprocess.CompletedProcess:
        """Run `python -m local_sagemaker ...` against this endpoint."""
        return run_command(self.home, *arguments)


def run_command(home: Path, *arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "local_sagemaker", *arguments],
        env=endpoint_environment(home),
        capture_output=True,
        text=True,
        timeout=60,
    )


def endpoint_environment(home: Path, base: Path | None = None) -> dict[str, str]:
    environment = {
        **os.environ,
        "LOCAL_SAGEMAKER_HOME": str(home),
        "PYTHONPATH": str(SCRIPTS),
        "WANDB_API_KEY": "a-secret-of-the-learner",
    }
    return environment | ({"LOCAL_SAGEMAKER_BASE_REQUIREMENTS": str(base)} if base else {})


def start_endpoint(home: Path, *options: str, small: bool = True) -> RunningEndpoint:
    """`serve` in a process; stopping takes 2 s at most so that tests need not wait 120."""
    home.mkdir(parents=True, exist_ok=True)
    base = home / "base.txt"
    base.write_text(SMALL_BASE)
    process = subprocess.Popen(
        [sys.executable, "-m", "local_sagemaker", "serve", "--stop-grace", "2", *options],
        env=endpoint_environment(home, base if small else None),
        stdout=subprocess.PIPE,
        stderr=open(home / "endpoint.log", "w"),
        text=True,
    )
    line = process.stdout.readline()
    assert line.startswith("local_sagemaker ready at http://127.0.0.1:"), (home / "endpoint.log").read_text()
    return RunningEndpoint(line.split()[-1], home, process)


def end_endpoint(endpoint: RunningEndpoint) -> None:
    endpoint.process.terminate()
    try:
        endpoint.process.wait(20)
    finally:
        endpoint.process.kill()


@contextmanager
def connected_endpoint(home: Path, *options: str, small: bool = True) -> Iterator[RunningEndpoint]:
    """An endpoint that this process is connected to, and its end."""
    running = start_endpoint(home, *options, small=small)
    restore = client.connect(running.url)
    try:
        yield running
    finally:
        restore()
        end_endpoint(running)


@pytest.fixture(scope="module")
def endpoint(request, tmp_path_factory) -> Iterator[RunningEndpoint]:
    """The test module's endpoint, this process connected to it.

    A module may set ENDPOINT_OPTIONS, words for `serve`, and ENDPOINT_WITH_TORCH = True, if its jobs need the whole image.
    """
    options = getattr(request.module, "ENDPOINT_OPTIONS", ())
    small = not getattr(request.module, "ENDPOINT_WITH_TORCH", False)
    with connected_endpoint(tmp_path_factory.mktemp("endpoint") / "home", *options, small=small) as running:
        yield running


@pytest.fixture
def make_trainer(endpoint, tmp_path) -> Callable:
    """make_trainer(script, **ModelTrainer arguments): a trainer whose train.py is `script`."""
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, SourceCode
    from sagemaker.train import ModelTrainer

    def make(
        script: str, *, requirements: str | None = None, hosts: int = 1, spot: bool = False, **arguments
    ):
        source = tmp_path / "source"
        source.mkdir(exist_ok=True)
        (source / "train.py").write_text(REPORT + textwrap.dedent(script))
        if requirements is not None:
            (source / "requirements.txt").write_text(requirements)
        return ModelTrainer(
            **{
                "sagemaker_session": Session(),
                "role": client.ROLE_ARN,
                "base_job_name": f"t{next(_NUMBERS)}",  # the SDK adds the second only
                "training_image": IMAGE,
                "source_code": SourceCode(
                    source_dir=str(source),
                    entry_script="train.py",
                    requirements="requirements.txt" if requirements is not None else None,
                ),
                "compute": Compute(
                    instance_type="ml.m5.xlarge",
                    instance_count=hosts,
                    enable_managed_spot_training=spot or None,
                ),
                **arguments,
            }
        )

    return make


def launch(trainer, **arguments) -> str:
    """Start the job without waiting; returns its name."""
    trainer.train(wait=False, logs=False, **arguments)
    return trainer._latest_training_job.training_job_name


def describe(name: str) -> dict:
    return boto3.client("sagemaker").describe_training_job(TrainingJobName=name)


def wait_until(name: str, reached: Callable[[dict], bool], timeout_s: float = 60) -> dict:
    """Poll until `reached(description)`; fails with the description otherwise."""
    started = time.monotonic()
    while (waited := time.monotonic() - started) < timeout_s:
        description = describe(name)
        if reached(description):
            return description
        time.sleep(min(1.0, 0.1 + waited / 60))  # asking takes processor time from a long job
    raise AssertionError(f"not reached within {timeout_s} s: {description}")


def wait_end(name: str, timeout_s: float = 90) -> dict:
    """The description of the ended job."""
    return wait_until(name, lambda d: d["TrainingJobStatus"] in ("Completed", "Failed", "Stopped"), timeout_s)


def wait_line(name: str, text: str, timeout_s: float = 60) -> None:
    """Wait until a log line contains `text`."""

    def shown(description: dict) -> bool:
        assert description["TrainingJobStatus"] not in ("Completed", "Failed"), (description, log_lines(name))
        return any(text in line for line in log_lines(name))

    wait_until(name, shown, timeout_s)


def log_lines(name: str, host: str = "algo-1") -> list[str]:
    """All lines of a host's CloudWatch stream, in order; none while the endpoint's first job has yet to log."""
    logs = boto3.client("logs")
    group = "/aws/sagemaker/TrainingJobs"
    try:
        found = logs.describe_log_streams(logGroupName=group, logStreamNamePrefix=f"{name}/{host}-")
    except logs.exceptions.ResourceNotFoundException:  # the first stream makes the group, as on AWS
        return []
    streams = found["logStreams"]
    lines, token = [], None
    while streams:
        page = logs.get_log_events(
            logGroupName=group,
            logStreamName=streams[0]["logStreamName"],
            startFromHead=True,
            **({"nextToken": token} if token else {}),
        )
        if not page["events"]:
            break
        lines += [event["message"] for event in page["events"]]
        token = page["nextForwardToken"]
    return lines


def reported(name: str, host: str = "algo-1") -> dict:
    """What the job's script passed to `report`."""
    pairs = [line.split(" ", 2)[1:] for line in log_lines(name, host) if line.startswith("REPORT ")]
    return {key: json.loads(value) for key, value in pairs}


def wait_for_exit(pid: int, timeout_s: float = 20) -> None:
    """Wait until a process that this one did not start has ended."""
    deadline = time.monotonic() + timeout_s
    while psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < deadline, f"process {pid} has not ended within {timeout_s} s"
        time.sleep(0.05)


def phases(description: dict) -> list[str]:
    return [transition["Status"] for transition in description["SecondaryStatusTransitions"]]


def s3_keys(uri: str) -> list[str]:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    pages = boto3.client("s3").get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
    return [entry["Key"] for page in pages for entry in page.get("Contents", [])]


def put_text(uri: str, text: str) -> None:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=text.encode())


def extract(uri: str, folder: Path) -> dict[str, str]:
    """Download an archive and return {path: text} of its files."""
    import tarfile

    bucket, _, key = uri.removeprefix("s3://").partition("/")
    archive = folder / "archive.tar.gz"
    boto3.client("s3").download_file(bucket, key, str(archive))
    with tarfile.open(archive) as tar:
        tar.extractall(folder / "extracted", filter="data")
        return {
            member.name: tar.extractfile(member).read().decode()
            for member in tar.getmembers()
            if member.isfile()
        }
