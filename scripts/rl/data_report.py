"""What became of data of one's own: how much was kept, what was dropped and why, which answers nobody can reach."""

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Dropped:
    """Rows left out for one reason, and where the first of them stands."""

    reason: str
    count: int
    example: str


class Drops:
    """Collects what is left out, by reason."""

    def __init__(self) -> None:
        self._by_reason: dict[str, Dropped] = {}

    def add(self, reason: str, example: str, count: int = 1) -> None:
        """Counts rows; the first example of a reason is kept."""
        self._by_reason.setdefault(reason, Dropped(reason, 0, example)).count += count

    @property
    def all(self) -> list[Dropped]:
        """In the order in which the reasons came up."""
        return list(self._by_reason.values())


@dataclass(frozen=True)
class Lengths:
    """Lengths of the prompts, as the model gets them."""

    unit: str  # tokens, or characters where no tokenizer was given
    median: int
    p95: int
    longest: int

    @classmethod
    def of(cls, lengths: Sequence[int], unit: str) -> "Lengths":
        """Of at least one length: the median, the least length that 95 % do not exceed, the longest."""
        ordered = sorted(lengths)
        at = [ordered[math.ceil(share * len(ordered)) - 1] for share in (0.5, 0.95, 1.0)]
        return cls(unit, *at)

    def __str__(self) -> str:
        return f"median {self.median:,} {self.unit}, 95 % at most {self.p95:,}, longest {self.longest:,}"


@dataclass(frozen=True)
class DataReport:
    """The report of rl.own_data.rows_from and pairs_from; prints as a few lines, in a notebook as a table."""

    source: str
    read: int  # rows of the source
    kept: dict[str, int]  # rows of each split
    lengths: Lengths
    dropped: list[Dropped] = field(default_factory=list)
    verifier: str | None = None  # None: pairs without answers to check
    unusable: int = 0  # kept rows whose answer the verifier does not take as an answer to itself
    unusable_examples: list[str] = field(default_factory=list)  # at most three
    notes: list[str] = field(default_factory=list)

    def lines(self) -> list[tuple[str, str]]:
        """What it says, as (about, text)."""
        kept = ", ".join(f"{count:,} {split}" for split, count in self.kept.items())
        lines = [("read", f"{self.read:,} rows of {self.source}"), ("kept", kept)]
        lines += [("dropped", f"{item.count:,}: {item.reason} ({item.example})") for item in self.dropped]
        if self.unusable:
            examples = ", ".join(map(repr, self.unusable_examples))
            lines.append(
                (
                    "answers",
                    f"{self.unusable:,} cannot be reached with the verifier '{self.verifier}', such as {examples}: choose "
                    "another verifier, or mend them",
                )
            )
        elif self.verifier:
            lines.append(("answers", f"the verifier '{self.verifier}' can use all of them"))
        lines.append(("prompts", str(self.lengths)))
        return lines + [("note", note) for note in self.notes]

    def __str__(self) -> str:
        return "\n".join(f"{name:<8} {text}" for name, text in self.lines())

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        rows = "".join(
            f"<tr><td {left}><b>{name}</b></td><td {left}>{html.escape(text)}</td></tr>"
            for name, text in self.lines()
        )
        return f"<table><tbody>{rows}</tbody></table>"


def shortened(text: str, length: int = 60) -> str:
    """A text in one line, cut where it is longer."""
    text = " ".join(text.split())
    return text if len(text) <= length else text[: length - 3] + "..."
