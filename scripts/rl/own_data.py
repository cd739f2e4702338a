"""Data of one's own as rows and pairs that every trainer of this workshop reads.

    splits, report = rows_from("capitals.csv", question="country", answer="capital", verifier="text")
    folders = write_splits(splits, "build/data/capitals")          # rl.tasks; each can be uploaded as a channel

What it does, in this order: rows are read (rl.data_files), duplicates dropped (compared as rl.data_values.normalised
does, so that no question is in two splits in another spelling), shuffled with the seed, and cut into splits. Columns that
are no part of a row stay beside it and reach rewards of one's own as keyword arguments; the cells of a CSV are texts.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rl.data_cells import BadRow, parted, question_of, reduced, text_of, turns_of
from rl.data_files import Record, read_records
from rl.data_report import DataReport, Drops, Lengths, shortened
from rl.data_splits import Draft, Sizes, cut_splits, without_duplicates
from rl.data_values import DataError, json_value
from rl.tasks import FIELDS, Message, Row
from rl.templates import render
from rl.verifiers import get_verifier, usable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rl.preferences import Pair

SPLITS: Sizes = {"train": 0.9, "test": 0.1}

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
    "messages": ("messages",),
    "prompt": ("prompt", "question", "problem", "query", "instruction", "input", "messages"),
    "chosen": ("chosen", "chosen_response", "preferred"),
    "rejected": ("rejected", "rejected_response", "dispreferred"),
}
# Names that trainers pass to rewards or read themselves: a column of that name is kept as source_<name>.
_RESERVED = frozenset(
    [
        *(*FIELDS, "chosen", "rejected", "tools", "completion", "completions", "completion_ids", "prompts"),
        *("image", "images", "trainer_state", "log_extra", "log_metric", "environments"),
        *("max_completion_length", "opening", "verifier"),
    ]
)


def _free_name(name: str) -> str:
    return f"source_{name}" if name in _RESERVED else name


@dataclass
class _Reader:
    """What both kinds of data share: the source's records, the choice of columns, what was dropped."""

    records: list[Record]
    system: str | None
    drop: Sequence[str]  # columns to leave out
    notes: list[str] = field(default_factory=list)
    drops: Drops = field(default_factory=Drops)

    def __post_init__(self) -> None:
        self.used: set[str | None] = set()
        for name in self.drop:
            self.column("drop", name)

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys(name for record in self.records for name in record.values))

    def column(self, role: str, given: str | None, *, needed: bool = True) -> str | None:
        """The column that plays a role: the one that is given, else the one whose name says so. It is then used up."""
        there = self.columns
        if given is not None and given not in there:
            raise DataError(
                f"{self.records[0].where}: there is no column '{given}'; there are {', '.join(there)}."
            )
        known = [given] if given else [name for name in there if name.strip().lower() in _NAMES[role]]
        exact = [name for name in known if name in (role, given)]
        found = exact or known
        if not needed and not found:
            return None
        if len(found) != 1:
            which = f"may be {' or '.join(map(repr, found))}" if found else "is not known"
            raise DataError(
                f"{self.records[0].where}: which column holds the {role} {which}; there are {', '.join(there)}. "
                f"Name it: {role}='...'."
            )
        if not exact:
            self.notes.append(f"the column '{found[0]}' is taken as the {role}")
        self.used.add(found[0])
        return found[0]

    def drop_bad(self, error: BadRow, skip: bool) -> None:
        if not skip:
            raise error
        self.drops.add(error.reason, error.where)

    def own_columns(self, record: Record) -> dict[str, Any]:
        """What is no part of a row, under a name that no trainer uses itself."""
        left = {name: value for name, value in record.values.items() if name not in self.used}
        return {
            _free_name(name): json_value(value, f"{record.where}, column '{name}'")
            for name, value in left.items()
        }

    def all_notes(self) -> list[str]:
        own = [name for name in self.columns if name not in self.used]
        kept = [name if name == _free_name(name) else f"{name} (as {_free_name(name)})" for name in own]
        return [*self.notes, f"columns kept beside the rows: {', '.join(kept)}"] if kept else self.notes

    def prompt(self, turns: list[Message], where: str) -> list[Message]:
        """The turns with the system prompt before them; one that they bring stays, and comes first."""
        if not turns or turns[-1]["role"] not in ("user", "tool"):
            raise BadRow(
                where, "no question before the answer", "A conversation must end with the user's turn"
            )
        if not self.system:
            return turns
        own = [turn["content"] for turn in turns[:1] if turn["role"] == "system"]
        return [Message(role="system", content="\n\n".join([*own, self.system])), *turns[len(own) :]]


