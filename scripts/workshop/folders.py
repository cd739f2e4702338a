"""Where things are in a checkout of the workshop."""

from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[1]
REPOSITORY = SCRIPTS.parent
BUILD = REPOSITORY / "build"  # everything a notebook writes; git-ignored
