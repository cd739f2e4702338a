"""scripts/check_drift.py: which pins it raises. That it runs is seen each week (.github/workflows/drift.yml)."""

from pathlib import Path

import check_drift
import pytest

ROOT = Path(__file__).resolve().parents[1]
FILES = sorted(path for path in ROOT.glob("**/*requirements*.txt") if "container" not in path.parts)


def test_only_the_sets_own_pins_are_raised():
    text = "trl==1.16.0\ntrlx==1.0\nray[default]==2.60.0\n# trl==1\ntorch==2.13.0  # stays\n"
    raised = "trl>=1.16.0\ntrlx==1.0\nray[default]>=2.60.0\n# trl==1\ntorch==2.13.0  # stays\n"
    assert check_drift.loosen(text, ("trl", "ray")) == raised


@pytest.mark.parametrize("library", check_drift.LIBRARIES)
def test_every_name_of_a_set_is_pinned_somewhere_and_its_tests_are_there(library):
    texts = [path.read_text() for path in FILES]
    for name in check_drift.LIBRARIES[library]:
        assert any(check_drift.loosen(text, (name,)) != text for text in texts), name
    assert all((ROOT / "tests" / name).is_file() for name in check_drift.TESTS[library])


def test_each_patch_is_tried_against_what_is_new():
    tried = {name for names in check_drift.TESTS.values() for name in names}
    assert {path.name for path in ROOT.glob("tests/test_compat*.py")} <= tried


def test_an_unknown_set_is_refused(capsys):
    assert check_drift.main(["trll"]) == 2
    assert "No set is named trll; there are trl, sagemaker, unsloth, verl." in capsys.readouterr().err
