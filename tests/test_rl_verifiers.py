"""Verdicts: each case with what a person would say, the golds that can be reached, and a verifier of one's own."""

from pathlib import Path

import pytest
from rl.verifiers import (
    VERIFIERS,
    VerifierError,
    choice,
    exact,
    get_verifier,
    math,
    text,
    usable,
)

TESTS = Path(__file__).parent


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
        ("__Paris__", "Paris", True),
        ("_Paris_.", "Paris", True),
        ('"**Paris.**"', "Paris", True),
        ("**__init__**", "__init__", True),
        ("**kwargs", "`**kwargs`", True),
        ("init", "__init__", False),
        ("kwargs", "**kwargs", False),
        ("A", "A*", False),
        ("x", "_x", False),
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
