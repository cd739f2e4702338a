"""Verdicts: each case with what a person would say; no wrong number is ever right; nothing a model writes takes long."""

import os
import random
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from fractions import Fraction
from pathlib import Path

import psutil
import pytest
from harness import SHARED, job_variables
from rl import math_answers
from rl.verifiers import (
    VERIFIERS,
    VerifierError,
    as_number,
    choice,
    exact,
    get_verifier,
    math,
    number,
    text,
    usable,
)

TESTS = Path(__file__).parent


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


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        *(
            (given, "B", True)
            for given in ("B", "b", "(B)", "(b)", "B.", "B)", "[B]", "**B**", "**B**.", " B ")
        ),
        *(
            (given, "B", True)
            for given in ("\\boxed{B}", "\\boxed{\\textbf{(B)}}", "$B$", "\uff22", "\u200bB", "B:")
        ),
        *((given, "(B)", True) for given in ("B", "b)", "(B)")),
        *((given, "B) Paris", True) for given in ("B", "(B) Paris", "B. paris", "B) **Paris**", "B: Paris.")),
        ("2", "(2)", True),
        ("12", "12.", True),
        *(
            (given, "B", False)
            for given in ("A", "", "B or C", "B, C", "B/C", "BC", "B) C)", "B. or C.", "A. B.")
        ),
        *(
            (given, "B", False)
            for given in ("8", "not B", "B is wrong", "the answer is B", "\u24b7", "B\n(C)")
        ),
        ("B) London", "B) Paris", False),
        ("Paris", "B) Paris", False),
        ("A) Paris", "B) Paris", False),
        ("1", "12", False),
        ("1.5", "1", False),
        ("-1", "1", False),
        *(("12", gold, False) for gold in ("12.05.2024", "12:30", "12.5")),
        ("10", "10.0.0.1", False),
    ],
)
def test_choice(given, gold, right):
    assert choice(given, gold) is right


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        ("Paris", "paris", True),
        ("  PARIS. ", "Paris", True),
        ('"Paris"', "Paris", True),
        ("\u00abParis\u00bb.", "Paris", True),
        ("**Paris**", "Paris", True),
        ("New\u00a0  York\n", "new york", True),
        ("cafe\u0301", "caf\u00e9", True),  # normal forms
        ("\uff30aris", "Paris", True),
        ("\ufb01sh", "fish", True),
        ("Stra\u00dfe", "STRASSE", True),
        ("don\u2019t", "don't", True),
        ("1914\u20131918", "1914-1918", True),
        ("co\u00adoperate", "cooperate", True),
        ("\u5df4\u9ece\u3002", "\u5df4\u9ece", True),
        ("", "", False),
        ('"."', ".", False),
        ("Paris", "London", False),
        ("Paris or London", "Paris", False),
        ("not Paris", "Paris", False),
        ("", "Paris", False),
        ("(B)", "B", False),  # the verifier choice is for that
        ("caf\u00e9", "cafe", False),
        ("x\u00b2", "x2", False),
        ("2\u207f", "2n", False),
        ("1\u00bd", "11/2", False),
        ("H\u2082O", "H2O", False),
        ("5!", "5", False),
        ("-5", "5", False),
        ("Paris" + "\u0301" * 1000, "Paris", False),
    ],
)
def test_text(given, gold, right):
    assert text(given, gold) is right


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        (" Paris\n", "Paris", True),
        ("cafe\u0301", "caf\u00e9", True),
        ("paris", "Paris", False),
        ("Paris.", "Paris", False),
        ("9.0", "9", False),
        ("\uff19", "9", False),
    ],
)
def test_exact(given, gold, right):
    assert exact(given, gold) is right


