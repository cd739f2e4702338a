"""Data of one's own as rows and pairs that every trainer of this workshop reads.

    splits, report = rows_from("capitals.csv", question="country", answer="capital", verifier="text")
    folders = write_splits(splits, "build/data/capitals")          # rl.tasks; each can be uploaded as a channel

What it does, in this order: rows are read (rl.data_files), duplicates dropped (compared as rl.data_values.normalised
does, so that no question is in two splits in another spelling), shuffled with the seed, and cut into splits. Columns that
are no part of a row stay beside it and reach rewards of one's own as keyword arguments; the cells of a CSV are texts.
Solutions are reduced to the answer in them (rl.data_golds), and the report says so.
"""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from rl.data_cells import (
    BadRow,
    answer_turns,
    common_words,
    conversation,
    one_answer,
    question_of,
    text_of,
    without_prompt,
)
from rl.data_choices import check_places, choice_of, options_hint, options_of, with_options
from rl.data_columns import Columns
from rl.data_files import are_texts, read_records
from rl.data_golds import REDUCED, reduced
from rl.data_report import DataReport, Lengths, shortened
from rl.data_splits import Draft, Sizes, cut_splits, without_duplicates
from rl.data_values import DataError, json_value
from rl.preferences import SIDES, NoPair, Pair, normal_form
from rl.tasks import Message, Row
from rl.templates import render
from rl.verifiers import VERIFIERS, get_verifier, usable

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SPLITS: Sizes = {"train": 0.9, "test": 0.1}
COMMON = "common"  # pairs_from(prompt=...): what both texts begin with


