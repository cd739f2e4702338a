"""FilterLogEvents, which moto answers without the prefix of streams, and with all lines for most filter patterns.

https://docs.aws.amazon.com/AmazonCloudWatchLogs/latest/APIReference/API_FilterLogEvents.html
"""

import re
from collections.abc import Callable
from typing import Any

from moto.logs.exceptions import InvalidParameterException, ResourceNotFoundException
from moto.logs.models import LogGroup, LogsBackend, LogStream

from local_sagemaker.api.service_limits import service_model

NEWEST_FIRST_SINCE_MS = 1_704_067_200_000  # 2024-01-01: the earliest startTime with startFromHead false
# A term may be "quoted", and has - before it if it must not be there, ? if one of several must be.
_TERM = re.compile(r'\s*([-?]?)(?:"((?:[^"\\]|\\.)*)"|(\w+))(?=\s|$)')
_SYNTAX = "https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html"


def filter_log_events(backend: LogsBackend, request: dict[str, Any]) -> dict[str, Any]:
    """The answer to a request that is as its shape says: events of all chosen streams, in the order of time.

    Raises ResourceNotFoundException for a group or a stream that does not exist, InvalidParameterException for members
    that exclude each other, a token that is none, and a pattern that is none or of a kind not evaluated here.
    """
    group = _group(backend, request)
    streams = _streams(group, request)
    matches = compile_pattern(request.get("filterPattern", ""))
    start, end = request.get("startTime", 0), request.get("endTime", float("inf"))
    oldest_first, skipped = _position(request)
    events = [
        {**event.to_filter_dict(), "logStreamName": stream.log_stream_name}
        for stream in streams
        for event in tuple(stream.events)
        if start <= event.timestamp <= end and matches(event.message)
    ]
    events.sort(key=lambda event: (event["timestamp"], int(event["eventId"])), reverse=not oldest_first)
    shape = service_model("logs").operation_model("FilterLogEvents").input_shape
    last = skipped + request.get("limit", shape.members["limit"].metadata["max"])
    following = {"nextToken": f"{'f' if oldest_first else 'b'}/{last}"} if last < len(events) else {}
    # "As of May 15, 2020, this parameter is no longer supported. This parameter returns an empty list."
    return {"events": events[skipped:last], "searchedLogStreams": []} | following


def _group(backend: LogsBackend, request: dict[str, Any]) -> LogGroup:
    name, identifier = request.get("logGroupName"), request.get("logGroupIdentifier")
    if (name is None) == (identifier is None):
        raise InvalidParameterException("Give one of logGroupName and logGroupIdentifier, and not both")
    for group in backend.groups.values():
        if group.name in (name, identifier) or group.arn == identifier:
            return group
    raise ResourceNotFoundException()


def _streams(group: LogGroup, request: dict[str, Any]) -> list[LogStream]:
    names, prefix = request.get("logStreamNames"), request.get("logStreamNamePrefix")
    if names is not None and prefix is not None:
        raise InvalidParameterException(
            "Give one of logStreamNames and logStreamNamePrefix, or neither, but not both"
        )
    streams = dict(group.streams)
    for name in names or []:
        if name not in streams:
            raise ResourceNotFoundException(f"The specified log stream does not exist: {name}")
    if names is not None:
        return [streams[name] for name in dict.fromkeys(names)]
    return [stream for name, stream in streams.items() if name.startswith(prefix or "")]


def _position(request: dict[str, Any]) -> tuple[bool, int]:
    """Whether the oldest events come first, and how many were answered before: of the token, if there is one."""
    token = request.get("nextToken")
    if token is None:
        oldest_first = request.get("startFromHead", True)
        if not oldest_first and request.get("startTime", 0) < NEWEST_FIRST_SINCE_MS:
            raise InvalidParameterException("startFromHead false needs a startTime on or after 2024-01-01")
        return oldest_first, 0
    found = re.fullmatch(r"([fb])/(\d{1,9})", token)
    if found is None:
        raise InvalidParameterException(f"nextToken {token!r} is not the nextToken of an earlier answer")
    return found[1] == "f", int(found[2])


def compile_pattern(pattern: str) -> Callable[[str], bool]:
    """The filter pattern as a test of messages: terms, "phrases", -excluded and ?optional ones, or one %regex%.

    Raises InvalidParameterException for other text, and for the patterns of JSON and of fields, which AWS evaluates and
    this endpoint does not.
    """
    text = pattern.strip()
    if text.startswith(("{", "[")):
        raise InvalidParameterException(
            f"local_sagemaker does not evaluate filterPattern {text!r}: only terms, phrases and %regex% ({_SYNTAX})"
        )
    if len(text) > 1 and text[0] == text[-1] == "%":
        return _compile_regex(text[1:-1])
    terms, position = [], 0
    while position < len(text):
        found = _TERM.match(text, position)
        if found is None:
            raise InvalidParameterException(
                f"Invalid filterPattern at {text[position:]!r}: a term with other characters than letters, digits and _"
                f' must be in double quotes ("") ({_SYNTAX})'
            )
        phrase = found[3] or re.sub(r"\\(.)", r"\1", found[2])
        terms.append((found[1], phrase))
        position = found.end()
    optional = [term for sign, term in terms if sign == "?"]
    if 0 < len(optional) < len(terms):
        raise InvalidParameterException("A filterPattern cannot have terms with ? beside others")
    if optional:
        return lambda message: any(term in message for term in optional)
    return lambda message: all((term in message) == (sign != "-") for sign, term in terms)


def _compile_regex(regex: str) -> Callable[[str], bool]:
    try:
        if re.search(r"(?<!\\)[()]", regex):
            raise re.error("parentheses are not supported")
        return lambda message, search=re.compile(regex).search: search(message) is not None
    except re.error as error:
        raise InvalidParameterException(f"Invalid filterPattern %{regex}%: {error}") from error
