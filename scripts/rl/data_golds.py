"""The answer alone, out of what data sets call the answer: whole solutions as GSM8K, MATH and R1-style data have them."""

import re
from typing import NamedTuple

from rl.answers import extract_answer

# Behind white space, or before a number: "2 apples.#### 4" has a mark, "print('####')" none.
_MARK = re.compile(r"(?<!\S)####(?!#)|(?<!#)####(?=[ \t]*[-+$]?[0-9])")
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_BOX = "\\boxed{"
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ is no brace that groups
_LISTED = re.compile(r"\}[\s$,;]*(?:and|or)?[\s$,;]*$")  # "\boxed{3}$ and $" before another box: two answers

REDUCED = {
    "tags": "answers in <answer> tags are reduced to what stands between them",
    "mark": "solutions that end in '#### ...' are reduced to what stands there",
    "box": "solutions that end in \\boxed{...} are reduced to what stands in the box",
}


class Gold(NamedTuple):
    """A known answer, and what marked it in its solution: a key of REDUCED, or "" where the text was the answer."""

    answer: str
    form: str


def reduced(solution: str) -> Gold:
    """The answer of a solution: in <answer> tags, behind the last #### of its last line (1,234 as 1234), or in the last
    \\boxed{} at its end; a text that is none of these is the answer itself, as is a box alone."""
    forms = {"tags": extract_answer, "mark": _behind_mark, "box": _in_box}
    for form, answer_in in forms.items():
        if (answer := answer_in(solution)) is not None:  # "" too: empty tags are no answer
            return Gold(answer, form)
    return Gold(solution, "")


def _behind_mark(text: str) -> str | None:
    last = text.rstrip().rpartition("\n")[2]
    marks = list(_MARK.finditer(last))
    behind = last[marks[-1].end() :].strip() if marks else ""
    return (behind.replace(",", "") if _GROUPED.fullmatch(behind) else behind) or None


def _in_box(text: str) -> str | None:
    text = text.strip()
    start = text.rfind(_BOX)
    if start < 0:
        return None
    inside, depth = start + len(_BOX), 0
    for brace in _BRACES.finditer(text, inside - 1):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            break
    else:
        return None  # it never closes
    before, behind = text[:start], text[brace.end() :]
    alone = not before and not behind
    several = _BOX in before and _LISTED.search(before[-30:])
    if alone or several or "\n\n" in behind:  # a paragraph may follow a box that is no result
        return None
    return text[inside : brace.start()].strip() or None
