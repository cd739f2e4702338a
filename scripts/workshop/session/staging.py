"""Stage a job's source: a module's own scripts plus what all modules share, in one folder.

The SDK ships `source_dir` and nothing else (it has no `dependencies`), so the shared packages have to lie inside it.
"""

import shutil
import tempfile
from pathlib import Path

from workshop.errors import WorkshopError
from workshop.folders import BUILD, SCRIPTS, check_writable
from workshop.secrets import secret_files

SHARED = ("rl", "job", "compat", "assets")
MAX_FILE_BYTES = 20 * 1024 * 1024
# Hidden files (.env, .git, .ipynb_checkpoints) hold secrets or clutter; none belongs into a job.
_IGNORED = shutil.ignore_patterns(".*", "__pycache__", "*.pyc", "*.ipynb")


class StagingError(WorkshopError):
    """The scripts cannot be staged: a missing folder, a name taken twice, or a file that is too large, secret or elsewhere."""


def stage_source(scripts: Path | str, *, build: Path | None = None) -> Path:
    """Copy `scripts` (a module's folder) and the shared folders (SHARED) into a new folder; return it.

    The folder lies under `build/staged/`. Every call makes its own, so an edit made afterwards cannot change
    what a job was sent. Raises StagingError, FolderError when build/ cannot be written.
    """
    scripts = Path(scripts).resolve()
    if not scripts.is_dir():
        raise StagingError(f"{scripts} is not a folder: pass the module's `scripts` folder.")
    taken = [name for name in SHARED if (scripts / name).exists()]
    if taken:
        raise StagingError(
            f"{scripts} has its own {', '.join(taken)}, a name that the shared scripts take in a job: rename it."
        )
    _refuse_links_out(scripts)
    staged_root = (build or BUILD) / "staged"
    check_writable(staged_root)
    staged = Path(tempfile.mkdtemp(prefix=f"{scripts.parent.name}-", dir=staged_root))
    try:
        shutil.copytree(scripts, staged, ignore=_IGNORED, dirs_exist_ok=True)
        for name in SHARED:
            shutil.copytree(SCRIPTS / name, staged / name, ignore=_IGNORED)
        _refuse_large_files(staged, scripts)
        _refuse_secrets(staged, scripts)
    except shutil.Error as error:  # copytree collects one (source, target, reason) for each file that failed
        shutil.rmtree(staged)
        failed = "; ".join(f"{source}: {reason}" for source, _, reason in error.args[0])
        raise StagingError(f"These files could not be copied: {failed}.") from error
    except StagingError:
        shutil.rmtree(staged)
        raise
    return staged


def _refuse_large_files(staged: Path, scripts: Path) -> None:
    for path in sorted(staged.rglob("*")):
        if path.is_file() and path.stat().st_size > MAX_FILE_BYTES:
            raise StagingError(
                f"{scripts / path.relative_to(staged)} has {path.stat().st_size / 2**20:.0f} MB: data and models "
                "go to a job as a channel (InputData), not as source. Move it out of the scripts folder."
            )


def _refuse_links_out(scripts: Path) -> None:
    """A link out of the folder would be followed, and ship what nobody meant to."""
    for path in sorted(scripts.rglob("*")):
        if path.is_symlink() and not path.resolve().is_relative_to(scripts):
            raise StagingError(
                f"{path} is a link to {path.resolve()}, outside the scripts folder: put a copy there if the job needs it."
            )


def _refuse_secrets(staged: Path, scripts: Path) -> None:
    for path, why in secret_files(staged):
        raise StagingError(
            f"{scripts / path.relative_to(staged)} is not sent to a job, where everyone who may read its source could read it: "
            f"{why}. Move it out of the scripts folder, and have the job read a secret by name (docs/secrets.md)."
        )
