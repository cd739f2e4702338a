"""The tiny model with an even vocabulary: the tiny model and a row of zeros, and what its card claims."""

import re

import pad_tiny_model
import pytest
import torch
from job.models import ASSETS, load_base
from safetensors.torch import load_file

FOLDER = ASSETS / "tiny-even"


def test_it_is_the_tiny_model_and_a_row_of_zeros():
    even, tiny = (load_file(ASSETS / name / "model.safetensors") for name in ("tiny-even", "tiny"))
    assert even.keys() == tiny.keys()
    for name, values in tiny.items():
        rows = len(values)
        assert torch.equal(even[name][:rows], values), name
        assert not even[name][rows:].any(), name
    assert len(even["model.embed_tokens.weight"]) == len(tiny["model.embed_tokens.weight"]) + 1 == 328


def test_the_script_makes_it(tmp_path, monkeypatch):
    output = tmp_path / "tiny-even"
    monkeypatch.setattr("sys.argv", ["pad_tiny_model.py", "--output", str(output)])
    pad_tiny_model.main()
    for path in output.iterdir():
        assert path.suffix == ".md" or path.read_bytes() == (FOLDER / path.name).read_bytes(), path.name
    with pytest.raises(SystemExit):  # it is there now
        pad_tiny_model.main()


def test_card_gives_the_measured_figures():
    measured = pad_tiny_model.measure(*load_base("asset:tiny-even"))
    card = (FOLDER / "README.md").read_text()
    for row, name in {
        "probability of the row, mean over the prompts' tokens of 100 problems": "mean",
        "the largest": "largest",
    }.items():
        claimed = float(re.search(rf"\| {re.escape(row)} \| (\S+) \|", card)[1])
        assert measured[name] == pytest.approx(claimed, rel=0.05), row
