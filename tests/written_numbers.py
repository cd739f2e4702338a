"""Numbers as they stand in a text: "1,901,568", "0.33 s", "24, 48 and 80 GB", "a minute and a half", "half a million"."""

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace

# unit -> its kind, and its size in the kind's own unit: seconds, bytes, shares of one, US dollars
UNITS = {
    **dict.fromkeys(("ms", "milliseconds"), ("time", 1e-3)),
    **dict.fromkeys(("s", "sec", "second", "seconds"), ("time", 1.0)),
    **dict.fromkeys(("min", "minute", "minutes"), ("time", 60.0)),
    **dict.fromkeys(("h", "hour", "hours"), ("time", 3600.0)),
    **dict.fromkeys(("byte", "bytes"), ("size", 1.0)),
    **{f"{prefix}B": ("size", 10.0**power) for prefix, power in zip("kMGT", (3, 6, 9, 12), strict=True)},
    **{f"{prefix}iB": ("size", 2.0**power) for prefix, power in zip("KMGT", (10, 20, 30, 40), strict=True)},
    **dict.fromkeys(("%", "percent"), ("share", 0.01)),
    **dict.fromkeys(("$", "USD", "dollars"), ("money", 1.0)),
}
# Those that a heading or a name (train_seconds, peak_rss_mb) gives to a number without a unit. `min` is also a minimum.
NAMED_UNITS = {name: kind for name, kind in UNITS.items() if len(name) > 1 and name != "min"}
NAMED_UNITS |= {"mb": UNITS["MB"], "gb": UNITS["GB"]}
SCALES = {"thousand": 1e3, "million": 1e6, "billion": 1e9}
TO_TWELVE = "two three four five six seven eight nine ten eleven twelve".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
WORDS = {"fifteen": 15, "sixteen": 16}
WORDS |= {word: value for value, word in enumerate(TO_TWELVE, start=2)}
WORDS |= {word: 10 * value for value, word in enumerate(TENS, start=2)}


def any_of(words: Iterable[str]) -> str:
    """A pattern for one of the words, the longest first."""
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


NUMBER = re.compile(
    r"(?<![\w.])(?P<dollar>\$)?(?:(?P<digits>\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d+(?:\.\d+)?(?:e[-+]?\d+)?)"
    rf"|\b(?i:(?P<half>half an?)|(?P<word>{any_of(WORDS)})|(?P<a>an?))\b)"
    rf"(?:[ -]?(?P<scale>{any_of(SCALES)})\b)?(?:[ -]?(?P<unit>{any_of(UNITS)})(?!\w))?(?P<more> and a half\b)?(?P<rest>\w*)"
)
JOINED = re.compile(r"\s*(?:,|-|–|to|or|and|, and|, or)\s*")  # 24, 48 and 80 GB; two to three minutes
NO_NUMBERS = re.compile(
    r"\w+://\S+"  # addresses
    r"|\barXiv:\S+|\b\d{4}\.\d{5}\b"
    r"|(?<![\w.])[A-Za-z_][\w.@/+-]*\d[\w.@/+-]*(?<![./+-])"  # names: Qwen3-8B, p4d.24xlarge, pass@1, FSDP2, those of jobs
    r"|\b\d+(?:\.\d+){2,}\b"  # versions
    r"|\b(?:19|20)\d\d-\d\d(?:-\d\d)?\b|\b\d{1,2}:\d\d(?::\d\d)?(?:[.,]\d+)?\b"  # dates, times of day
    r"|\b\d+(?:st|nd|rd|th)\b"
)


@dataclass(frozen=True)
class Number:
    """A number as it stands in a text; `value` and `precision` (half of its last digit) are in the unit written there."""

    text: str
    value: float
    precision: float
    kinds: frozenset[tuple[str, float]] = (
        frozenset()
    )  # its unit, or where only headings hint at one: all of theirs

    def rounds(self, other: "Number") -> bool:
        """Whether `other` is this number, or this is `other` rounded. Without a unit, the digits are compared."""
        near = self.precision * (1 + 1e-9)
        if not self.kinds:
            return abs(self.value - other.value) <= near
        ((kind, factor),) = self.kinds
        sizes = {size for name, size in other.kinds if name == kind}
        if kind == "share" and not sizes and 0 <= other.value <= 1:
            sizes = {1.0}
        return any(abs(self.value - other.value * size / factor) <= near for size in sizes)


def numbers(text: str, context: str = "") -> list[Number]:
    """The numbers of a text. `context`: words whose units may be those of numbers that have none."""
    text = NO_NUMBERS.sub(lambda match: "\x00" * len(match[0]), text)
    matches = [match for match in NUMBER.finditer(text) if match["rest"] in ("", "x")]  # not 24xlarge, 6dd35
    found = [_number(match) for match in matches]
    for index in reversed(range(len(found) - 1)):
        match, following = matches[index : index + 2]
        bare = not found[index].kinds and not match["scale"]
        if bare and JOINED.fullmatch(text, match.end(), following.start()):
            found[index] = replace(found[index], kinds=found[index + 1].kinds)
    hints = re.findall(rf"(?<![A-Za-z])(?:{any_of(NAMED_UNITS)})(?![A-Za-z])", context)
    written = {kind for number in found for kind, _ in number.kinds}  # then those without mean something else
    readings = frozenset(NAMED_UNITS[hint] for hint in hints if NAMED_UNITS[hint][0] not in written)
    return [
        replace(number, kinds=number.kinds or readings)
        for match, number in zip(matches, found, strict=True)
        if match["digits"] or _measures(match, number)
    ]


def _measures(match: re.Match[str], number: Number) -> bool:
    """In words: "twenty seconds", "half a million", "a minute and a half". Not "two jobs", "an hour", "half a byte"."""
    if match["a"] and not match["more"]:
        return False
    return bool(match["scale"] or number.kinds) and not (match["half"] and match["unit"] in ("byte", "bytes"))


def _number(match: re.Match[str]) -> Number:
    scale = SCALES.get(match["scale"], 1.0)
    digits = (match["digits"] or "").replace(",", "")
    mantissa, _, exponent = digits.partition("e")
    if digits:
        value, precision = float(digits), 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2])) / 2
    else:
        value, precision = (
            (0.5, 0.05) if match["half"] else (WORDS.get((match["word"] or "a").lower(), 1.0), 0.5)
        )
    if match["more"]:
        value, precision = value + 0.5, 0.25
    unit = "$" if match["dollar"] else match["unit"]
    kinds = frozenset([UNITS[unit]] if unit else [])
    return Number(" ".join(match[0].split()), value * scale, precision * scale, kinds)
