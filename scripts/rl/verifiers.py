"""Verdicts: whether an answer is right, given the known one. A recipe names one (`verifier: number`), and accuracy
reward, evaluation, preference pairs and plots all use it.

| verifier | an answer is right if it is |
|---|---|
| exact | the same text, but for white space around it |
| number | the same number, in any usual way of writing it |
| choice | the same letter or number of a choice: B, (b), B. |
| text | the same words: upper and lower case, white space, quotes and a full stop do not count |
| math | the same by the library math-verify: fractions, roots, expressions, sets, intervals |
| file.function | what your own function(given, gold) says; the file lies beside train.py |

A verifier takes two texts, the given answer and the known one ("gold"), and returns True or False. It never raises on
what a model wrote, and takes linear time.

What `number` takes, decided once: currency and per cent signs are units and do not count ("50 %" is 50, and not 0.5);
simple fractions are numbers (1/2 is 0.5), so is 1e3; a comma, a space or an apostrophe groups thousands only where it
does so throughout (1,568 and 1 568; neither 3,5 nor 0,123 is a number); any other unit is no part of a number ("18
apples" is none), nor are superscripts (3\u00b2 is none). "- 5" is -5, and what names two numbers is none.
"""

import re
import unicodedata
from collections.abc import Callable
from fractions import Fraction

from rl.answers import ANSWER, END_ANSWER, extract_answer
from rl.data_values import compatible
from rl.own_code import OwnCodeError, load_function
from rl.spelling import unknown_name

Verifier = Callable[[str, str], bool]
LONGEST = 200  # characters of an answer that is a number or a choice; what is longer is neither

_MINUS = str.maketrans(dict.fromkeys("\u2212\ufe63\uff0d\u2010\u2011\u2013", "-") | {"\uff0b": "+"})
_POINTS = str.maketrans({"\u066b": ".", "\u066c": ",", "\uff0e": ".", "\uff0c": ",", "\u2044": "/"})
_LATEX_COMMAS = {"{,}": ",", "\\,": "\u2009", "\\!": ""}  # 1{,}568, 1\,568 and 1,\!568
_SPACES = " '\u2019\u00a0\u2007\u2009\u202f"
_GROUPS = re.compile(rf"[1-9][0-9]{{0,2}}(?:([,{_SPACES}])[0-9]{{3}})(?:\1[0-9]{{3}})*(?=\.|$)")
_PLAIN = re.compile(r"([-+]?)((?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][-+]?[0-9]{1,3})?)")
_QUOTIENT = re.compile(r"([-+]?)([0-9]+) ?/ ?([0-9]+)")
_LATEX_QUOTIENT = re.compile(r"\\[dt]?frac\{([0-9]+)\}\{([0-9]+)\}")
_WRAPPINGS = (
    ("\\boxed{", "}"),
    ("**", "**"),
    ("*", "*"),
    ("__", "__"),
    ("_", "_"),
    ("`", "`"),
    ("\\(", "\\)"),
    ("\\[", "\\]"),
    ("$", "$"),
    ("\\text{", "}"),
    ("\\textbf{", "}"),
    ("\\mathrm{", "}"),
    ("\\mathbf{", "}"),
)
_DEEPEST = 8  # wrappings around one answer; that no text takes long
_CHOICE = re.compile(r"[(\[]?\s?([A-Za-z]|[0-9]{1,2})\s?(?:[)\].:](?=\s|$)|$)(.*)")  # 12:30 and 1.5 are none
_DUNDER = re.compile(r"__[a-z][a-z0-9_]+__")  # Python's __init__ is no bold "init"
_QUOTES = "'\"`\u2018\u2019\u201c\u201d\u00ab\u00bb"
_STOPS = ".\u3002"
_STRAIGHT = str.maketrans(dict.fromkeys("\u2018\u2019\u02bc", "'") | dict.fromkeys("\u201c\u201d", '"'))
_OPERATORS = "\u2061\u2062\u2063\u2064"  # invisible, but 3 times 2 is not 32


class VerifierError(Exception):
    """There is no such verifier, or a verifier of one's own returned something that is no verdict."""


def exact(given: str, gold: str) -> bool:
    """The same text, but for white space around it; e and an accent is the letter e with the accent (Unicode NFC)."""
    given, gold = given.strip(), gold.strip()
    return _near(given, gold) and unicodedata.normalize("NFC", given) == unicodedata.normalize("NFC", gold)


def number(given: str, gold: str) -> bool:
    """The same number, exactly."""
    value = as_number(given)
    return value is not None and value == as_number(gold)


def as_number(text: str) -> Fraction | None:
    """The number that a text is, and nothing else besides; None if it is none.

    Taken: signs (also U+2212), digits of every script, thousands in groups, decimals (5. and .5 too), 1e3, 1/2,
    \\frac{1}{2}; a currency sign or a per cent sign; **bold**, $math$ and \\boxed{} around it; invisible characters.
    """
    text = text.strip()
    if len(text) > LONGEST:
        return None
    text = _visible(text).translate(_MINUS).translate(_POINTS)
    for written, meant in _LATEX_COMMAS.items():
        text = text.replace(written, meant)
    text = _unwrapped(text[:-1] if text[-1:] in tuple(_STOPS) else text)  # one: 0.333... is not 0.333
    text = "".join(str(unicodedata.decimal(c)) if unicodedata.category(c) == "Nd" else c for c in text)
    text = _without_units(text)
    sign, text = (text[0], text[1:].lstrip()) if text[:1] in ("-", "+") else ("", text)
    text = _without_units(text)  # as in -$5
    if groups := _GROUPS.match(text):
        whole = groups[0].replace(groups[1], "")
        text = whole + text[groups.end() :]
    if found := _LATEX_QUOTIENT.fullmatch(text):
        text = f"{found[1]}/{found[2]}"
    if found := _QUOTIENT.fullmatch(sign + text):
        return Fraction(int(found[1] + found[2]), int(found[3])) if int(found[3]) else None
    return Fraction(sign + text.rstrip(".")) if _PLAIN.fullmatch(sign + text) else None


