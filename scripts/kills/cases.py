"""What is killed, when, and what must follow: the list of scripts/try_kills.py."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Moments of a job of six steps with a checkpoint after each second one.
BEFORE_STEPS = "before the first step"
BEFORE_SAVES = "before the first checkpoint"
BETWEEN = "once the first checkpoint is in S3"
IN_SAVE = "in the middle of the last checkpoint"
ROTATING = "once an older checkpoint is deleted for the last"
EVALUATING = "in the evaluation after the last step"
SAVING_MODEL = "as the trained model is saved"
# The step from which the job that follows must at least go on.
FROM = {BEFORE_STEPS: 0, BEFORE_SAVES: 0, BETWEEN: 2, IN_SAVE: 4, ROTATING: 6, EVALUATING: 6, SAVING_MODEL: 6}

# Who is killed. A job's processes are, from the outside in: the endpoint, the host's supervisor, the SDK's driver, the
# launcher (torchrun, accelerate, Ray), and the processes of the script.
MAIN, OTHER, LAUNCHER, DRIVER = "process 0", "process 1", "the launcher", "the driver"
HOST, ENDPOINT = "the host's supervisor", "the endpoint"
# Not by a signal, but by the service.
RECLAIM, STOP = "a spot interruption", "StopTrainingJob"


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        module: "02", say.
        when: one of the moments above.
        whom: one of those above.
        signal: that it gets, KILL or TERM.
        says: what the FailureReason must match (a regular expression).
        settings: of the job besides those that all have.
    """

    module: str
    when: str
    whom: str
    signal: str = "KILL"
    says: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def what(self) -> str:
        """For the table."""
        return self.whom if self.whom in (RECLAIM, STOP) else f"SIG{self.signal} to {self.whom}"

    def matches(self, said: str) -> bool:
        """Whether status and FailureReason are what they should be."""
        return said.startswith("Stopped" if self.whom == STOP else "Failed") and bool(
            re.search(self.says, said)
        )

    @property
    def name(self) -> str:
        return f"{self.module} {self.what} {self.when}"


@dataclass(frozen=True)
class Tried:
    """What came of a kill.

    Attributes:
        ended_s: seconds from the kill to the job's end.
        said: status and FailureReason, in one line.
        went_on: the checkpoint that the job which followed went on from; "" if it began anew.
        faults: what did not hold, in words; none is the good end.
        seconds: all of it, the job that followed included.
    """

    ended_s: float
    said: str
    went_on: str
    faults: list[str]
    seconds: float


_KILLED = r"SIGKILL ended (the script|(a )?process)"
KILLS = [
    Kill("01", BEFORE_SAVES, OTHER, says=_KILLED),
    Kill("01", IN_SAVE, MAIN, says=_KILLED),
    Kill("01", BETWEEN, LAUNCHER, says="SIGKILL ended"),
    Kill("01", EVALUATING, RECLAIM),
    Kill("02", BEFORE_STEPS, MAIN, says=_KILLED),
    Kill("02", BETWEEN, ENDPOINT, says="The endpoint ended while the job ran: it was killed"),
    Kill("02", BETWEEN, LAUNCHER, "TERM", says="SIGTERM"),
    Kill("02", IN_SAVE, OTHER, says=_KILLED),
    Kill("02", ROTATING, MAIN, says=_KILLED, settings={"save_total_limit": 1}),
    Kill("02", SAVING_MODEL, STOP),
    Kill("03", BEFORE_SAVES, HOST, says="supervisor|SIGKILL ended"),
    Kill("03", IN_SAVE, OTHER, says=_KILLED),
    Kill("03", BETWEEN, RECLAIM),
    Kill("03", BETWEEN, OTHER, "TERM", says="SIGTERM"),
    Kill("03", EVALUATING, MAIN, says=_KILLED),
    Kill("04", BEFORE_SAVES, STOP),
    Kill("04", IN_SAVE, MAIN, says=_KILLED),
    Kill("04", BETWEEN, DRIVER, says="SIGKILL ended"),
    Kill("04", SAVING_MODEL, MAIN, "TERM", says="SIGTERM"),
    Kill("05", IN_SAVE, OTHER, says="ProcessLost"),
    Kill("05", BETWEEN, ENDPOINT, says="The endpoint ended while the job ran: it was killed"),
    Kill("05", EVALUATING, RECLAIM),
]