@pytest.mark.parametrize(
    ("given", "gold", "right"),
    [
        ("\\frac{1}{2}", "0.5", True),
        ("\\frac12", "1/2", True),
        ("\u2212\\frac12", "-0.5", True),
        ("\\sqrt{8}", "2\\sqrt{2}", True),
        ("\\frac{\\sqrt{2}}{2}", "\\frac{1}{\\sqrt{2}}", True),
        ("x^2+2x+1", "(x+1)^2", True),
        ("$\\boxed{x+1}$", "1+x", True),
        ("x = 5", "5", True),
        ("xy+1", "1+xy", True),
        ("\\{1, 2\\}", "\\{2, 1\\}", True),
        ("[0, 1)", "[0,1)", True),
        ("\\sin(x)", "\\sin x", True),
        ("5\\text{ cm}", "5 cm", True),
        ("50\\%", "50", True),
        ("1,568", "1568", True),
        ("50\\%", "0.5", False),  # two numbers, of which `number` decides
        ("0.333333333333333", "1/3", False),
        ("[0, 1)", "(0, 1)", False),
        ("[0, 1)", "[0, 1]", False),
        ("x^2", "2x", False),
        ("x^2", "x2", False),
        ("x > 5", "5", False),
        ("5 \\neq 3", "5", False),
        ("\\pm 5", "5", False),
        ("5", "\\pm 5", False),
        ("1 2", "2", False),
        ("1, 2", "2", False),
        ("1, 2", "12", False),
        ("x = 2, x = 3", "3", False),
        ("1 \\text{ or } 2", "1", False),
        ("1 or 2", "2", False),
        ("$1$ or $2$", "2", False),
        ("\\boxed{1} \\boxed{2}", "2", False),
        ("tea", "eat", False),
        ("not 5", "5", False),
        ("the answer is 5", "5", False),
        ("", "5", False),
        ("", "", False),
        ("3,5", "35", False),
        ("(" * 300, "5", False),
        ("{" * 300 + "}" * 300, "5", False),
    ],
)
def test_math(given, gold, right):
    assert math(given, gold) is right


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


NASTY = [
    "9", "1,", "1 ", ",", " ", "\n", "$", "**", "*", "_", "`", "(", "{", "\\frac{", "\\boxed{", "-", "\u200b", "a", "a ", "\"",
    "\u0301\u0323", ".", "\ufdfa", "\u0130", "B) ", "\0", "\ud800", "1e", "9^", "9^{", "\\", "\\,", "%", "\u20ac",
]  # fmt: skip


