"""Check that this kernel has the packages that the workshop was tested with, before anything can fail halfway."""

import os
import re
import sys
from importlib import metadata
from pathlib import Path

from workshop.errors import WorkshopError

KERNEL = "RL workshop"  # the Makefile registers it under this name
# Each is in every app of a Studio space: the first is documented by AWS, the second is read by the image's own scripts.
_STUDIO_FILE, _STUDIO_VARIABLE = Path("/opt/ml/metadata/resource-metadata.json"), "SAGEMAKER_APP_TYPE"
_PIN = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^\s;#]+)")


class VersionError(WorkshopError):
    """A package is missing or of another release than the workshop was tested with."""


def check_versions(requirements: Path | str) -> None:
    """Compare the installed packages with the pins (`name==version` lines) of a requirements file.

    Releases that differ in the last number only are accepted. Raises VersionError, naming every package that is
    missing or differs by more, with the command that mends it.
    """
    if sys.version_info < (3, 11, 4):  # noqa: UP036 (a Studio kernel may be older); tarfile's filters came then
        raise VersionError(
            f"This kernel runs Python {sys.version.split()[0]}; the workshop needs 3.11.4 or newer.\n"
            + _what_to_do(requirements)
        )
    pins = [
        match.groups() for line in Path(requirements).read_text().splitlines() if (match := _PIN.match(line))
    ]
    wrong = []
    for name, wanted in pins:
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            wrong.append(f"{name}: missing, {wanted} is needed")
            continue
        if found.split(".")[:2] != wanted.split(".")[:2]:
            wrong.append(f"{name}: {found} is installed, {wanted} is needed")
    if wrong:
        raise VersionError(
            "This kernel does not have what the workshop was tested with:\n  "
            + "\n  ".join(wrong)
            + "\n"
            + _what_to_do(requirements)
        )
    print(f"Python {sys.version.split()[0]}, {len(pins)} packages as tested")


def in_studio() -> bool:
    """True in an app of SageMaker Studio."""
    return _STUDIO_FILE.is_file() or bool(os.environ.get(_STUDIO_VARIABLE))


def _what_to_do(requirements: Path | str) -> str:
    if in_studio():
        return (
            "In SageMaker Studio, leave this kernel as it is: it is JupyterLab's own. Open a terminal (File > New > "
            f'Terminal), run `make studio` in the workshop\'s folder, and choose the kernel "{KERNEL}" (Kernel > Change '
            "Kernel; restart it if it is chosen already). docs/studio.md says more."
        )
    path = Path(requirements).resolve()
    # From its own folder: pip reads the paths in a requirements file from where it is started.
    install = f'!cd "{path.parent}" && "{sys.executable}" -m pip install -r {path.name}'
    return f"Run `make lab` in the workshop's folder, which brings all of it; or run `{install}` in a cell and restart the kernel."
