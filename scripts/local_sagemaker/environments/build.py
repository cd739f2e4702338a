"""Virtual environments by content: the same requirements give the same, shared, complete environment.

It runs before anything is installed, so it uses the standard library only.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import hashlib
import importlib.util
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

from local_sagemaker.environments.installer import EnvironmentBuildError, Log, run_installer
from local_sagemaker.environments.pip_settings import uv_arguments, uv_variables

BASE_REQUIREMENTS = Path(__file__).parents[1] / "base-requirements.txt"
PIP_VERSION = "26.3"  # older ones need many times longer to resolve these sets
UV_VERSION = "0.13.9"
# The first with the filters of tarfile (PEP 706), with which archives are unpacked.
PYTHON_NEEDED = (3, 11, 4)
# 3.5 GB is the largest CPU environment; pip unpacks beside it, uv shares what another has.
DISK_NEEDED_GB = 5.0
MARKER = "environment.json"  # written last: a folder without it is half-built
# What each start of an environment's Python does. Garbage is looked for less often, which takes an import of TRL, one of 5,000
# modules, from 7.8 s to 6.7 s; and no warning is given of a "\|" in a package's strings, as Python 3.12 and later do.
AT_START = (
    "import gc; gc.set_threshold(10_000, 10, 10)\n"
    "import warnings; warnings.filterwarnings('ignore', category=SyntaxWarning, module='.*site-packages')\n"
)


def build_environment(
    requirements: list[Path],
    *,
    name: str,
    first: Sequence[str] = (),
    disk_gb: float = DISK_NEEDED_GB,
    log: Log = print,
    cache: Path | None = None,
) -> Path:
    """The folder of a complete virtual environment that holds `requirements`, built if there is none yet.

    `first` are requirements files or specifiers to install before the rest (torch: other packages would
    otherwise choose a build of it). Two builders of the same content take turns; one that was killed leaves a
    folder without a marker, which the next one builds again. `disk_gb` must be free before one is built. `log`
    receives progress, a line at a time; `cache` is the folder to keep environments in (default:
    `environments_folder()`).

    uv builds it (environments share its wheels by hard links), or pip where uv cannot be had, or where
    LOCAL_SAGEMAKER_INSTALLER is "pip".

    Raises EnvironmentBuildError: unreadable requirements, no disk space, or the installer's own error.
    """
    if sys.version_info < PYTHON_NEEDED:
        raise EnvironmentBuildError(
            f"Python {'.'.join(map(str, PYTHON_NEEDED))} or newer is needed, {sys.executable} is "
            f"{platform.python_version()}. With make: make PYTHON=python3.12 ..."
        )
    content = _content(first, requirements)
    root = cache or environments_folder()
    folder = root / f"{name}-{_digest(content)}"
    if _is_complete(folder):
        return folder
    with _lock(folder, log) as lock:
        if not _is_complete(folder):  # another builder may have finished it while this one waited
            _check_disk(root, disk_gb)
            uv = _find_uv(root, log)
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _build(folder, first, requirements, content, log, lock, uv)
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return folder


def job_environment(
    requirements_txt: Path | None,
    *,
    log: Log,
    base: Path = BASE_REQUIREMENTS,
    cache: Path | None = None,
) -> Path:
    """The environment of a training job: what the image brings (`base`) plus the job's own requirements.txt.

    Raises EnvironmentBuildError as `build_environment` does, and for a requirements.txt that names torch.
    """
    files = [base]
    if requirements_txt is not None:
        check_job_requirements(requirements_txt)
        files.append(requirements_txt)
    return build_environment(files, name="job", first=[str(base)], log=log, cache=cache)


def check_job_requirements(requirements_txt: Path) -> None:
    """Raise EnvironmentBuildError if a job's requirements.txt cannot be read or names torch."""
    for line in requirement_lines(requirements_txt):
        if re.match(r"torch\s*($|[=<>!~@;\[\s])", line, re.IGNORECASE):
            raise EnvironmentBuildError(
                f"{requirements_txt}: '{line}': a job's requirements.txt must not name torch. The training image "
                "brings the build that matches its CUDA and drivers; another one would replace it. Remove the line; "
                "the version of torch is chosen with the image."
            )


def environments_folder() -> Path:
    """Where environments are kept: shared by all clones of one user, so that a second clone builds nothing."""
    home = os.environ.get("LOCAL_SAGEMAKER_CACHE")
    if not home:
        home = os.path.join(
            os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "local_sagemaker"
        )
    return Path(home).expanduser().absolute() / "environments"