def rows_from(
    source: Any,
    *,
    question: str | Sequence[str] | None = None,
    answer: str | None = None,
    messages: str | None = None,
    choices: str | Sequence[str] | None = None,
    system: str | None = None,
    splits: Sizes = SPLITS,
    seed: int = 42,
    task: str | None = None,
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
            `datasets.Dataset`, a DataFrame, or a list of dicts. Rows of this workshop keep their prompt and task.
        question, answer: the columns' names, where they do not say it themselves. A question is a text or a list of
            messages; several columns (["instruction", "input"]) are joined by a blank line. Solutions are reduced to
            their answer (rl.data_golds).
        messages: instead of `question`, a column of whole conversations: the last assistant message is the answer,
            unless there is a column for it.
        choices: a column with a list of options, or the names of a column for each: they are written under the question
            as "(A) ..." lines, and the answers, where they are numbers from 0 or an option's text, become letters.
        system: a system prompt to put before each question, such as rl.tasks.FORMAT_INSTRUCTIONS.
        splits: rows in each ({"train": 2000, "test": 300}), or the shares of all ({"train": 0.9, "test": 0.1}).
        task: the task's name; "own" if nothing says it.
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
    columns = Columns(read_records(source, encoding=encoding, delimiter=delimiter), system, drop)
    verdict = get_verifier(verifier)
    listed = [] if choices is None else columns.several("choices", choices)
    ours = columns.are_rows and question is None and messages is None
    if ours:
        asked, conversations = columns.several("prompt", "prompt"), False
        columns.keep("question", "task")
    elif messages is not None:
        asked, conversations = columns.several("messages", messages), True
    else:
        asked = columns.several("question", question, needed=not columns.known("messages"))
        conversations = not asked
        asked = asked or columns.several("messages", None)
    known = columns.column("answer", answer, needed=not conversations)
    # An own verdict may read a list; an option may look like one.
    gold_of = text_of if listed or verifier not in VERIFIERS else one_answer
    drafts, forms, unsaid, picks = [], Counter(), 0, []
    for index, record in enumerate(columns.records):
        cells, where = record.values, f"{record.where}, column '{known or asked[0]}'"
        try:
            turns = columns.turns(record, asked)
            last = turns.pop()["content"] if turns[-1]["role"] == "assistant" else ""
            gold, form = reduced(gold_of(cells.get(known) if known else last, where))
            if not gold:
                raise BadRow(where, "no answer", "Give it one")
            prompt = columns.with_system(turns, record.where)
            if listed:
                options = options_of(cells, listed, record.where)
                turns, prompt = with_options(turns, options), with_options(prompt, options)
                a_number = known is not None and not isinstance(cells[known], str)
                picks.append(choice_of(gold, options, where, number=a_number))
                gold = picks[-1].letter
        except BadRow as error:
            columns.drop_bad(error, skip_bad)
            continue
        forms[form] += 1
        unsaid += bool(known and last)
        row = {
            "prompt": prompt,
            "question": question_of(turns)
            if listed
            else columns.said("question", record) or question_of(turns),
            "answer": gold,
            "task": task or columns.said("task", record) or "own",
            "split": "",
            "index": index,
        }
        drafts.append(Draft(record.where, row, columns.kept_values(record)))
    columns.notes += [f"{forms[form]:,} {said}" for form, said in REDUCED.items() if forms[form]]
    if unsaid:
        columns.notes.append(
            f"{unsaid:,} last messages of the assistant are left out: '{known}' has the answers"
        )
    if listed:
        columns.notes.append("the options are written under the questions, and the answers are their letters")
        columns.notes += filter(None, [check_places(picks)])
    elif hint := options_hint(list(columns.kept_names())):
        columns.notes.append(hint)
    if not conversations and not ours:
        columns.note_context("question", asked)
    columns.note_splits()
    cut = cut_splits(without_duplicates(drafts, columns.drops), splits, seed, columns.drops)
    golds = [row["answer"] for rows in cut.values() for row in rows]
    usable_golds = {gold: usable(verdict, gold) for gold in set(golds)}
    unusable = [gold for gold in golds if not usable_golds[gold]]
    report = DataReport(
        **_common(columns, source, cut, tokenizer, chat_template_kwargs),
        verifier=verifier,
        unusable=len(unusable),
        unusable_examples=[shortened(gold) for gold in list(dict.fromkeys(unusable))[:3]],
    )
    return cast(dict[str, list[Row]], cut), report


def pairs_from(
    source: Any,
    *,
    prompt: str | Sequence[str] | None = None,
    chosen: str | None = None,
    rejected: str | None = None,
    answer: str | None = None,
    system: str | None = None,
    splits: Sizes = SPLITS,
    seed: int = 42,
    task: str | None = None,
    tokenizer: "PreTrainedTokenizerBase | None" = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    drop: Sequence[str] = (),
    skip_bad: bool = False,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> tuple[dict[str, list[Pair]], DataReport]:
    """Preference pairs of one's own. All pairs of one question come into the same split.

    Args:
        prompt, chosen, rejected: the columns' names, where they do not say it themselves: texts, or lists of messages.
            The messages that `chosen` and `rejected` begin with in common are prompt (then there need be no such column),
            also those of "Human: ... Assistant: ..." texts. With prompt="common" the words are that other texts begin with.
        answer: a column with the known answer; without it the row's is the chosen one.
        skip_bad: pairs with an empty prompt or answer, or without a normal form (rl.preferences.normal_form), are dropped
            and counted, and not refused.

    The other arguments, what is returned and raised: as in `rows_from`.
    """
    columns = Columns(read_records(source, encoding=encoding, delimiter=delimiter), system, drop)
    sides = [columns.column(side, given) for side, given in zip(SIDES, (chosen, rejected), strict=True)]
    common = prompt == COMMON and COMMON not in columns.names
    asked = [] if common else columns.several("prompt", prompt, needed=False)
    ours = columns.are_rows and prompt is None
    known = columns.column("answer", answer) if answer is not None or ours else None
    columns.used |= {"tools"}
    if ours:
        columns.keep("question", "task")
    drafts, forms, repeated = [], Counter(), 0
    for index, record in enumerate(columns.records):
        cells = record.values
        try:
            turns = columns.turns(record, asked) if asked else []
            answers = [cells.get(side) for side in sides]
            form, repeats = _compared(turns, answers, record.where, columns.names, common=common)
            whole = columns.with_system(form["prompt"], record.where)
        except BadRow as error:
            columns.drop_bad(error, skip_bad)
            continue
        gold, reduced_by = reduced(text_of(cells.get(known), record.where)) if known else ("", "")
        forms[reduced_by] += 1
        repeated += repeats
        row: dict[str, Any] = {
            "prompt": whole,
            "question": columns.said("question", record) or question_of(form["prompt"]),
            "answer": gold or _last_text(form["chosen"]),
            "task": task or columns.said("task", record) or "own",
            "split": "",
            "index": index,
            **{side: form[side] for side in SIDES},
        }
        if tools := json_value(cells.get("tools"), f"{record.where}, column 'tools'"):
            row["tools"] = tools if isinstance(tools, str) else json.dumps(tools)
        drafts.append(Draft(record.where, row, columns.kept_values(record)))
    columns.notes += [f"{forms[form]:,} {said}" for form, said in REDUCED.items() if forms[form]]
    if repeated:
        columns.notes.append(f"in {repeated:,} pairs both answers repeat the prompt, which is taken off")
    if asked and not ours:
        columns.note_context("prompt", asked)
    columns.note_splits()
    cut = cut_splits(without_duplicates(drafts, columns.drops), splits, seed, columns.drops)
    report = DataReport(**_common(columns, source, cut, tokenizer, chat_template_kwargs))
    return cast(dict[str, list[Pair]], cut), report


def _compared(
    prompt: list[Message], answers: list[Any], where: str, names: list[str], *, common: bool
) -> tuple[dict[str, Any], bool]:
    """Prompt and answers of two cells, as rl.preferences.normal_form has them, and whether texts repeated the prompt.

    Raises:
        BadRow: they have no such form.
    """
    repeats = False
    turns = [
        conversation(value, f"{where}, column '{side}'") for side, value in zip(SIDES, answers, strict=True)
    ]
    if turns == [None, None]:
        texts = [text_of(value, where) for value in answers]
        if common:
            words, texts = common_words(texts)
            prompt = [Message(role="user", content=words)] if words else []
        elif not prompt:
            raise BadRow(
                where,
                f"no prompt; there are {', '.join(names)}",
                f"Name its column: prompt='...' (prompt='{COMMON}': the words that both texts begin with)",
            )
        else:
            left = without_prompt(prompt[-1]["content"], texts)
            texts, repeats = left, left != texts
        turns = [answer_turns(text) for text in texts]
    whole = [
        answer_turns(text_of(value, where)) if found is None else found
        for found, value in zip(turns, answers, strict=True)
    ]
    try:
        pair = cast(Pair, {"prompt": prompt, **dict(zip(SIDES, whole, strict=True))})
        return cast(dict[str, Any], normal_form(pair)), repeats
    except NoPair as error:
        raise BadRow(where, error.reason, error.cure or "Give two different answers") from error


def _last_text(answer: list[Message]) -> str:
    return answer[-1]["content"] or json.dumps(answer[-1].get("tool_calls"))


def _common(
    columns: Columns,
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
        "read": len(columns.records),
        "kept": {split: len(part) for split, part in cut.items()},
        "lengths": lengths,
        "dropped": columns.drops.all,
        "notes": columns.all_notes(texts=are_texts(source)),
    }


def _rendered(row: dict[str, Any], tokenizer: Any, chat_template_kwargs: Mapping[str, Any] | None) -> str:
    tools = json.loads(row["tools"]) if row.get("tools") else None
    return render(tokenizer, row["prompt"], chat_template_kwargs=chat_template_kwargs, tools=tools)
