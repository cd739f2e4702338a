"""Verdicts on numbers: each spelling with what a person would say, and no wrong number is ever right."""

import random
from decimal import Decimal
from fractions import Fraction

import pytest
from rl.verifiers import as_number, math, number


@pytest.mark.parametrize(
    ("given", "value"),
    [
        ("9", 9),
        ("-9", -9),
        ("+9", 9),
        ("\u22129", -9),  # minus sign
        ("\u20139", -9),  # en dash
        ("- 5", -5),
        ("$18", 18),
        ("\\$18", 18),
        ("-$5", -5),
        ("$-5", -5),
        ("18 \u20ac", 18),
        ("\uff0418", 18),
        ("**73**", 73),
        ("**73**.", 73),
        ("***73***", 73),
        ("*73*", 73),
        ("`73`", 73),
        ("\\boxed{9}", 9),
        ("$\\boxed{9}$", 9),
        ("$$\\boxed{\\text{9}}$$", 9),
        ("\\(9\\)", 9),
        ("\\[9\\]", 9),
        ("$1,568$", 1568),
        ("5.", 5),
        ("5.0", 5),
        ("5\u3002", 5),
        (".5", Fraction(1, 2)),
        ("-.5", Fraction(-1, 2)),
        ("0.50", Fraction(1, 2)),
        ("1/2", Fraction(1, 2)),
        ("-1/2", Fraction(-1, 2)),
        ("1 / 2", Fraction(1, 2)),
        ("1\u20442", Fraction(1, 2)),
        ("\\frac{1}{2}", Fraction(1, 2)),
        ("-\\dfrac{1}{2}", Fraction(-1, 2)),
        ("1,568", 1568),
        ("1 568", 1568),
        ("1\u00a0568", 1568),
        ("1\u2009568", 1568),
        ("1\u202f568", 1568),
        ("1'568", 1568),
        ("1{,}568", 1568),
        ("1\\,568", 1568),
        ("1,\\!568", 1568),
        ("1,234,567.5", Fraction("1234567.5")),
        ("50 %", 50),
        ("50%", 50),
        ("50\\%", 50),
        ("1e3", 1000),
        ("1.5E-3", Fraction("0.0015")),
        ("\uff11\uff12", 12),  # full-width
        ("\uff0d\uff11\uff0e\uff15", Fraction(-3, 2)),
        ("\u0661\u0662", 12),  # Arabic-Indic
        ("\u0661\u066b\u0665", Fraction(3, 2)),
        ("\u0661\u066c\u0665\u0660\u0660", 1500),
        ("\u0967\u0968", 12),  # Devanagari
        ("\u200b12\u200d", 12),  # zero-width
        ("1\u200b2", 12),
        ("\u200f-12\u200e", -12),
        ("\ufeff12", 12),
        (" 12\n", 12),
        (" " * 300 + "12", 12),
        ("007", 7),
        # No number, or not one:
        ("", None),
        (" ", None),
        (".", None),
        ("-", None),
        ("$", None),
        ("%", None),
        ("3,5", None),
        ("0,123", None),  # a decimal comma, and not 123
        ("15,68", None),
        ("1,56,800", None),
        ("1,568 000", None),
        ("1.568.000", None),
        ("1 2", None),
        ("1, 2", None),
        ("1 or 2", None),
        ("1/2/3", None),
        ("1/0", None),
        ("1 1/2", None),
        ("1\u00bd", None),
        ("\u00bd", None),
        ("$1$ or $2$", None),
        ("**1** **2**", None),
        ("\\boxed{1}\\boxed{2}", None),
        ("3\u00b2", None),
        ("10\u207b\u00b2", None),
        ("3\u2082", None),
        ("\u2462", None),  # 3 in a circle
        ("3\u20622", None),  # 3 times 2, the sign invisible
        ("5!", None),
        ("0.333...", None),
        ("0.333\u2026", None),
        ("18 apples", None),
        ("18 cm", None),
        ("50\u2030", None),  # per mille
        ("9:30", None),
        ("(9)", None),
        ("x = 9", None),
        ("about 9", None),
        ("--9", None),
        ("0x10", None),
        ("1_000", None),
        ("nan", None),
        ("inf", None),
        ("\u221e", None),
        ("1e99999", None),
        ("9" * 201, None),
    ],
)
def test_number(given, value):
    assert as_number(given) == (None if value is None else Fraction(value))


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        ("50 %", "50", True),
        ("50 %", "0.5", False),
        ("0.5", "50%", False),
        ("1/2", "0.5", True),
        ("0.333", "1/3", False),
        ("1e3", "1,000", True),
        ("9.0000000000000000000000000000000000001", "9", False),
        ("18", "18 apples", False),
        ("18 apples", "18 apples", False),  # such a gold is not usable
    ],
)
def test_number_with_gold(given, gold, right):
    assert number(given, gold) is right


