"""Where things are in a checkout of the workshop, and that they can be written."""

import tempfile
from pathlib import Path

from workshop.errors import WorkshopError

SCRIPTS = Path(__file__).resolve().parents[1]
REPOSITORY = SCRIPTS.parent
BUILD = REPOSITORY / "build"  # everything a notebook writes; git-ignored


class FolderError(WorkshopError):
    """A folder of the workshop cannot be written."""


def check_writable(folder: Path = BUILD) -> None:
    """Make `folder` and try to write into it. Raises FolderError with the reason and what to do."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise FolderError(
            f"{folder} cannot be written ({error.strerror}). Notebooks keep there what they make: staged code, results, the "
            "local endpoint's files. Copy or clone the workshop to a folder that is yours, and open the notebook there: "
            f"cp -r {REPOSITORY} ~/"
        ) from error
