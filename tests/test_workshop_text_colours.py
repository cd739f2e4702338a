"""Coloured words are legible in a light and in a dark notebook."""

from pathlib import Path

import pytest
from workshop import text_colours

GROUNDS = {"white": "#ffffff", "JupyterLab's dark theme": "#111111"}
NAMED = {name: value for name, value in vars(text_colours).items() if name.isupper()}
SCRIPTS = Path(text_colours.__file__).parents[1]


def luminance(colour: str) -> float:
    """Relative luminance, https://www.w3.org/TR/WCAG21/#dfn-relative-luminance."""
    parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(first: str, second: str) -> float:
    dark, light = sorted((luminance(first), luminance(second)))
    return (light + 0.05) / (dark + 0.05)


def test_contrast_is_that_of_the_definition() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


@pytest.mark.parametrize("ground", GROUNDS.values(), ids=GROUNDS)
@pytest.mark.parametrize("colour", NAMED.values(), ids=NAMED)
def test_words_are_legible(colour: str, ground: str) -> None:
    assert contrast(colour, ground) >= 4


def test_html_names_its_colours_here() -> None:
    """A literal in a style is one that nobody has looked at in the dark."""
    files = [path for path in (SCRIPTS / "workshop").rglob("*.py") if "color:#" in path.read_text()]
    assert not files