def rows_from(
    source: Any,
    *,
    question: str | None = None,
    answer: str | None = None,
    messages: str | None = None,
    system: str | None = None,
    splits: Sizes = SPLITS,
    seed: int = 42,
    task: str = "own",
    verifier: str = "number",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    drop: Sequence[str] = (),
    skip_bad: bool = False,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> tuple[dict[str, list[Row]], DataReport]:
    """Problems of one's own: questions with answers that a verifier can check.

    Args:
        source: a file (.csv, .tsv, .json, .jsonl, each also .gz, .parquet), a folder of such files of one kind, a
            `datasets.Dataset`, a DataFrame, or a list of dicts.
        question, answer: the columns' names, where they do not say it themselves. A question is a text or a list of
            messages. Solutions that end as GSM8K's do ("... #### 1,234") are reduced to the answer (1234).
        messages: instead of `question`, a column of whole conversations: the last assistant message is the answer,
            unless there is a column `answer`.
        system: a system prompt to put before each question, such as rl.tasks.FORMAT_INSTRUCTIONS.
        splits: rows in each ({"train": 2000, "test": 300}), or the shares of all ({"train": 0.9, "test": 0.1}).
        verifier: the recipe's; answers that it cannot use are reported, and kept.
        tokenizer: the model's, for the prompts' lengths in its tokens; without it they are in characters.
        drop: columns to leave out.
        skip_bad: rows with an empty question or answer are dropped and counted, and not refused.
        encoding, delimiter: of text files, where they are not UTF-8, and not parted by commas.

    Returns:
        The splits, for rl.tasks.write_splits, and a report to print.

    Raises:
        DataError: what cannot be read, by file, line, field and what to do; or too few rows for the splits.
        VerifierError: there is no such verifier.
    """
    reader = _Reader(read_records(source, encoding=encoding, delimiter=delimiter), system, drop)
    verdict = get_verifier(verifier)
    if messages:
        asked, needed = reader.column("messages", messages), False
    elif asked := reader.column("question", question, needed="messages" not in reader.columns):
        needed = True
    else:
        asked, needed = reader.column("messages", "messages"), False
    known = reader.column("answer", answer) if needed or answer or "answer" in reader.columns else None
    drafts, shortened_answers = [], 0
    for index, record in enumerate(reader.records):
        try:
            turns = turns_of(record.values.get(asked), f"{record.where}, column '{asked}'")
            last = turns.pop()["content"] if turns[-1]["role"] == "assistant" else ""
            where = f"{record.where}, column '{known or asked}'"
            full = text_of(record.values.get(known) if known else last, where)
            if not full:
                raise BadRow(where, "no answer", "Give it one")
            prompt = reader.prompt(turns, record.where)
        except BadRow as error:
            reader.drop_bad(error, skip_bad)
            continue
        gold = reduced(full)
        shortened_answers += gold != full
        row = {
            "prompt": prompt,
            "question": question_of(turns),
            "answer": gold,
            "task": task,
            "split": "",
            "index": index,
        }
        drafts.append(Draft(record.where, row, reader.own_columns(record)))
    if shortened_answers:
        reader.notes.append(
            f"{shortened_answers:,} solutions that end in '#### ...' are reduced to what stands there"
        )
    cut = cut_splits(without_duplicates(drafts, reader.drops), splits, seed, reader.drops)
    golds = [row["answer"] for rows in cut.values() for row in rows]
    usable_golds = {gold: usable(verdict, gold) for gold in set(golds)}
    unusable = [gold for gold in golds if not usable_golds[gold]]
    report = DataReport(
        **_common(reader, source, cut, tokenizer, chat_template_kwargs),
        verifier=verifier,
        unusable=len(unusable),
        unusable_examples=[shortened(gold) for gold in list(dict.fromkeys(unusable))[:3]],
    )
    return cast(dict[str, list[Row]], cut), report


def pairs_from(
    source: Any,
    *,
    prompt: str | None = None,
    chosen: str | None = None,
    rejected: str | None = None,
    answer: str | None = None,
    system: str | None = None,
    splits: Sizes = SPLITS,
    seed: int = 42,
    task: str = "own",
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    drop: Sequence[str] = (),
    skip_bad: bool = False,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> tuple[dict[str, list["Pair"]], DataReport]:
    """Preference pairs of one's own. All pairs of one question come into the same split.

    Args:
        prompt, chosen, rejected: the columns' names, where they do not say it themselves: texts, or lists of messages.
            What `chosen` and `rejected` begin with in common is prompt (then there need be no such column): whole
            messages, the turns of "Human: ... Assistant: ..." texts, or the words of other texts.
        answer: a column with the known answer; without it the row's is the chosen one.
        skip_bad: pairs with an empty prompt or answer, or with two answers that are the same, are dropped and
            counted, and not refused.

    The other arguments, what is returned and raised: as in `rows_from`.
    """
    reader = _Reader(read_records(source, encoding=encoding, delimiter=delimiter), system, drop)
    better, worse = reader.column("chosen", chosen), reader.column("rejected", rejected)
    asked = reader.column("prompt", prompt, needed=False)
    known = reader.column("answer", answer) if answer else None
    reader.used |= {"tools"}
    drafts = []
    for index, record in enumerate(reader.records):
        cells = record.values
        try:
            turns = turns_of(cells.get(asked), f"{record.where}, column '{asked}'") if asked else []
            turns, right, wrong = parted(turns, cells.get(better), cells.get(worse), record.where)
            whole = reader.prompt(turns, record.where)
        except BadRow as error:
            reader.drop_bad(error, skip_bad)
            continue
        gold = reduced(text_of(cells.get(known), record.where)) if known else ""
        row: dict[str, Any] = {
            "prompt": whole,
            "question": question_of(turns),
            "answer": gold or _last_text(right),
        }
        row |= {"task": task, "split": "", "index": index, "chosen": right, "rejected": wrong}
        if tools := json_value(cells.get("tools"), f"{record.where}, column 'tools'"):
            row["tools"] = tools if isinstance(tools, str) else json.dumps(tools)
        drafts.append(Draft(record.where, row, reader.own_columns(record)))
    cut = cut_splits(without_duplicates(drafts, reader.drops), splits, seed, reader.drops)
    report = DataReport(**_common(reader, source, cut, tokenizer, chat_template_kwargs))
    return cast(dict[str, list["Pair"]], cut), report


def _last_text(answer: list[Message]) -> str:
    return answer[-1]["content"] or json.dumps(answer[-1].get("tool_calls"))


def _common(
    reader: _Reader,
    source: Any,
    cut: dict[str, list[dict[str, Any]]],
    tokenizer: "PreTrainedTokenizerBase | None",
    chat_template_kwargs: Mapping[str, Any] | None,
) -> dict[str, Any]:
    """What the reports of rows and of pairs have in common."""
    rows = [row for part in cut.values() for row in part]
    if tokenizer is None:
        lengths = Lengths.of(
            [sum(len(turn["content"]) for turn in row["prompt"]) for row in rows], "characters"
        )
    else:
        try:
            prompts = [_rendered(row, tokenizer, chat_template_kwargs) for row in rows]
        except Exception as error:  # a template may raise anything
            raise DataError(f"The tokenizer's chat template cannot render these prompts: {error}") from error
        tokens = tokenizer(prompts, add_special_tokens=False)["input_ids"]  # the template writes them
        lengths = Lengths.of([len(ids) for ids in tokens], "tokens")
    return {
        "source": str(source) if isinstance(source, str | Path) else f"a {type(source).__name__}",
        "read": len(reader.records),
        "kept": {split: len(part) for split, part in cut.items()},
        "lengths": lengths,
        "dropped": reader.drops.all,
        "notes": reader.all_notes(),
    }


def _rendered(row: dict[str, Any], tokenizer: Any, chat_template_kwargs: Mapping[str, Any] | None) -> str:
    tools = json.loads(row["tools"]) if row.get("tools") else None
    return render(tokenizer, row["prompt"], chat_template_kwargs=chat_template_kwargs, tools=tools)
