"""Watching a job on AWS: how seldom it asks, and what it survives. AWS is a stub below boto3 (aws_stub.py)."""

import boto3
import pytest
from aws_stub import NAME, REGION, FakeAws, Fault
from botocore.exceptions import (
    ConnectionClosedError,
    ConnectTimeoutError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
    SSOTokenLoadError,
)
from workshop.jobs import live, pace
from workshop.jobs.live import watch
from workshop.jobs.outages import PATIENCE_S, ConnectionLost, SessionExpired
from workshop.jobs.status import JobNotFound, LogReader, training_job

STEPS = 60
TRAINS, ENDS = 300.0, 1530.0
PHASES = [
    (0, "Starting"),
    (240, "Downloading"),
    (TRAINS, "Training"),
    (ENDS - 20, "Uploading"),
    (ENDS, "Completed"),
]
GET_LOG_EVENTS_LIMIT = 10  # calls a second, see jobs/pace.py


def lines(start: float, first: int = 1, last: int = STEPS) -> list[tuple[float, str]]:
    """A metrics line every 20 s. The last is delivered 4 s late, after the job has ended when it is the whole job's."""
    steps = [(start + 20 * n, f"[metrics] step={n}/{STEPS} reward=0.5") for n in range(first, last + 1)]
    return [*steps[:-1], (steps[-1][0] + 14, steps[-1][1])]


@pytest.fixture
def aws(monkeypatch) -> FakeAws:
    stream = f"{NAME}/algo-1-1800000310"
    return FakeAws(monkeypatch, PHASES, {stream: (TRAINS + 10, lines(TRAINS + 20))})


def steps_of(history: list[dict]) -> list[int]:
    return [entry["step"] for entry in history]


def test_it_asks_seldom_and_misses_nothing(aws, capsys):
    assert steps_of(watch(NAME)) == list(range(1, STEPS + 1)), "the last line arrives after the job has ended"
    assert aws.count("GetLogEvents", 0, TRAINS) == aws.count("DescribeLogStreams", 0, TRAINS) == 0
    trained = ENDS - TRAINS - 40
    for operation, rate in pace.calls_per_second(1).items():
        asked = aws.count(operation, TRAINS + 20, ENDS - 20)
        assert asked <= rate * trained * 1.15 + 1, operation
        assert asked >= rate * trained * 0.6, f"{operation}: it should be as lively as the limit allows"
    assert 40 * aws.count("GetLogEvents", TRAINS + 20, ENDS - 20) / trained < GET_LOG_EVENTS_LIMIT
    assert aws.count("DescribeTrainingJob", 0, TRAINS) <= TRAINS / pace.STARTING_S * 1.3
    shown = capsys.readouterr().out
    assert f"{NAME}: The job is Starting" in shown, "why a job does not train yet is worth a line"
    assert aws.now < ENDS + 30, "the end is noticed soon"


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_forty_people_stay_below_the_limits(hosts):
    rates = pace.calls_per_second(40, hosts)
    assert rates["GetLogEvents"] <= 0.8 * GET_LOG_EVENTS_LIMIT
    assert rates["DescribeLogStreams"] < 1 and rates["DescribeTrainingJob"] < 3
    one, described, now = pace.Pace(local=False), 0, 0.0
    looks = 0
    while now < 3600:
        looks += 1
        if one.description_due(now, training=True):
            one.described(now)
            described += 1
        now += one.pause_s(hosts, training=True)
    assert looks * hosts * 40 / 3600 == pytest.approx(rates["GetLogEvents"], rel=0.1), (
        "arithmetic and pace agree"
    )
    assert described * 40 / 3600 == pytest.approx(rates["DescribeTrainingJob"], rel=0.35)


def test_a_pace_that_was_asked_for(aws):
    watch(NAME, refresh=30)
    assert aws.count("DescribeTrainingJob") == pytest.approx(ENDS / 30, abs=3)


URL = f"https://logs.{REGION}.amazonaws.com/"
PASSING = {
    "throttled": (400, "ThrottlingException"),
    "too many": (400, "TooManyRequestsException"),
    "limit": (400, "RequestLimitExceeded"),
    "500": (500, "InternalServerError"),
    "503": (503, "ServiceUnavailableException"),
    "no connection, no name": EndpointConnectionError(endpoint_url=URL, error="Name or service not known"),
    "connect timeout": ConnectTimeoutError(endpoint_url=URL),
    "read timeout": ReadTimeoutError(endpoint_url=URL),
    "closed": ConnectionClosedError(endpoint_url=URL),
}
EXPIRED = {
    "expired": (400, "ExpiredTokenException"),
    "other word": (400, "ExpiredToken"),
    "unrecognized": (400, "UnrecognizedClientException"),
    "sign-in lost": SSOTokenLoadError(error_msg="no token"),
}


@pytest.mark.parametrize("operations", [".*", "GetLogEvents", "DescribeLogStreams|DescribeTrainingJob"])
@pytest.mark.parametrize("error", PASSING.values(), ids=PASSING.keys())
def test_minutes_without_an_answer_are_survived(aws, error, operations):
    aws.faults = [
        Fault(60, 200, error, operations),  # while it starts
        Fault(700, 700 + 0.7 * PATIENCE_S, error, operations),  # while it trains
        Fault(ENDS, ENDS + 120, error, operations),  # when it ends
    ]
    assert steps_of(watch(NAME)) == list(range(1, STEPS + 1))


@pytest.mark.parametrize("error", EXPIRED.values(), ids=EXPIRED.keys())
def test_credentials_that_come_back(aws, error):
    aws.faults = [Fault(700, 850, error)]
    assert steps_of(watch(NAME)) == list(range(1, STEPS + 1))


