"""FilterLogEvents over moto's own log groups, without an endpoint."""

import threading
import time
from types import SimpleNamespace

import pytest
from local_sagemaker.api.log_events import compile_pattern, filter_log_events
from local_sagemaker.jobs.logs import HostLog
from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.logs.models import LogsBackend

GROUP = "/aws/sagemaker/TrainingJobs"
LINES = {  # stream -> (milliseconds, line)
    "one/algo-1-5": [(1000, "loss=0.5"), (3000, "loss=0.3")],
    "one/algo-2-5": [(2000, "loss=0.4")],
    "other/algo-1-9": [(1500, "ERROR here"), (4000, "done")],
}


@pytest.fixture
def backend() -> LogsBackend:
    made = LogsBackend("us-east-1", "123456789012")
    made.create_log_group(GROUP, {})
    for stream, lines in LINES.items():
        made.create_log_stream(GROUP, stream)
        made.groups[GROUP].streams[stream].put_log_events(
            [{"timestamp": moment, "message": line} for moment, line in lines]
        )
    return made


@pytest.fixture
def events(backend):
    """events(**request): (time, line) of all events that the request answers."""

    def ask(**request: object) -> list[tuple[int, str]]:
        answer = filter_log_events(backend, {"logGroupName": GROUP, **request})
        assert answer["searchedLogStreams"] == []
        return [(event["timestamp"], event["message"]) for event in answer["events"]]

    return ask


def test_no_line_is_lost_while_another_thread_sends(tmp_path):
    sent: list[str] = []

    def put_log_events(logEvents: list[dict], **_: str) -> None:
        events = list(logEvents)
        time.sleep(0.001)  # the other thread writes in it
        sent.extend(event["message"] for event in events)

    nothing = dict.fromkeys(("create_log_group", "create_log_stream"), lambda **_: None)
    exceptions = SimpleNamespace(ResourceAlreadyExistsException=RuntimeError)
    logs = SimpleNamespace(put_log_events=put_log_events, exceptions=exceptions, **nothing)
    log = HostLog(logs, "s", tmp_path / "algo-1.log", lambda line: None)

    def write(name: str) -> None:
        for number in range(200):
            log.write(f"{name}{number}")
            log.flush()

    threads = [threading.Thread(target=write, args=name) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    lines = [f"{name}{number}" for name in "ab" for number in range(200)]
    assert sorted(sent) == sorted((tmp_path / "algo-1.log").read_text().splitlines()) == sorted(lines)


def test_only_streams_of_the_prefix_interleaved_in_the_order_of_time(events):
    assert events(logStreamNamePrefix="one/") == [(1000, "loss=0.5"), (2000, "loss=0.4"), (3000, "loss=0.3")]
    assert events(logStreamNamePrefix="two/") == []
    assert events(logStreamNames=["other/algo-1-9", "one/algo-2-5"]) == [
        (1500, "ERROR here"),
        (2000, "loss=0.4"),
        (4000, "done"),
    ]
    assert len(events()) == 5


def test_start_and_end_belong_to_the_range(events):
    assert [moment for moment, _ in events(startTime=1500, endTime=3000)] == [1500, 2000, 3000]
    assert events(endTime=999) == []


def test_pages(backend):
    pages, token = [], {}
    while token is not None:
        answer = filter_log_events(backend, {"logGroupName": GROUP, "limit": 2, **token})
        pages.append([event["timestamp"] for event in answer["events"]])
        token = {"nextToken": answer["nextToken"]} if "nextToken" in answer else None
    assert pages == [[1000, 1500], [2000, 3000], [4000]]


def test_the_newest_first_on_all_pages(backend):
    """With the token alone, which keeps the direction; times are milliseconds of 2024."""
    base = 1_704_067_200_000
    lines = [{"timestamp": base + step, "message": str(step)} for step in range(3)]
    backend.groups[GROUP].streams["one/algo-2-5"].put_log_events(lines)
    request = {"logGroupName": GROUP, "startTime": base, "limit": 2}
    first = filter_log_events(backend, {**request, "startFromHead": False})
    second = filter_log_events(backend, {**request, "nextToken": first["nextToken"]})
    assert [event["message"] for event in first["events"] + second["events"]] == ["2", "1", "0"]


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        (
            {"logStreamNames": ["one/algo-2-5"], "logStreamNamePrefix": "one"},
            InvalidParameterException,
            "not both",
        ),
        ({"logStreamNames": ["nobody"]}, ResourceNotFoundException, "log stream does not exist: nobody"),
        ({"logGroupIdentifier": GROUP}, InvalidParameterException, "not both"),
        ({"logGroupName": "/no/such/group"}, ResourceNotFoundException, "log group does not exist"),
        ({"nextToken": "tomorrow"}, InvalidParameterException, "'tomorrow' is not the nextToken"),
        ({"startFromHead": False}, InvalidParameterException, "2024-01-01"),
        ({"filterPattern": "{ $.a = 1 }"}, InvalidParameterException, "does not evaluate"),
    ],
)
def test_what_excludes_itself_or_is_not_there(backend, request_, error, words):
    with pytest.raises(error) as caught:
        filter_log_events(backend, {"logGroupName": GROUP, **request_})
    assert words in caught.value.description


def test_a_group_by_its_name_or_arn_as_an_identifier(backend):
    for identifier in (GROUP, backend.groups[GROUP].arn):
        assert len(filter_log_events(backend, {"logGroupIdentifier": identifier})["events"]) == 5


@pytest.mark.parametrize(
    ("pattern", "message", "matches"),
    [
        ("", "anything", True),
        ("ERROR", "an ERROR here", True),
        ("ERROR", "an error here", False),
        ("ERROR Exception", "[ERROR] UnhandledException", True),
        ("ERROR Exception", "[ERROR] only", False),
        ('"loss=0.5"', "loss=0.5 reward=1", True),
        ('"loss 5"', "loss=5", False),
        (r'"say \"hi\""', 'they say "hi"', True),
        ('ERROR -"Exiting"', "ERROR of ours", True),
        ("ERROR -Exiting", "Exiting with ERRORCODE: -1", False),
        ("?ERROR ?WARN", "WARN message", True),
        ("?ERROR ?WARN", "fine", False),
        ("%loss=0\\.[0-4]%", "loss=0.3", True),
        ("%loss=0\\.[0-4]%", "loss=0.7", False),
    ],
)
def test_patterns(pattern, message, matches):
    assert compile_pattern(pattern)(message) is matches


@pytest.mark.parametrize(
    ("pattern", "words"),
    [
        ("loss=", "in double quotes"),
        ('"open', "in double quotes"),
        ("[a, b]", "does not evaluate"),
        ("?ERROR WARN", "beside others"),
        ("%[a%", "Invalid filterPattern"),
        ("%(a)%", "parentheses"),
    ],
)
def test_patterns_that_are_none(pattern, words):
    with pytest.raises(InvalidParameterException) as caught:
        compile_pattern(pattern)
    assert words in caught.value.description
