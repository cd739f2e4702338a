"""Questions with options to choose from: the options go under the question, and the known answer becomes a letter."""

import math
import re
from collections.abc import Mapping, Sequence
from string import ascii_uppercase as LETTERS
from typing import Any, NamedTuple

from rl.data_cells import BadRow, parsed, text_of
from rl.data_values import DataError, normalised
from rl.tasks import Message

_LETTER = re.compile(r"[(\[]?([A-Za-z])[)\].:]?")
_LISTS = ("choices", "options")
# How likely it is that no answer is the first option where answers are spread evenly: below, it is said, or refused.
DOUBTFUL, UNLIKELY = 0.5, 0.01


class Options(NamedTuple):
    """The options of one question, in their order."""

    texts: list[str]
    labels: list[str]  # what the source calls them, where it says so (ARC: A, B, ... or 1, 2, ...)
    numbers: bool  # whether some are numbers in the source, so that a number may be the answer's place or the answer


def options_of(cells: Mapping[str, Any], names: list[str], where: str) -> Options:
    """The options in a row: a list in the one column (or ARC's {"text": [...], "label": [...]}), or a column for each.

    Raises:
        BadRow: there are fewer than two, more than letters, or one that is empty.
    """
    labels: list[str] = []
    if len(names) == 1:
        where = f"{where}, column '{names[0]}'"
        values = parsed(cells.get(names[0]))
        if isinstance(values, Mapping) and {"text", "label"} <= values.keys():
            labels = [text_of(label, where) for label in parsed(values["label"])]
            values = parsed(values["text"])
        if not isinstance(values, list | tuple):
            raise BadRow(where, "no list of options", "Give one, or name a column for each option")
    else:
        values = [cells.get(name) for name in names]
    texts = [text_of(value, where) for value in values]
    while texts and not texts[-1]:  # a question with fewer options than the others
        texts.pop()
    if not 2 <= len(texts) <= len(LETTERS) or not all(texts):
        filled = len(list(filter(None, texts)))
        raise BadRow(
            where, f"{filled} options that are not empty, of {len(texts)}", "Give 2 to 26, all filled"
        )
    marks = [re.match(rf"[(\[]?{LETTERS[n]}[)\].:]\s*", text) for n, text in enumerate(texts)]
    if all(marks):  # "A) 21" becomes "21": the letters are written anew
        texts = [text[mark.end() :] for mark, text in zip(marks, texts, strict=True) if mark]
    return Options(
        texts, labels, numbers=not all(isinstance(value, str) for value in values if value is not None)
    )


class Choice(NamedTuple):
    """The option that is a known answer."""

    letter: str
    # Counted from 0, where the answer is a number and nothing else says which option is meant
    place: int | None
    options: int


def with_options(turns: list[Message], options: Options) -> list[Message]:
    """The conversation with "(A) ...", "(B) ..." lines under what was asked last."""
    lines = [f"({letter}) {text}" for letter, text in zip(LETTERS, options.texts, strict=False)]
    asked = "\n".join([turns[-1]["content"], *lines])
    return [*turns[:-1], {**turns[-1], "content": asked}]


def choice_of(answer: str, options: Options, where: str, *, number: bool = False) -> Choice:
    """The option of the known answer: its letter, a label of the source, its place counted from 0, or its text.

    Args:
        number: the answer is a number in the source, and so no text of an option.

    Raises:
        BadRow: it is none of them, or could be two.
        DataError: it seems to count from 1.
    """
    count, letter = len(options.texts), _LETTER.fullmatch(answer)
    by_letter = {LETTERS.index(letter[1].upper())} if letter else set()
    by_number = {int(answer)} if answer in map(str, range(count)) else set()
    by_text = {n for n, text in enumerate(options.texts) if normalised(text) == normalised(answer)}
    if answer in options.labels[:count]:
        readings = {options.labels.index(answer)}
    elif number and by_number and not options.numbers:
        readings = by_number
    else:
        readings = (by_letter | by_number | by_text) & set(range(count))
    there = ", ".join(LETTERS[:count])
    if answer == str(count) and not readings:
        raise DataError(
            f"{where}: the answer {answer} is none of {count} options, which count from 0. If yours count from 1, write "
            f"letters ({there})."
        )
    if len(readings) != 1:
        what = "is none of the options" if not readings else "may be two of the options"
        raise BadRow(where, f"the answer {answer[:60]!r} {what}", f"Write its letter ({there})")
    (chosen,) = readings
    by_place = by_number == {chosen} and chosen not in by_text and answer not in options.labels[:count]
    return Choice(LETTERS[chosen], chosen if by_place else None, count)


def check_places(choices: Sequence[Choice]) -> str | None:
    """A note on answers that are places of options, if none is the first: they may count from 1. None: nothing to say.

    Raises:
        DataError: there are so many of them that this is no accident.
    """
    places = [choice.place for choice in choices if choice.place is not None]
    chance = math.prod(1 - 1 / choice.options for choice in choices if choice.place is not None)
    if 0 in places or chance >= DOUBTFUL:
        return None
    said = (
        f"{len(places):,} answers are numbers of options from {min(places)} to {max(places)}, taken as counted from 0, and "
        "none is 0"
    )
    if chance < UNLIKELY:
        raise DataError(
            f"{said}, so that no answer would be A. If yours count from 1, write letters; if they count from 0, too."
        )
    return f"{said}: if yours count from 1, write letters"


def options_hint(columns: Sequence[str]) -> str | None:
    """What to write if columns that nobody named look like options; None if none does."""
    letters = [letter for letter in LETTERS if letter in columns]
    lists = [name for name in columns if name.lower() in _LISTS]
    if letters[:2] != ["A", "B"] and not lists:
        return None
    named = letters if letters[:2] == ["A", "B"] else lists[0]
    return (
        f"what looks like options ({named if isinstance(named, str) else ', '.join(named)}) is not in the prompt: "
        f"choices={named!r} writes it there, and makes the answers letters"
    )
