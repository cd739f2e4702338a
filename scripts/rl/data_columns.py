"""The columns of a source: which holds the question, which the answer, and what becomes of the others."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from rl.data_cells import BadRow, text_of, turns_of
from rl.data_files import SPLIT, Record
from rl.data_report import Drops
from rl.data_values import DataError, json_value
from rl.tasks import BOUND, FIELDS, TAKEN, Message

# Names under which people have these columns. The first is ours, and wins; of the others there must be one alone.
_NAMES = {
    "question": ("question", "prompt", "problem", "query", "instruction", "input"),
    "answer": (
        "answer",
        "solution",
        "final_answer",
        "expected_answer",
        "ground_truth",
        "target",
        "label",
        "output",
    ),
    "messages": ("messages", "conversations", "conversation"),
    "chosen": ("chosen", "chosen_response", "preferred"),
    "rejected": ("rejected", "rejected_response", "dispreferred"),
}
_NAMES["prompt"] = ("prompt", *_NAMES["question"], *_NAMES["messages"])
_CONTEXT = ("input", "context")  # columns that often are a part of the question
# Names that trainings pass to rewards or read themselves: a column of that name is kept as source_<name>.
_RESERVED = frozenset(
    [*FIELDS, *TAKEN, *BOUND, "chosen", "rejected", "tools", "completion", "image", "images"]
)


@dataclass
class Columns:
    """What rows and pairs share: the source's records, the choice of columns, what was dropped.

    Raises:
        DataError: a column to leave out is not there.
    """

    records: list[Record]
    system: str | None  # a system prompt to put before each question
    drop: Sequence[str]  # columns to leave out
    notes: list[str] = field(default_factory=list)
    drops: Drops = field(default_factory=Drops)

    def __post_init__(self) -> None:
        self.used: set[str | None] = set()
        self.kept: set[str] = set()
        for name in self.drop:
            self.column("drop", name)

    @cached_property
    def names(self) -> list[str]:
        """All columns, in the order in which they come up."""
        return list(dict.fromkeys(name for record in self.records for name in record.values))

    @cached_property
    def are_rows(self) -> bool:
        """Whether these are rows of this workshop already, as rl.tasks writes them."""
        return all(FIELDS.keys() <= record.values.keys() for record in self.records)

    def keep(self, *names: str) -> None:
        """These columns are the workshop's own, and stay what they are."""
        self.kept |= set(names)
        self.used |= self.kept
        self.notes.append(f"these are rows of this workshop: prompt, {', '.join(names)} are kept")

    def said(self, name: str, record: Record) -> str:
        """What stands in a column that is kept; "" if it is not, or is empty."""
        return text_of(record.values[name], f"{record.where}, column '{name}'") if name in self.kept else ""

    def known(self, role: str) -> list[str]:
        """The columns whose names say that they play this role, and that play none yet."""
        return [name for name in self.names if name.strip().lower() in _NAMES[role] and name not in self.used]

    def column(self, role: str, given: str | None, *, needed: bool = True) -> str | None:
        """The column that plays a role: the one that is given, else the one whose name says so. It is then used up."""
        there, where = ", ".join(self.names), self.records[0].where
        if given is not None:
            given = str(given)
            if given not in self.names:
                raise DataError(f"{where}: there is no column '{given}'; there are {there}.")
            self.used.add(given)
            return given
        known = self.known(role)
        found = [name for name in known if name == role] or known
        if not needed and not found:
            return None
        if len(found) != 1:
            which = f"may be {' or '.join(map(repr, found))}" if found else "is not known"
            both = f", or join several: {role}={found}" if found and role in ("question", "prompt") else ""
            raise DataError(
                f"{where}: which column holds the {role} {which}; there are {there}. Name it: {role}='...'{both}."
            )
        if found[0] != role:
            self.notes.append(f"the column '{found[0]}' is taken as the {role}")
        self.used.add(found[0])
        return found[0]

    def several(self, role: str, given: str | Sequence[str] | None, *, needed: bool = True) -> list[str]:
        """As `column`; there may be more than one."""
        if given is not None and not isinstance(given, list | tuple):
            given = [str(given)]
        found = [self.column(role, name, needed=needed) for name in given or [None]]
        return [name for name in found if name is not None]

    def turns(self, record: Record, names: list[str]) -> list[Message]:
        """What is asked: a text or a conversation in one column, or the texts of several, parted by a blank line."""
        where = f"{record.where}, column '{names[0]}'"
        if len(names) == 1:
            return turns_of(record.values.get(names[0]), where)
        texts = [text_of(record.values.get(name), f"{record.where}, column '{name}'") for name in names]
        return turns_of("\n\n".join(filter(None, texts)), where)

    def note_context(self, role: str, asked: list[str]) -> None:
        """Notes columns that look like a part of what is asked, and are not."""
        for name in self.names:
            texts = [record.values.get(name) for record in self.records]
            filled = sum(isinstance(text, str) and bool(text.strip()) for text in texts)
            if name.lower() in _CONTEXT and name not in self.used and filled:
                self.notes.append(
                    f"the column '{name}', filled in {filled:,} rows, looks like a part of the question, and is not in "
                    f"the prompt: {role}={[*asked, name]} joins them"
                )

    def note_splits(self) -> None:
        """Notes a column that says of which split a row is, if there are several: the rows are shuffled and cut anew."""
        for name in self.names:
            if name.strip().lower() != "split" or name in self.used:
                continue
            said = Counter(str(record.values.get(name)) for record in self.records)
            found = {split: count for split, count in said.items() if SPLIT.search(split.lower())}
            if len(found) > 1:
                counted = ", ".join(f"{count:,} {split}" for split, count in found.items())
                self.notes.append(
                    f"the column '{name}' names splits ({counted}), which are mixed: all rows are shuffled and cut anew. To keep "
                    f"them apart, give the rows of one at a time, with splits={{'{min(found)}': 1.0}} and so on"
                )

    def drop_bad(self, error: BadRow, skip: bool) -> None:
        """Counts a row that cannot be used; raises its error if such rows are not to be left out."""
        if not skip:
            raise error
        self.drops.add(error.reason, error.where)

    def kept_names(self) -> dict[str, str]:
        """The columns that nobody has used, each with a name that no trainer uses itself and no other column has."""
        own = [name for name in self.names if name not in self.used]
        kept = {name: name for name in own if name not in _RESERVED}
        for name in own:
            free, number = f"source_{name}", 2
            while name not in kept and free in kept.values():
                free, number = f"source_{name}_{number}", number + 1
            kept.setdefault(name, free)
        return {name: kept[name] for name in own}

    def kept_values(self, record: Record) -> dict[str, Any]:
        """What is no part of a row."""
        return {
            kept: json_value(record.values[name], f"{record.where}, column '{name}'")
            for name, kept in self.kept_names().items()
            if name in record.values
        }

    def all_notes(self, *, texts: bool = False) -> list[str]:
        """The notes, and at last which columns are kept; `texts`: the source has nothing else."""
        kept = [name if name == new else f"{name} (as {new})" for name, new in self.kept_names().items()]
        said = f"columns kept beside the rows: {', '.join(kept)}{' (texts)' if texts else ''}"
        return [*self.notes, said] if kept else self.notes

    def with_system(self, turns: list[Message], where: str) -> list[Message]:
        """The turns with the system prompt before them; one that they bring stays, and comes first."""
        if not turns or turns[-1]["role"] not in ("user", "tool"):
            raise BadRow(
                where, "no question before the answer", "A conversation must end with the user's turn"
            )
        if not self.system:
            return turns
        own = [turn["content"] for turn in turns[:1] if turn["role"] == "system"]
        return [Message(role="system", content="\n\n".join([*own, self.system])), *turns[len(own) :]]
