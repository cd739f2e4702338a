"""A lot of it: many lines, a large model, many jobs."""

import io
import socket
import weakref
from datetime import datetime

import boto3
import pytest
from endpoint_fixtures import describe, launch, log_lines, wait_end
from local_sagemaker.api.calls import CallLog
from local_sagemaker.api.server import BODIES_HELD, Application

pytestmark = pytest.mark.endpoint
ENDPOINT_OPTIONS = ("--max-jobs", "4")
LINES = 100_000
MODEL_MB = 200


def test_no_line_of_100_000_is_lost_and_all_are_in_order(endpoint, make_trainer):
    from sagemaker.core.training.configs import MetricDefinition

    trainer = make_trainer(f"for i in range({LINES}): print('line', i)").with_metric_definitions(
        [MetricDefinition(name="last", regex=r"line (\d+)")]
    )
    name = launch(trainer)
    ended = wait_end(name, timeout_s=120)
    assert ended["TrainingJobStatus"] == "Completed"
    numbers = [int(line.split()[1]) for line in log_lines(name) if line.startswith("line ")]
    assert numbers == list(range(LINES))
    assert ended["FinalMetricDataList"][0]["Value"] == LINES - 1
    file = endpoint.job_folder(name) / "logs" / "algo-1.log"
    assert sum(line.startswith("line ") for line in open(file)) == LINES


def test_a_line_longer_than_an_event_may_be(endpoint, make_trainer):
    name = launch(make_trainer("print('x' * 700_000); print(''); print('after')"))
    assert wait_end(name)["TrainingJobStatus"] == "Completed"
    lines = log_lines(name)
    assert sum(line.count("x") for line in lines if set(line) == {"x"}) == 700_000
    assert max(map(len, lines)) < 262_144
    assert lines[lines.index("after") - 1] == " ", "an empty line stays a line"


def test_bodies_of_requests_are_freed_however_few_they_are(tmp_path):
    alive = weakref.WeakSet()

    class Request:  # as moto's, which holds its body and is held by itself
        def __init__(self):
            self.itself = self
            alive.add(self)

    application = Application({}, lambda: None, CallLog(tmp_path / "calls.jsonl"), tmp_path)
    application._aws = lambda environ, start_response: [str(Request()).encode()]
    most = 0
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as asking,
    ):
        (address, port), server_port = asking.getsockname(), server.getsockname()[1]
        client = {"REMOTE_ADDR": address, "REMOTE_PORT": str(port), "SERVER_PORT": str(server_port)}
        for _ in range(40):
            part = {"REQUEST_METHOD": "PUT", "PATH_INFO": "/bucket/key", "CONTENT_LENGTH": str(8 << 20)}
            part |= client | {"HTTP_HOST": "127.0.0.1", "wsgi.input": io.BytesIO()}
            assert application(part, lambda *_: None)[0].startswith(b"<"), "it was refused"
            most = max(most, len(alive))
    assert most <= BODIES_HELD / (8 << 20) + 1


def test_a_model_of_200_mb(endpoint, make_trainer, tmp_path):
    import hashlib
    import tarfile

    name = launch(
        make_trainer(f"""
        import hashlib, random
        data = random.Random(0).randbytes(1_000_000)
        with open("/opt/ml/model/model.safetensors", "wb") as file:
            for part in range({MODEL_MB}):
                file.write(data)
        """)
    )
    ended = wait_end(name, timeout_s=120)
    assert ended["TrainingJobStatus"] == "Completed", ended
    bucket, _, key = ended["ModelArtifacts"]["S3ModelArtifacts"].removeprefix("s3://").partition("/")
    boto3.client("s3").download_file(bucket, key, str(tmp_path / "model.tar.gz"))
    with tarfile.open(tmp_path / "model.tar.gz") as tar:
        member = tar.getmember("model.safetensors")
        assert member.size == MODEL_MB * 1_000_000
        digest = hashlib.file_digest(tar.extractfile(member), "sha256").hexdigest()
    written = endpoint.job_folder(name) / "attempt-1/algo-1/ml/model/model.safetensors"
    with open(written, "rb") as file:
        assert hashlib.file_digest(file, "sha256").hexdigest() == digest


def test_twenty_jobs_wait_their_turn_in_order(endpoint, make_trainer):
    """Four may run at once."""
    sagemaker = boto3.client("sagemaker")
    template = launch(make_trainer("import time; time.sleep(0.3)"))
    wait_end(template)
    pair = launch(make_trainer("import time; time.sleep(0.3)", hosts=2))
    wait_end(pair)

    def again(name: str, of: str) -> None:
        body = describe(of)
        keys = (
            "AlgorithmSpecification RoleArn InputDataConfig OutputDataConfig ResourceConfig StoppingCondition"
        )
        sagemaker.create_training_job(TrainingJobName=name, **{key: body[key] for key in keys.split()})

    names = [f"queued-{number:02d}" for number in range(20)]
    for number, name in enumerate(names):
        again(name, pair if number % 5 == 4 else template)
    ended = [wait_end(name, timeout_s=120) for name in names]
    assert {d["TrainingJobStatus"] for d in ended} == {"Completed"}
    assert 2 <= most_at_once(ended) <= 4
    waited = [d["SecondaryStatusTransitions"][0] for d in ended if len(d["SecondaryStatusTransitions"]) == 6]
    assert waited and waited[0]["Status"] == "Pending" and "earlier job" in waited[0]["StatusMessage"]
    starts = [running_time(description)[0] for description in ended]
    assert starts == sorted(starts), "first in, first out"


def test_jobs_of_two_hosts_at_once_meet_on_ports_of_their_own(endpoint, make_trainer):
    script = """
        import socket, time
        if os.environ["SM_CURRENT_HOST"] == "algo-1":
            listening = socket.create_server(("", int(os.environ["SM_MASTER_PORT"])))
        time.sleep(4)
        """
    names = [launch(make_trainer(script, hosts=2, base_job_name=name)) for name in ("left", "right")]
    ended = [wait_end(name) for name in names]
    assert [d["TrainingJobStatus"] for d in ended] == ["Completed"] * 2, [log_lines(name) for name in names]
    assert most_at_once(ended) == 2


def running_time(description: dict) -> tuple[datetime, datetime]:
    transitions = description["SecondaryStatusTransitions"]
    return next(t["StartTime"] for t in transitions if t["Status"] == "Starting"), transitions[-1]["EndTime"]


def most_at_once(descriptions: list[dict]) -> int:
    """How many of the jobs ran at the same time, at most."""
    times = [running_time(description) for description in descriptions]
    return max(sum(start <= moment < end for start, end in times) for moment, _ in times)