def _without_units(text: str) -> str:
    """Without a currency sign before or behind, or a per cent sign behind."""
    if text[:2] == "\\$":
        text = text[1:]
    if text and unicodedata.category(text[0]) == "Sc":
        return text[1:].lstrip()
    if text and (text[-1] in "%\u066a\uff05" or unicodedata.category(text[-1]) == "Sc"):
        return text[:-1].removesuffix("\\").rstrip()
    return text


def choice(given: str, gold: str) -> bool:
    """The same choice: B, b, (B), B. and **B** are one.

    Words behind the letter must be those of the gold; where the gold is a letter alone, so must the answer be.
    """
    answer, known = _choice(given), _choice(gold)
    if answer is None or known is None or answer[0] != known[0]:
        return False
    return not answer[1] or answer[1] == known[1]


def _choice(text: str) -> tuple[str, str] | None:
    """(letter, words behind it) of a choice; None if the text is none."""
    text = text.strip()
    if len(text) > LONGEST:
        return None
    found = _CHOICE.fullmatch(_unwrapped(compatible(_visible(text)).removesuffix(".")))
    return (found[1].casefold(), plain_words(found[2])) if found else None


def text(given: str, gold: str) -> bool:
    """The same words."""
    given, gold = (" ".join(_visible(text).split()) for text in (given, gold))
    words = plain_words(given) if _near(given, gold) else ""
    return bool(words) and words == plain_words(gold)


def plain_words(text: str) -> str:
    """A text without what does not count when words are compared: case, white space, quotes, a full stop at the end."""
    text = compatible(_visible(text)).translate(_STRAIGHT).translate(_MINUS)
    text = " ".join(text.split())
    for _ in range(_DEEPEST):  # quotes in **bold**, and that in quotes
        text = _unwrapped(text.rstrip(_STOPS)).strip(_QUOTES + " ").rstrip(_STOPS)
    return text.strip(_QUOTES + " ").casefold()


def math(given: str, gold: str) -> bool:
    """The same by math-verify (https://github.com/huggingface/Math-Verify); of two numbers `number` decides."""
    values = as_number(given), as_number(gold)
    if None not in values:
        return values[0] == values[1]
    from rl.math_answers import same_value

    return same_value(_visible(given).translate(_MINUS), _visible(gold).translate(_MINUS))


VERIFIERS: dict[str, Verifier] = {
    "exact": exact,
    "number": number,
    "choice": choice,
    "text": text,
    "math": math,
}


def get_verifier(name: str) -> Verifier:
    """The verifier of a recipe: one of VERIFIERS, or a function of one's own by its dotted name.

    Raises:
        VerifierError: there is none of that name.
    """
    if "." in name:
        try:
            return _checked(name, load_function(name, "verifier"))
        except OwnCodeError as error:
            raise VerifierError(str(error)) from error
    if name not in VERIFIERS:
        raise VerifierError(
            f"{unknown_name('verifier', name, VERIFIERS)} Or name a function of your own: file.function."
        )
    return VERIFIERS[name]


def _checked(name: str, function: Callable[[str, str], object]) -> Verifier:
    def verdict(given: str, gold: str) -> bool:
        try:
            said = function(given, gold)
        except Exception as error:
            raise VerifierError(
                f"verifier '{name}' raised {type(error).__name__}: {error}, for the answer {given!r} and the gold {gold!r}."
            ) from error
        if type(said).__name__ not in ("bool", "bool_", "int") or said not in (0, 1):  # numpy's bool too
            raise VerifierError(
                f"verifier '{name}' returned {said!r} for {given!r} and {gold!r}: write True or False."
            )
        return bool(said)

    return verdict


def usable(verifier: Verifier, gold: str) -> bool:
    """Whether a known answer can be reached at all: it can stand in an answer block, and the verifier then takes it."""
    given = extract_answer(f"{ANSWER}{gold}{END_ANSWER}")
    return given is not None and verifier(given, gold)


def _near(given: str, gold: str) -> bool:
    """Whether two texts can be the same at all, by their length: Unicode may need four characters for one.

    Its normal forms take quadratic time on texts of accents alone, minutes for 100 kB of them.
    """
    return len(given) <= 4 * len(gold) + LONGEST


def _visible(text: str) -> str:
    """Without characters that nobody sees: zero-width spaces and joiners, marks of writing direction, byte order marks."""
    return "".join(c for c in text if unicodedata.category(c) != "Cf" or c in _OPERATORS).strip()


def _unwrapped(text: str) -> str:
    """Without marks of Markdown and LaTeX around it."""
    for _ in range(_DEEPEST):
        if _DUNDER.fullmatch(text):
            break
        for before, behind in _WRAPPINGS:
            if len(text) > len(before) + len(behind) and text.startswith(before) and text.endswith(behind):
                text = text[len(before) : -len(behind)].strip()
                break
        else:
            break
    return text
