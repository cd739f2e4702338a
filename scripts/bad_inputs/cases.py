"""What a bad input is: what a user changes in a sound job of one module, in plain values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Rows = list[dict[str, Any]]
Spoil = Callable[[Path], None]  # of a folder that is a copy


@dataclass(frozen=True)
class Case:
    """One bad input.

    Attributes:
        module: "02", say.
        topic: recipe, data, reward, model, request or source.
        bad: what is bad about it, for the table.
        settings: hyperparameters; of module 05, keys of verl (overrides).
        files: written into the source that the job would be sent, by path.
        train: what the channel train holds: a file name and its content, made of the sound rows.
        test: likewise of the channel test.
        model: spoils a copy of the tiny model, which the recipe then names.
        source: spoils the source.
        request: fields of the SDK's Compute (or StoppingCondition, or the name of the job) that are set.
        script: the entry script.
        right: why it is right that the job completes, where it does.
    """

    module: str
    topic: str
    bad: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str | bytes] = field(default_factory=dict)
    train: tuple[str, Callable[[Rows], bytes]] | None = None
    test: tuple[str, Callable[[Rows], bytes]] | None = None
    model: Spoil | None = None
    source: Spoil | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    script: str = "train.py"
    right: str = ""

    @property
    def name(self) -> str:
        return f"{self.module} {self.topic}: {self.bad}"


@dataclass(frozen=True)
class Tried:
    """What became of a case: where it was refused (one of OUTCOMES, or what should not be), and in which words."""

    case: Case
    outcome: str
    words: str
    seconds: float


SOUND = "nothing"  # is bad: what the other cases of a script are changes of
PASSED = "nothing said before a job"  # what becomes of it there is still to be tried
BEFORE, IN_JOB, COMPLETED = OUTCOMES = ("refused before a job", "refused in the job", "completed")
