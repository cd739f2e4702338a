"""How time and memory grow: with rows, completions, hosts, jobs, log lines and the size of a model.

    python -m bench growth

Each point is a process or a training job of its own; of processes CPU seconds, of jobs wall seconds from the request to the end.
The largest job writes a model of 2 GB and needs three times that of disk.
"""

import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import boto3
import psutil
from local_sagemaker import client
from workshop.checks.images import CPU_IMAGE
from workshop.folders import REPOSITORY

from bench.rows import Row, by_case

ROWS = (1_000, 10_000, 100_000, 1_000_000)
COMPLETIONS = (100, 1_000, 10_000, 100_000)
HOSTS = (1, 2, 4, 8)
JOBS = (1, 10, 100)
LINES = (1_000, 10_000, 100_000, 1_000_000)
MODEL_MB = (1, 10, 100, 1_000, 2_000)
AT_ONCE = 4  # jobs
BUCKET = "bench"

READ = """
from rl.tasks import read_rows
begin()
rows = read_rows(sys.argv[1])
assert len(rows) == count
"""
SCORE = """
from rl.rewards import get_rewards
from rl.verifiers import get_verifier
texts = [f"<think>{i} + 1 = {i + 1}</think><answer>{i + 1}</answer>" for i in range(count)]
completions = [[{"role": "assistant", "content": text}] for text in texts]
begin()
for reward in get_rewards(["accuracy", "format"], verifier=get_verifier("number")):
    given = {"answer": [str(i + 1) for i in range(count)], "prompts": [""] * count}
    assert sum(reward(completions=completions, **given)) > 0
"""
HEAD = """
import json, re, sys, time
count = int(sys.argv[2])
def begin():
    global began
    began = time.process_time()
def peak():
    # Linux. What getrusage says begins with the process that this one was made by.
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
"""
TAIL = "\nprint(json.dumps([time.process_time() - began, peak()]))"


def measure() -> Iterator[Row]:
    """Rows of all that grows; the number that grows is the first word of the case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        yield from _reading(folder)
        for count in COMPLETIONS:
            yield from _in_process(f"{count:,} completions scored", SCORE, count, "")
        endpoint = client.ensure_endpoint(folder / "endpoint", max_jobs=AT_ONCE)
        restore = client.connect(endpoint)
        try:
            boto3.client("s3").create_bucket(Bucket=BUCKET)
            _finish(["warm-up"], "pass")  # the image's environment
            yield from _jobs(psutil.Process(endpoint.pid))
        finally:
            restore()
            client.shutdown(folder / "endpoint")


def _reading(folder: Path) -> Iterator[Row]:
    for count in ROWS:
        file = folder / f"rows-{count}.jsonl"
        with open(file, "w", encoding="utf-8") as lines:
            for index in range(count):
                question = f"What is {index} + 1?"
                prompt = [{"role": "user", "content": question}]
                row = {"prompt": prompt, "question": question, "answer": str(index + 1), "task": "sum"}
                lines.write(json.dumps(row | {"split": "train", "index": index}) + "\n")
        yield from _in_process(f"{count:,} rows read", READ, count, str(file))
        file.unlink()


def _in_process(case: str, code: str, count: int, argument: str) -> Iterator[Row]:
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY / "scripts"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", HEAD + code + TAIL, argument, str(count)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    yield Row(case, "time", seconds, "s")
    yield Row(case, "peak memory", peak, "MB")


def _jobs(endpoint: psutil.Process) -> Iterator[Row]:
    for hosts in HOSTS:
        yield from _timed(f"{hosts} hosts of one job", endpoint, [f"hosts-{hosts}"], "pass", hosts)
    for count in JOBS:
        names = [f"queue-{count}-{number}" for number in range(count)]
        yield from _timed(f"{count} jobs queued, {AT_ONCE} at once", endpoint, names, "pass")
    for count in LINES:
        code = f"for i in range({count}): print('line', i)"
        yield from _timed(f"{count:,} log lines", endpoint, [f"lines-{count}"], code)
    for size in MODEL_MB:
        code = (
            "import random; block = random.Random(0).randbytes(10**6); file = open('/opt/ml/model/weights', 'wb'); "
            f"[file.write(block) for _ in range({size})]"
        )
        yield from _timed(f"{size:,} MB of model", endpoint, [f"model-{size}"], code)


def _timed(case: str, endpoint: psutil.Process, names: list[str], code: str, hosts: int = 1) -> Iterator[Row]:
    began = time.perf_counter()
    peak = _finish(names, code, hosts, endpoint)
    yield Row(case, "time", time.perf_counter() - began, "s")
    yield Row(case, "peak memory", peak / 2**20, "MB")  # of the endpoint


def _finish(names: list[str], code: str, hosts: int = 1, endpoint: psutil.Process | None = None) -> int:
    """Sends jobs and waits for their ends; bytes that the endpoint held at most, looked at every 50 ms.

    Raises:
        RuntimeError: one does not complete.
    """
    sagemaker = boto3.client("sagemaker")
    for name in names:
        sagemaker.create_training_job(**_request(name, code, hosts))
    peak = 0
    for name in names:
        while True:
            peak = max(peak, endpoint.memory_info().rss if endpoint else 0)
            described = sagemaker.describe_training_job(TrainingJobName=name)
            if described["TrainingJobStatus"] == "Completed":
                break
            if described["TrainingJobStatus"] in ("Failed", "Stopped"):
                raise RuntimeError(f"{name}: {described.get('FailureReason')}")
            time.sleep(0.05)
    return peak


def _request(name: str, code: str, hosts: int) -> dict[str, Any]:
    return {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            "TrainingImage": CPU_IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["python3", "-c"],
            "ContainerArguments": [code],
        },
        "RoleArn": client.ROLE_ARN,
        "OutputDataConfig": {"S3OutputPath": f"s3://{BUCKET}/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.xlarge", "InstanceCount": hosts, "VolumeSizeInGB": 30},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
    }


def exponents(rows: Iterable[Row], quantity: str) -> dict[str, float]:
    """How what is more than at the smallest size grows, as a power of the size: 1 is linear; by what grows, largest sizes last.

    The smallest is taken off both, so that what it takes to begin does not count. Left out is what grows by less than a tenth
    of that: it does not grow.
    """
    sizes: dict[str, list[tuple[float, float]]] = {}
    for case, values in by_case(rows, quantity).items():
        size, _, what = case.partition(" ")
        if size.replace(",", "").isdigit():
            sizes.setdefault(what, []).append((float(size.replace(",", "")), statistics.median(values)))
    found = {}
    for what, points in sizes.items():
        (least, base), *others = sorted(points)
        above = [
            (math.log(size - least), math.log(value - base)) for size, value in others if value > 1.1 * base
        ]
        if len(above) > 1:
            found[what] = statistics.linear_regression(*zip(*above, strict=True)).slope
    return found