def spellings(value: Decimal, rng: random.Random) -> str:
    """One of the ways in which people and models write a number, and that `number` takes."""
    sign, whole, point, decimals = ("-" if value < 0 else ""), *f"{abs(value)}".partition(".")
    if len(whole) > 3 and rng.random() < 0.5:
        separator = rng.choice([",", " ", "\u00a0", "\u2009", "\u202f", "'", "{,}"])
        whole = f"{int(whole):,}".replace(",", separator)
    if not point and rng.random() < 0.3:
        point, decimals = ".", rng.choice(["", "0", "00"])
    sign = rng.choice(["-", "\u2212", "\u2013", "- "]) if sign else rng.choice(["", "", "+"])
    written = whole + point + decimals
    if rng.random() < 0.3:
        first = rng.choice(["\uff10", "\u0660", "\u0966"])
        written = "".join(chr(ord(first) + int(c)) if c.isascii() and c.isdigit() else c for c in written)
    unit = rng.choice(["{}", "{}", "${}", "{} %", "\u20ac{}", "{}\\%"])
    around = rng.choice(["{}", "**{}**", "${}$", "\\boxed{{{}}}", "`{}`", "\u200b{}", " {}\n", "{}\ufeff"])
    return around.format(unit.format(sign + written))


@pytest.mark.parametrize("seed", range(8))
def test_no_wrong_number_is_ever_right(seed):
    rng = random.Random(seed)
    for _ in range(1000):
        digits = rng.choice([1, 2, 4, 7])
        value = Decimal(rng.randrange(10**digits)).scaleb(-rng.choice([0, 0, 1, 2])) * rng.choice([1, -1])
        # Another one that looks much like it: a digit, the sign, the decimal point elsewhere.
        near = [
            value + 1,
            -value - 1,
            value * 10,
            value / 10,
            value * 1000,
            value / 1000,
            value + Decimal("0.01"),
        ]
        other = rng.choice([other for other in near if other != value])
        other = Decimal(f"{other:f}")
        gold, given, wrong = (spellings(Decimal(f"{x:f}"), rng) for x in (value, value, other))
        assert number(given, gold), (given, gold)
        assert not number(wrong, gold), (wrong, gold)
        assert not math(wrong, gold)


@pytest.mark.parametrize("seed", range(4))
def test_what_is_made_of_two_numbers_is_neither(seed):
    rng = random.Random(seed)
    joints = [
        " ",
        ", ",
        " or ",
        "; ",
        "\n",
        " - ",
        " = ",
        "$ $",
        "** **",
        "}\\boxed{",
        "..",
        ",",
        "\u00b7",
        "e",
        "^",
    ]
    for _ in range(1000):
        first, second = (str(rng.randrange(1, 10 ** rng.choice([1, 2]))) for _ in range(2))
        given = rng.choice(["{}", "${}$", "**{}**", "\\boxed{{{}}}"]).format(
            first + rng.choice(joints) + second
        )
        assert as_number(given) not in (int(first), int(second)), given