def requirement_lines(path: Path, above: tuple[Path, ...] = ()) -> list[str]:
    """The meaningful lines of a requirements file: without comments and blanks, `-r` and `-c` files included.

    `above` are the files that include this one. Raises EnvironmentBuildError for a file that is not there, that includes
    itself, or that is none (a pipe would be read for ever).
    """
    path = Path(path)
    try:
        own = path.resolve()
        if own in above:
            raise EnvironmentBuildError(f"Requirements file {path} includes itself: take that line out.")
        if path.exists() and not path.is_file():
            raise OSError("it is no file")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError, RuntimeError) as error:  # a name with a zero byte; links in a circle
        raise EnvironmentBuildError(f"Requirements file {path} cannot be read: {error}") from error
    lines = []
    for line in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        included = re.match(r"(?:-r|--requirement|-c|--constraint)[\s=]+(.+)", line)
        if included:
            lines += requirement_lines(path.parent / included.group(1).strip(), (*above, own))
        elif line:
            lines.append(line)
    return lines


def link_environment(link: Path, environment: Path) -> None:
    """Make `link` a symbolic link to `environment`; raise EnvironmentBuildError if something else is there."""
    if link.exists() and not link.is_symlink():
        raise EnvironmentBuildError(
            f"{link} exists and is not a link made here, so it is left alone. Rename or remove it, then try again."
        )
    fresh = link.with_name(f"{link.name}.{os.getpid()}")
    fresh.symlink_to(environment)
    fresh.replace(link)