def test_throttling_makes_it_slower_and_then_faster_again(aws):
    aws.faults = [Fault(600, 900, (400, "ThrottlingException"))]
    watch(NAME)
    before, during = aws.count("GetLogEvents", 400, 600), aws.count("GetLogEvents", 700, 900)
    assert during < before / 3 and aws.count("GetLogEvents", 1200, 1400) > before * 0.7


def test_new_credentials_are_taken_up(aws, monkeypatch, capsys):
    """What `aws sso login` or a new set of variables does: the session made before does not know of it."""

    def expire() -> None:
        aws.key = "second-key"

    aws.at = {500: expire, 800: lambda: monkeypatch.setenv("AWS_ACCESS_KEY_ID", "second-key")}
    assert steps_of(watch(NAME)) == list(range(1, STEPS + 1))
    assert capsys.readouterr().out.count("sign in again (`aws sso login` in a terminal)") == 1
    assert boto3.client("sagemaker").meta.region_name == REGION


@pytest.mark.parametrize("error", [(400, "ExpiredTokenException"), NoCredentialsError()])
def test_credentials_that_do_not_come_back(aws, error, monkeypatch):
    monkeypatch.setattr(live, "SIGN_IN_S", 120)  # each look takes a second of this test too
    aws.faults = [Fault(500, float("inf"), error)]
    with pytest.raises(
        SessionExpired,
        match=rf"(?s)aws sso login.*restart the Studio kernel.*watch\('{NAME}'\) again; the job goes on",
    ):
        watch(NAME)
    assert 480 < aws.now - PATIENCE_S < 650, "counted from the last answer"


def test_credentials_that_are_no_good_from_the_start_are_said_at_once(aws):
    aws.faults = [Fault(0, float("inf"), (400, "UnrecognizedClientException"))]
    with pytest.raises(SessionExpired):
        watch(NAME)
    assert aws.now < 5


def test_a_network_that_does_not_come_back(aws):
    aws.faults = [Fault(500, float("inf"), PASSING["no connection, no name"])]
    with pytest.raises(ConnectionLost, match=rf"while watching {NAME}; the job goes on.*Watch it again"):
        watch(NAME)
    assert 480 < aws.now - PATIENCE_S < 590, "counted from the last answer"


def test_a_region_without_an_answer_is_said_soon(aws):
    aws.faults = [Fault(0, float("inf"), PASSING["no connection, no name"])]
    with pytest.raises(ConnectionLost):
        watch(NAME)
    assert aws.now < 90


def test_an_error_that_does_not_pass_is_raised_at_once(aws):
    aws.faults = [Fault(0, float("inf"), (400, "AccessDeniedException"), "GetLogEvents")]
    with pytest.raises(boto3.client("logs").exceptions.ClientError, match="AccessDenied.*GetLogEvents"):
        watch(NAME)


def test_no_such_job_in_this_account_and_region(aws):
    for ask in (watch, training_job):
        with pytest.raises(JobNotFound, match=rf"no training job 'gone' in this account in {REGION}"):
            ask("gone")
    assert training_job(NAME).training_job_name == NAME, "asked in the session's region, not the settings'"


def test_a_spot_job_goes_on_in_streams_of_its_own(aws):
    """After an interruption there are new containers, and so new streams, found although each host had one."""
    aws.phases = [
        (0, "Starting"), (TRAINS, "Training"), (700, "Interrupted"), (720, "Starting"), (800, "Training"), (ENDS, "Completed"),
    ]  # fmt: skip
    aws.streams = {
        f"{NAME}/algo-1-1": (TRAINS + 10, lines(TRAINS, last=18)),
        f"{NAME}/algo-1-2": (810, lines(450, first=19, last=50)),
    }
    assert steps_of(watch(NAME)) == list(range(1, 51))


def test_a_second_host_that_comes_late(aws):
    aws.hosts = 2
    late = [(TRAINS + 90, "I am late")]
    aws.streams[f"{NAME}/algo-2-1"] = (TRAINS + 80, late)
    reader = LogReader(NAME, hosts=2)
    aws.now = TRAINS + 50
    assert all(line.startswith("[algo-1] ") for _, line in reader.new_events(everything=False))
    aws.now = TRAINS + 100
    assert "[algo-2] I am late" in [line for _, line in reader.new_events(everything=False)]
    listed = aws.count("DescribeLogStreams")
    aws.now += 30
    reader.new_events(everything=False)
    assert aws.count("DescribeLogStreams") == listed, "each host has its stream"


def test_lines_read_before_an_error_are_not_lost(aws):
    aws.streams[f"{NAME}/algo-2-1"] = (TRAINS, [(TRAINS + 45, "second")])
    reader, real, asked = LogReader(NAME), aws.GetLogEvents, []
    aws.now = TRAINS + 50

    def fail_at_the_second(body: dict):
        asked.append(body["logStreamName"])
        return (400, {"__type": "AccessDeniedException"}) if len(asked) == 2 else real(body)

    aws.GetLogEvents = fail_at_the_second
    with pytest.raises(reader.logs.exceptions.ClientError):
        reader.new_events(everything=False)
    assert [line for _, line in reader.new_events()] == [
        f"[algo-1] {lines(TRAINS + 20)[0][1]}",
        "[algo-2] second",
    ]


def test_a_job_that_waits_for_its_training_plan(aws, capsys):
    aws.phases = [
        (0, "Pending"),
        (500, "Starting"),
        (600, "SomethingNew"),
        (TRAINS + 400, "Training"),
        (ENDS, "Completed"),
    ]
    watch(NAME)
    shown = capsys.readouterr().out
    assert "The job is Pending" in shown and f"{NAME}: SomethingNew" in shown
