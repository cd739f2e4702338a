"""How often AWS is asked about a watched job: its limits are for a whole account, which a workshop shares.

Default limits of one account in one region (https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/
cloudwatch_limits_cwl.html, read 2026-11):

- GetLogEvents: 10 calls a second in us-west-2, eu-west-1, eu-central-1 and some smaller regions, 25 or more in the
  others; it cannot be raised.
- DescribeLogStreams: 25 calls a second.
- DescribeTrainingJob: not published. ListTrainingJobs has 2 a second, which cannot be raised
  (https://github.com/aws-solutions/deepracer-on-aws/issues/87, 2026-08), so descriptions are asked for seldom.

The arithmetic, which `calls_per_second` does: forty people who watch jobs that train ask for 8 pages of logs, 2.7
descriptions and 0.7 lists of streams a second, whether their jobs have one host or four.
"""

import random

LOCAL_S = 2.0  # an endpoint on this machine has no limits
LOG_S = 5.0  # between two looks at the log, for each of a job's hosts
DESCRIBE_S = 15.0  # between two descriptions while it trains; it ends that much later for the one who watches
STARTING_S = 10.0  # between two descriptions before it trains, when there is no log to read
STREAMS_S = 60.0  # between two lists of log streams once each host has one: a spot job gets new ones
_JITTER = 0.2  # as a share: people who start together should not go on together
_SLOWEST = 8.0  # times as slow, at most


def calls_per_second(people: int, hosts: int = 1) -> dict[str, float]:
    """Calls of each operation a second, when so many people watch jobs of so many hosts that train."""
    return {
        "GetLogEvents": people * hosts / (LOG_S * hosts),
        "DescribeTrainingJob": people / max(DESCRIBE_S, LOG_S * hosts),
        "DescribeLogStreams": people / max(STREAMS_S, LOG_S * hosts),
    }


class Pace:
    """The pace of one watch: fixed where `refresh` (seconds) is given or the endpoint is local, else as above."""

    def __init__(self, local: bool, refresh: float | None = None) -> None:
        self._fixed = refresh if refresh is not None else (LOCAL_S if local else None)
        self._slower = 1.0
        self._described: float | None = None  # when

    def pause_s(self, hosts: int, training: bool) -> float:
        """Seconds until the next look at a job with so many hosts."""
        if self._fixed is not None:
            return self._fixed
        between = LOG_S * hosts if training else STARTING_S
        return between * self._slower * random.uniform(1 - _JITTER, 1 + _JITTER)

    def description_due(self, now: float, training: bool) -> bool:
        """Whether to ask for a description at `now` (seconds of a clock that never goes back)."""
        if self._fixed is not None or not training or self._described is None:
            return True
        return now - self._described >= DESCRIBE_S * self._slower

    def described(self, now: float) -> None:
        """There was a description at `now`."""
        self._described = now

    def slow_down(self) -> None:
        """AWS said that it is asked too often."""
        self._slower = min(self._slower * 2, _SLOWEST)

    def speed_up(self) -> None:
        """AWS answered."""
        self._slower = max(self._slower * 0.75, 1.0)
