"""The models that lie in the repository: each is small, safe to open, and has a card."""

import pytest
from job.models import ASSETS

FOLDERS = sorted(path for path in ASSETS.iterdir() if (path / "model.safetensors").is_file())


def test_there_are_models():
    assert {"tiny", "tiny-even", "tiny-till", "tiny-tools"} <= {folder.name for folder in FOLDERS}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)
def test_weights_are_small_and_safe(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 2_000_000
    assert not [path for path in files if path.suffix in (".bin", ".pt", ".pkl")]
    assert "license:" in (folder / "README.md").read_text()
