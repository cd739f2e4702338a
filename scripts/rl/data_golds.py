"""The answer alone, out of what data sets call the answer: whole solutions as GSM8K, MATH and R1-style data have them."""

import re
from typing import NamedTuple

from rl.answers import extract_answer

# Behind white space, or before a number: "2 apples.#### 4" has a mark, "print('####')" none.
_MARK = re.compile(r"(?<!\S)####(?!#)|(?<!#)####(?=[ \t]*[-+$]?[0-9])")
_GROUPED = re.compile(r"[-+]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
_BOX = "\\boxed{"
_BRACES = re.compile(r"\\.|[{}]", re.DOTALL)  # \{ is no brace that groups
# What may stand between two boxes that both are answers: "or", "and $x =", "\n(b)"
_GAP = r"(?:[\s$,;&]|\\[\[\]()\\,;:]|\\q?quad\b)*+"
_LABEL = r"(?:(?:[Pp]art\s)?(?:\((?:\w|[ivx]+)\)[.:]?|(?:\w|[ivx]+)[).:]\s)|[A-Za-z](?:_?\w|_\{\w+\}|')?\s*=|[-*]\s)"
_OR = r"(?:and|or|\\text\{\s*(?:and|or)\s*\})"
_SIGN = r"(?:[-+\u2212]|\\pm|\\mp)?"
_LISTED = re.compile(rf"{_GAP}(?:\.?{_GAP}{_OR}?{_GAP}(?:{_LABEL}{_GAP}){{1,2}}|{_OR})?{_GAP}{_SIGN}{_GAP}")
_NEAR = 60  # characters in which answers of a list follow each other
# What is done to a box, before it and behind it: a sign, a factor, a root, a power. Degrees and ordinals are units.
_ACTED_ON = re.compile(
    r"(?:[-+/\u2010\u2011\u2013\u2212\u00d7\u00b7]|[0-9]\s?\*|\\(?:pm|mp|sqrt|cdot|times|div|log|ln))(?:\s|\\[,;:! ]|\{\})*$"
    r"|(?:[0-9^]|(?<!_)_)$"
)
_ACTS = re.compile(
    r"\s*(?:\^(?!\{?\s*(?:\\!)?(?:\\circ|\\text|\\mathrm|\\prime|st|nd|rd|th))|_|/(?!\s*\\(?:text|mathrm))"
    r"|\\(?:sqrt|cdot|times|div|d?frac|pi)(?![a-z]))"
)
# Behind words and at the beginning of a line it is no sign: "Answer - \boxed{5}", "---"
_DASH = re.compile(r"(?:^|\n|[^\W\d_]{2}\s|[:.*]\s)\s*[-+\u2010\u2011\u2013\u2212]+\s+$")
# A box within one of these, or within braces alone, is as good as without.
_WRAPPED = re.compile(
    r"(?:\\(?:text\w*|math(?:bf|rm|sf|it)|bm|boldsymbol|underline|fbox|displaystyle)\s?|(?<![\w}\]]))\{[^{}]*$"
)
_DEEPEST = 4  # of these around one box

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
    \\boxed{} at its end; a text that is none of these is the answer itself, as is a box alone. So is one with several
    boxed answers, or where something is done to the box, as in -\\boxed{5}: the box has not the answer then."""
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
    end = _end_of_box(text, start)
    if start < 0 or end is None:
        return None
    before, behind = text[:start], text[end:]
    alone = not before and not behind
    if alone or "\n\n" in behind:  # a paragraph may follow a box that is no result
        return None
    if _is_listed(before) or not _is_whole(before, behind):
        return None
    return text[start + len(_BOX) : end - 1].strip() or None


def _end_of_box(text: str, start: int) -> int | None:
    """Behind the brace that closes the box; None if it never closes."""
    depth = 0
    for brace in _BRACES.finditer(text, start + len(_BOX) - 1):
        depth += {"{": 1, "}": -1}.get(brace[0], 0)
        if depth == 0:
            return brace.end()
    return None


def _is_listed(before: str) -> bool:
    """Whether the box before is an answer as well: nothing but an "or" or a label stands behind it."""
    start = before.rfind(_BOX)
    end = _end_of_box(before, start) if start >= 0 else None
    return end is not None and len(before) - end <= _NEAR and bool(_LISTED.fullmatch(before[end:]))


def _is_whole(before: str, behind: str) -> bool:
    """Whether the box has the whole answer: in -\\boxed{5}, \\frac{1}{\\boxed{5}} and \\boxed{5}^2 it has a part."""
    for _ in range(_DEEPEST):
        near = before[-500:]
        if _ACTED_ON.search(near) and (_in_math(before) or not _DASH.search(near)):
            return False
        if _ACTS.match(behind):
            return False
        if not behind.lstrip().startswith("}"):
            return True
        if not (wrapping := _WRAPPED.search(near)):
            return False
        before, behind = before[: wrapping.start() - len(near)], behind.lstrip()[1:]
    return False


def _in_math(before: str) -> bool:
    """Whether a formula begins in a text and does not end in it."""
    dollars = before.replace("\\$", "").replace("$$", "$").count("$")
    return dollars % 2 == 1 or any(before.rfind(f"\\{o}") > before.rfind(f"\\{c}") for o, c in ("[]", "()"))