@pytest.mark.parametrize("unit", NASTY, ids=ascii)
@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_no_text_takes_long(name, unit):
    verifier, long = VERIFIERS[name], unit * (100_000 // len(unit))
    started = time.process_time()
    for given in (long, f"{long}9", f"9{long}", f"$${long}$$"):
        for gold in ("9", "B) Paris", "$18"):
            assert not verifier(given, gold) or unit in " \n\u200b"  # which nobody sees
    assert time.process_time() - started < 5  # most take 0.1 s; what is quadratic takes minutes


@pytest.mark.parametrize("name", sorted(VERIFIERS))
def test_from_several_threads_at_once(name):
    pairs = [(f"\\sqrt{{{i}}}" if name == "math" else f"{i}", i) for i in range(1, 40)]

    def verdicts(_):
        return [VERIFIERS[name](given, f"\\sqrt{{{i}}}" if name == "math" else str(i)) for given, i in pairs]

    with ThreadPoolExecutor(8) as pool:
        assert all(all(found) for found in pool.map(verdicts, range(8), timeout=120))


def test_what_never_ends_is_ended_and_the_next_verdict_is_right():
    assert math("\\frac{2}{4}", "\\frac12")  # the process runs
    with ThreadPoolExecutor(1) as pool:  # where no signal could end it
        started = time.monotonic()
        assert pool.submit(math, "9^{9^{9^9}}", "x+1").result(timeout=120) is False
        assert pool.submit(math, "\\frac{3}{6}", "\\frac12").result(timeout=120) is True
    assert time.monotonic() - started < 60
    assert math("x+1", "1+x")


def test_a_process_that_was_killed_costs_no_verdict():
    assert math("x+2", "2+x")
    psutil.Process(math_answers._process.pid).kill()
    assert math("x+3", "3+x")
    os.kill(math_answers._process.pid, 19)  # SIGSTOP: it dies while it is asked
    with ThreadPoolExecutor(1) as pool:
        verdict = pool.submit(math, "x+4", "4+x")
        time.sleep(0.3)
        psutil.Process(math_answers._process.pid).kill()
        assert verdict.result(timeout=120) is True


ORPHAN = """
import os, sys, threading, time
from rl import math_answers
from rl.verifiers import math
assert math("x+1", "1+x")
print(math_answers._process.pid, flush=True)
if sys.argv[1] == "busy":
    threading.Thread(target=math, args=("9^{9^{9^9}}", "x"), daemon=True).start()
    time.sleep(0.5)
    os._exit(0)
"""


@pytest.mark.parametrize("how", ["ends", "busy"])
def test_no_process_is_left_behind(how):
    result = subprocess.run(
        [sys.executable, "-c", ORPHAN, how],
        capture_output=True,
        text=True,
        env=job_variables(SHARED),
        timeout=120,
        check=True,
    )
    deadline = time.monotonic() + 60
    while psutil.pid_exists(int(result.stdout)) and _runs(int(result.stdout)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_a_forked_process_has_a_process_of_its_own():
    code = (
        "import os\nfrom rl.verifiers import math\nassert math('x+1', '1+x')\nchild = os.fork()\n"
        "right = math('x+2', '2+x') and not math('x+3', '2+x')\n"
        "if not child: os._exit(0 if right else 1)\n"
        "assert right and os.waitpid(child, 0)[1] == 0"
    )
    subprocess.run([sys.executable, "-c", code], env=job_variables(SHARED), timeout=120, check=True)


def test_without_math_verify_the_reason_is_said():
    code = (
        "import sys\nfrom rl.verifiers import math\nsys.executable = sys.argv[1]\n"
        "assert math('1', '1.0')\nmath('x', 'y')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, "/bin/true"],
        env=job_variables(SHARED),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "is math-verify installed?" in result.stderr


def test_verifiers_need_no_torch():
    code = (
        "import sys, rl.verifiers, rl.answers, rl.templates; assert not {'torch', 'sympy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], env=job_variables(SHARED), timeout=60, check=True)


@pytest.mark.parametrize(
    ("name", "gold", "reachable"),
    [
        ("number", "18", True),
        ("number", "18 apples", False),
        ("number", "She has 18. #### 18", False),
        ("choice", "(B)", True),
        ("choice", "Paris", False),
        ("text", "Paris", True),
        ("text", ".", False),
        ("exact", "anything", True),
        ("math", "\\frac{1}{2}", True),
        ("math", "$1$ or $2$", False),
        ("choice", "12:30", False),
        ("exact", "<answer>2</answer>", False),  # no answer block can hold another
        ("text", "<think>hm</think><answer>w</answer>", False),
    ],
)
def test_usable_golds(name, gold, reachable):
    assert usable(VERIFIERS[name], gold) is reachable


def test_a_verifier_of_ones_own(tmp_path, monkeypatch):
    import numpy

    (tmp_path / "verifier_of_mine.py").write_text(
        "import numpy\n"
        "def same(given, gold): return given == gold\n"
        "def of_numpy(given, gold): return numpy.bool_(given == gold)\n"
        "def forgotten(given, gold): given == gold\n"
        "def a_share(given, gold): return 0.5\n"
        "def broken(given, gold): return int(given) == int(gold)\n"
        "def of_one(given): return True\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("same", "of_numpy"):
        verdicts = [get_verifier(f"verifier_of_mine.{name}")(given, "a") for given in "ab"]
        assert verdicts == [True, False] and not any(isinstance(said, numpy.bool_) for said in verdicts)
    for name, message in {
        "forgotten": "returned None for '1' and 'x': write True or False",
        "a_share": "returned 0.5 for '1' and 'x': write True or False",
        "broken": "raised ValueError: invalid literal .* for the answer '1' and the gold 'x'",
        "of_one": "raised TypeError: .*2 were given",
    }.items():
        with pytest.raises(VerifierError, match=f"verifier 'verifier_of_mine.{name}' {message}"):
            get_verifier(f"verifier_of_mine.{name}")("1", "x")


def test_unknown_verifiers_are_refused_in_words():
    with pytest.raises(VerifierError, match="unknown verifier 'numbr'; did you mean 'number'.*file.function"):
        get_verifier("numbr")
    with pytest.raises(VerifierError, match=r"there is no file no_such_file\.py beside the training script"):
        get_verifier("no_such_file.verdict")
