"""Figures on the cards of the tiny models, compared with what is measured."""

import re
from collections.abc import Mapping

import pytest
from job.models import ASSETS


def check_card(asset: str, rows: Mapping[str, str], measured: Mapping[str, float], within: float) -> None:
    """Each row of the card says what was measured under this name. Another processor rounds differently, so that a sampled
    token may tip over: they may differ by `within`."""
    card = (ASSETS / asset / "README.md").read_text()
    for row, name in rows.items():
        claimed = float(re.search(rf"\| {row} \| ([0-9.]+) \|", card)[1])
        assert measured[name] == pytest.approx(claimed, abs=within), row