def _local_files(line: str) -> list[str]:
    """The text of the files of a package that lies in a folder, such as ./scripts/name, which pip reads from here too."""
    folder = Path(line)
    if not line.startswith(("./", "../")) or not (folder / "pyproject.toml").is_file():
        return []
    return [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*")) if path.is_file()]


def _content(first: Sequence[str], requirements: list[Path]) -> dict:
    """Everything that decides what an environment holds."""

    def lines(item: str | Path) -> list[str]:
        found = requirement_lines(Path(item)) if Path(item).is_file() else [str(item)]
        return [text for line in found for text in (line, *_local_files(line))]

    missing = [str(path) for path in requirements if not Path(path).is_file()]
    if missing:
        raise EnvironmentBuildError(f"Requirements file {missing[0]} does not exist.")
    return {
        "python": sys.version,
        "platform": f"{platform.system()} {platform.machine()}",
        "interpreter": os.path.realpath(_base_python()),
        "pip": PIP_VERSION,
        "at start": AT_START,
        "first": [lines(item) for item in first],
        "requirements": [lines(path) for path in requirements],
    }


def _digest(content: dict) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _base_python() -> str:
    """The interpreter behind this one if this one is itself in a virtual environment."""
    return getattr(sys, "_base_executable", None) or sys.executable


def _is_complete(folder: Path) -> bool:
    # The link bin/python dangles once the interpreter that it points to is gone: then build again.
    return (folder / MARKER).is_file() and os.access(folder / "bin" / "python", os.X_OK)


@contextlib.contextmanager
def _lock(folder: Path, log: Log) -> Iterator[int]:
    """Hold the builder's lock of `folder`; yields its file descriptor.

    flock and not filelock: nothing is installed yet, and an installer that outlives its builder holds the lock too.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder.with_name(folder.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise EnvironmentBuildError(
            f"The folder for environments cannot be written: {error}. "
            "Set LOCAL_SAGEMAKER_CACHE to a folder that you may write to."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            log(f"Environment {folder.name} is being built by another process; waiting for it.")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield descriptor
    finally:
        os.close(descriptor)


def _check_disk(root: Path, needed_gb: float) -> None:
    free = shutil.disk_usage(root).free / 1e9
    if free < needed_gb:
        raise EnvironmentBuildError(
            f"No space left on {root} for an environment: {free:.1f} GB are free, {needed_gb:.1f} GB needed. "
            "Free some (environments there may be deleted, they are built again when needed) or set "
            "LOCAL_SAGEMAKER_CACHE to a folder on a larger disk."
        )


def _find_uv(root: Path, log: Log) -> Path | None:
    """uv, installed by pip once, into a folder of its own; None where pip is to be used."""
    if os.environ.get("LOCAL_SAGEMAKER_INSTALLER") == "pip":
        return None
    folder = root / f"uv-{UV_VERSION}"
    if (folder / MARKER).is_file():
        return folder / "bin" / "uv"
    with _lock(folder, log) as lock:
        if not (folder / MARKER).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            try:
                _create_venv(folder, lock)
                _pip(
                    folder,
                    ["install", "--quiet", "--only-binary", ":all:", f"uv=={UV_VERSION}"],
                    cwd=root,
                    log=None,
                    lock=lock,
                )
                (folder / MARKER).write_text(json.dumps({"uv": UV_VERSION}))
            except (EnvironmentBuildError, OSError, subprocess.CalledProcessError) as error:
                shutil.rmtree(folder, ignore_errors=True)
                reason = str(error).splitlines()[0]
                log(
                    f"uv cannot be had here, so pip builds, which takes several times as long. The reason: {reason}"
                )
                return None
            except BaseException:
                shutil.rmtree(folder, ignore_errors=True)
                raise
    return folder / "bin" / "uv"


def _build(
    folder: Path,
    first: Sequence[str],
    requirements: list[Path],
    content: dict,
    log: Log,
    lock: int,
    uv: Path | None,
) -> None:
    """Create `folder`, at its final path since a virtual environment cannot be moved; the marker comes last."""
    started = time.monotonic()
    names = ", ".join(Path(path).name for path in requirements)
    log(
        f"Building environment {folder.name} from {names}: once for this content, {'a minute' if uv else 'a few minutes'}."
    )
    here = Path(requirements[-1]).absolute().parent
    sets = [_as_arguments(first), _as_arguments([str(path) for path in requirements])]
    try:
        if uv:
            _build_with_uv(uv, folder, [argument for items in sets for argument in items], here, log, lock)
        else:
            _create_venv(folder, lock)
            for items in filter(None, sets):
                _pip(folder, ["install", *items], cwd=here, log=log, lock=lock)
        (packages,) = folder.glob("lib/python*/site-packages")
        (packages / "at_start.pth").write_text(AT_START)
    except (OSError, subprocess.CalledProcessError) as error:
        raise EnvironmentBuildError(f"Environment {folder.name} could not be created: {error}") from error
    seconds = time.monotonic() - started
    size = sum(path.lstat().st_size for path in folder.rglob("*")) / 1e6
    record = {**content, "seconds": round(seconds, 1), "megabytes": round(size)}
    fresh = folder / f"{MARKER}.new"
    fresh.write_text(json.dumps(record, indent=1), encoding="utf-8")
    fresh.replace(folder / MARKER)
    log(f"Environment {folder.name} is complete: {seconds:.0f} s, {size:,.0f} MB.")


def _as_arguments(items: Sequence[str]) -> list[str]:
    """What `install` is given for requirements files and specifiers."""
    arguments = []
    for item in items:
        arguments += ["-r", os.path.abspath(item)] if Path(item).is_file() else [item]
    return arguments


def _build_with_uv(uv: Path, folder: Path, items: list[str], cwd: Path, log: Log, lock: int) -> None:
    """Create `folder` with pip in it, for what jobs install themselves, and install all items at once."""
    settings = uv_variables(os.environ) | {"UV_PYTHON_DOWNLOADS": "never"}
    # Beside the environments, on one disk with them: only so can its wheels be linked.
    settings["UV_CACHE_DIR"] = os.environ.get("UV_CACHE_DIR") or str(folder.parent / "uv-cache")
    run = functools.partial(run_installer, cwd=cwd, lock=lock, settings=settings)
    plain = ["--color", "never", "--no-progress"]
    run([str(uv), "venv", *plain, "--no-project", "--python", _base_python(), str(folder)], log=None)
    install = [str(uv), "pip", "install", *plain, "--python", str(folder / "bin" / "python")]
    install += uv_arguments(os.environ)
    run([*install, f"pip=={PIP_VERSION}"], log=None)
    run([*install, *items], log=log)


def _create_venv(folder: Path, lock: int) -> None:
    # Debian's python3 comes without ensurepip; the pip outside then puts one into the new environment.
    has_ensurepip = importlib.util.find_spec("ensurepip") is not None
    venv.EnvBuilder(with_pip=has_ensurepip, symlinks=True).create(folder)
    python = str(folder / "bin" / "python")
    installer = (
        [python, "-I", "-m", "pip"] if has_ensurepip else [_base_python(), "-m", "pip", "--python", python]
    )
    run_installer([*installer, "install", "--quiet", f"pip=={PIP_VERSION}"], folder, None, lock)


def _pip(folder: Path, arguments: list[str], *, cwd: Path, log: Log | None, lock: int) -> None:
    # -I: a job's own modules (logging.py, requests.py) in the working folder must not shadow pip's imports.
    command = [str(folder / "bin" / "python"), "-I", "-m", "pip", *arguments]
    run_installer([*command, "--progress-bar", "off", "--no-color"], cwd, log, lock)
