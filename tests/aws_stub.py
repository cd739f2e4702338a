"""AWS as a watcher sees it, without AWS: one training job on a clock that moves when somebody sleeps.

Real boto3 clients ask; what they would send to the network is answered here. `FakeAws(monkeypatch)` sets it up.
"""

import io
import json
import re
import types
from dataclasses import dataclass, field

import boto3
import botocore.endpoint
import botocore.httpsession
from botocore.awsrequest import AWSResponse
from workshop.jobs import live, status
from workshop.session import credentials

REGION = "us-west-2"  # one of those where logs may be read 10 times a second
NAME = "grpo-fsdp-someone-a1b2c3"
EPOCH = 1_800_000_000


@dataclass
class Fault:
    """From `start` until `end` (seconds of the clock), requests of these operations get an error."""

    start: float
    end: float
    error: Exception | tuple[int, str]  # raised, or an answer's HTTP status and error code
    operations: str = ".*"


class _Body(io.BytesIO):
    def stream(self, **_):
        yield self.read()


@dataclass
class FakeAws:
    """The job: when it reaches which phase, what its hosts have written by then, and what goes wrong.

    `streams` maps a log stream to (when it is there, [(when a line can be read, line)]).
    """

    monkeypatch: object
    phases: list[tuple[float, str]]
    streams: dict[str, tuple[float, list[tuple[float, str]]]]
    hosts: int = 1
    faults: list[Fault] = field(default_factory=list)
    key: str = "first-key"  # the access key that is taken
    now: float = 0.0
    calls: list[tuple[float, str]] = field(default_factory=list)  # when, operation
    at: dict[float, object] = field(default_factory=dict)  # when -> what to do then

    def __post_init__(self) -> None:
        patch = self.monkeypatch
        for name in ("AWS_ENDPOINT_URL", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
            patch.delenv(name, raising=False)
        for name, value in {
            "AWS_ACCESS_KEY_ID": self.key,
            "AWS_SECRET_ACCESS_KEY": "secret",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
            "AWS_DEFAULT_REGION": "us-east-1",  # not the session's
            "AWS_EC2_METADATA_DISABLED": "true",
        }.items():
            patch.setenv(name, value)
        clock = types.SimpleNamespace(
            monotonic=lambda: self.now, sleep=self._sleep, time=lambda: EPOCH + self.now
        )
        for module in (live, status, credentials, botocore.endpoint):
            patch.setattr(module, "time", clock)
        patch.setattr(botocore.httpsession.URLLib3Session, "send", lambda _, request: self._answer(request))
        patch.setattr(boto3, "DEFAULT_SESSION", boto3.Session(region_name=REGION))

    def count(self, operation: str, start: float = 0, end: float = float("inf")) -> int:
        return sum(name == operation and start <= when < end for when, name in self.calls)

    def _sleep(self, seconds: float) -> None:
        self.now += seconds
        for when in sorted(when for when in self.at if when <= self.now):
            self.at.pop(when)()

    def _answer(self, request):
        operation = request.headers["X-Amz-Target"].decode().rpartition(".")[2]
        self.calls.append((self.now, operation))
        assert f".{REGION}.amazonaws.com" in request.url, request.url
        for fault in self.faults:
            if fault.start <= self.now < fault.end and re.fullmatch(fault.operations, operation):
                if isinstance(fault.error, Exception):
                    raise fault.error
                return _response(fault.error[0], {"__type": fault.error[1], "message": "no"})
        if f"Credential={self.key}/" not in request.headers["Authorization"].decode():
            return _response(400, {"__type": "ExpiredTokenException", "message": "The token has expired"})
        return _response(*getattr(self, operation)(json.loads(request.body)))

    def DescribeTrainingJob(self, asked: dict) -> tuple[int, dict]:
        if asked["TrainingJobName"] != NAME:
            return 400, {"__type": "ValidationException", "message": "Requested resource not found."}
        reached = [(when, phase) for when, phase in self.phases if when <= self.now]
        ends = [when for when, _ in self.phases[1:]]
        phase = reached[-1][1]
        return 200, {
            "TrainingJobName": NAME,
            "TrainingJobArn": f"arn:aws:sagemaker:{REGION}:123456789012:training-job/{NAME}",
            "TrainingJobStatus": phase if phase in status.TERMINAL else "InProgress",
            "SecondaryStatus": phase,
            "CreationTime": EPOCH,
            "ResourceConfig": {"InstanceCount": self.hosts, "InstanceType": "ml.g6.xlarge"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
            "SecondaryStatusTransitions": [
                {"Status": phase, "StartTime": EPOCH + when, "StatusMessage": f"The job is {phase}"}
                | ({"EndTime": EPOCH + end} if end <= self.now else {})
                for (when, phase), end in zip(reached, [*ends, float("inf")], strict=False)
            ],
        }

    def DescribeLogStreams(self, asked: dict) -> tuple[int, dict]:
        there = [name for name, (when, _) in self.streams.items() if when <= self.now]
        if not there:
            return 400, {"__type": "ResourceNotFoundException", "message": "The log group does not exist."}
        assert all(name.startswith(asked["logStreamNamePrefix"]) for name in there)
        return 200, {"logStreams": [{"logStreamName": name} for name in there]}

    def GetLogEvents(self, asked: dict) -> tuple[int, dict]:
        _, lines = self.streams[asked["logStreamName"]]
        start = int(asked.get("nextToken", "0"))
        events = [
            {"timestamp": int((EPOCH + when) * 1000), "message": line}
            for when, line in lines[start:]
            if when <= self.now
        ]
        return 200, {"events": events, "nextForwardToken": str(start + len(events))}


def _response(code: int, body: dict) -> AWSResponse:
    headers = {"x-amzn-RequestId": "1", "content-type": "application/x-amz-json-1.1"}
    return AWSResponse("https://aws", code, headers, _Body(json.dumps(body).encode()))
