"""Environments by content: real builds of a package made here, its installation as slow as a test wants."""

import json
import os
import signal
import subprocess
import sys
import tarfile
import textwrap
import time
import zipfile
from pathlib import Path

import pytest
from local_sagemaker.environments import (
    EnvironmentBuildError,
    build,
    build_environment,
    job_environment,
    link_environment,
)

SCRIPTS = Path(build.__file__).parents[2]
builds = pytest.mark.job  # an environment, or tries to: seconds each


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cache")
    share_uv(folder)
    return folder


@pytest.fixture
def requirements(tmp_path) -> Path:
    """A requirements file for the package `greeting`, which says hello."""
    return write_requirements(tmp_path, "hello")


def write_requirements(folder: Path, says: str) -> Path:
    wheel = folder / "greeting-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("greeting.py", f"WORD = {says!r}\n")
        archive.writestr(
            "greeting-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n"
        )
        archive.writestr(
            "greeting-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("greeting-1.0.dist-info/RECORD", "")
    file = folder / "requirements.txt"
    file.write_text(f"# what it needs\n{wheel}  # from here\n")
    return file


def write_slow_package(folder: Path, seconds: float) -> tuple[Path, Path]:
    """A requirements file whose build takes long, and the file where the build writes its process id."""
    started = folder / "started"
    package = folder / "slow"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
    )
    (package / "backend.py").write_text(
        textwrap.dedent(f"""
        import os, pathlib, shutil, time
        def build_wheel(folder, config_settings=None, metadata_directory=None):
            pathlib.Path({str(started)!r}).write_text(str(os.getpid()))
            time.sleep({seconds})
            wheel = pathlib.Path({str(folder)!r}) / "greeting-1.0-py3-none-any.whl"
            shutil.copy(wheel, folder)
            return wheel.name
        """)
    )
    write_requirements(folder, "slow hello")
    file = folder / "slow.txt"
    file.write_text(f"greeting @ {package.as_uri()}\n")
    return file, started


def share_uv(environments: Path) -> None:
    """Spares a cache of a test the installation of uv: it finds the one that this machine has."""
    environments.mkdir(exist_ok=True)
    here = build.environments_folder()
    here.mkdir(parents=True, exist_ok=True)
    uv = build._find_uv(here, print)
    assert uv, "this machine's index does not carry uv"
    link = environments / uv.parents[1].name
    if not link.exists():
        link.symlink_to(uv.parents[1])


def start_builder(requirements: Path, cache: Path) -> subprocess.Popen:
    share_uv(cache / "environments")
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "local_sagemaker.environments",
            "--name",
            "test",
            "--requirements",
            requirements,
        ],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS), "LOCAL_SAGEMAKER_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def wait_for(condition, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


def greeting_of(environment: Path) -> str:
    command = [environment / "bin" / "python", "-c", "import greeting; print(greeting.WORD)"]
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout.strip()


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@builds
def test_an_environment_is_built_once_for_its_content(requirements, cache):
    lines = []
    folder = build_environment([requirements], name="test", cache=cache, log=lines.append)
    assert greeting_of(folder) == "hello"
    assert any("Building" in line for line in lines) and "complete" in lines[-1]
    assert json.loads((folder / build.MARKER).read_text())["megabytes"] > 0

    requirements.write_text(requirements.read_text().replace("# what it needs", "\n# another comment\n"))
    lines.clear()
    assert build_environment([requirements], name="test", cache=cache, log=lines.append) == folder
    assert lines == []


@builds
def test_other_content_is_another_environment(tmp_path, requirements, cache):
    plain = build_environment([requirements], name="test", cache=cache)
    requirements.write_text(requirements.read_text() + "--prefer-binary\n")
    assert build_environment([requirements], name="test", cache=cache) != plain


@builds
def test_a_half_built_environment_is_built_again(requirements, cache):
    folder = build_environment([requirements], name="test", cache=cache)
    (folder / build.MARKER).unlink()
    (folder / "left-over").touch()
    assert build_environment([requirements], name="test", cache=cache) == folder
    assert greeting_of(folder) == "hello" and not (folder / "left-over").exists()


@builds
def test_an_environment_whose_interpreter_is_gone_is_built_again(requirements, cache):
    folder = build_environment([requirements], name="test", cache=cache)
    python = folder / "bin" / "python"
    python.unlink()
    python.symlink_to("/nowhere/python3")
    assert greeting_of(build_environment([requirements], name="test", cache=cache)) == "hello"


@builds
def test_two_builders_of_the_same_content_take_turns(tmp_path):
    requirements, _ = write_slow_package(tmp_path, seconds=2)
    builders = [start_builder(requirements, tmp_path) for _ in range(2)]
    results = [builder.communicate(timeout=120) for builder in builders]
    assert [builder.returncode for builder in builders] == [0, 0]
    assert results[0][0] == results[1][0]
    assert sum("Building environment" in err for _, err in results) == 1
    assert sum("waiting for it" in err for _, err in results) == 1


@builds
def test_the_successor_of_a_killed_builder_waits_for_its_pip_and_builds_again(tmp_path):
    requirements, started = write_slow_package(tmp_path, seconds=4)
    killed = start_builder(requirements, tmp_path)
    wait_for(started.exists)
    killed.kill()
    killed.communicate(timeout=30)
    successor = start_builder(requirements, tmp_path)
    out, err = successor.communicate(timeout=120)
    assert successor.returncode == 0 and "waiting for it" in err
    assert greeting_of(Path(out.strip())) == "slow hello"


@builds
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_builder_leaves_nothing(tmp_path, number, code):
    requirements, started = write_slow_package(tmp_path, seconds=120)
    builder = start_builder(requirements, tmp_path)
    wait_for(lambda: started.exists() and started.read_text())
    builder.send_signal(number)
    builder.communicate(timeout=30)
    assert builder.returncode == code
    wait_for(lambda: not is_running(int(started.read_text())), seconds=10)
    assert [path.suffix for path in (tmp_path / "environments").glob("test-*")] == [".lock"]


@builds
@pytest.mark.parametrize(
    "installer, reason",
    [
        (
            "uv",
            "^error: No solution found when resolving dependencies: Because no-such-package-here was not found",
        ),
        ("pip", "^ERROR: No matching distribution found for no-such-package"),
    ],
)
def test_what_could_not_be_installed_is_said_first_and_nothing_is_left(
    tmp_path, cache, monkeypatch, installer, reason
):
    monkeypatch.setenv("LOCAL_SAGEMAKER_INSTALLER", installer)
    file = tmp_path / "requirements.txt"
    file.write_text("--no-index\nno-such-package-here==1.0\n")
    with pytest.raises(EnvironmentBuildError, match=reason):
        build_environment([file], name="broken", cache=cache)
    assert not [path for path in cache.glob("broken-*") if path.is_dir()]


@builds
def test_where_uv_cannot_be_had_pip_builds(requirements, cache, tmp_path, monkeypatch):
    """Pinned here to a version that no index has, as in a company whose index does not carry uv."""
    monkeypatch.setattr(build, "UV_VERSION", "0.0.0.999")
    lines = []
    requirements.write_text(requirements.read_text() + "--only-binary :all:\n")
    folder = build_environment([requirements], name="test", cache=cache, log=lines.append)
    assert greeting_of(folder) == "hello" and (folder / "bin" / "pip").exists()
    assert any("uv cannot be had here, so pip builds" in line and "0.0.0.999" in line for line in lines)
    assert not (cache / "uv-0.0.0.999").exists()


@builds
def test_environments_share_what_both_hold(tmp_path, requirements, cache):
    """uv links a package's files into each environment from its own cache, so that a second one takes no room."""
    first = build_environment([requirements], name="one", cache=cache)
    second = build_environment([requirements], name="two", cache=cache)
    modules = [next(folder.glob("lib/python*/site-packages/greeting.py")) for folder in (first, second)]
    assert modules[0] != modules[1] and modules[0].stat().st_ino == modules[1].stat().st_ino


@builds
def test_a_process_of_an_environment_looks_for_garbage_rarely(requirements, cache):
    folder = build_environment([requirements], name="test", cache=cache)
    command = [folder / "bin" / "python", "-c", "import gc; print(gc.get_threshold())"]
    assert subprocess.run(command, capture_output=True, text=True).stdout.strip() == "(10000, 10, 10)"


@builds
def test_what_python_says_of_a_package_is_not_shown_and_what_it_says_of_one_s_own_file_is(
    requirements, cache, tmp_path
):
    folder = build_environment([requirements], name="test", cache=cache)
    (packages,) = folder.glob("lib/python*/site-packages")
    command = [folder / "bin" / "python", "-c", "import doubtful"]
    for place, said in {packages: False, tmp_path: True}.items():
        (place / "doubtful.py").write_text("SAME = 1 is 1\n")
        shown = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=True).stderr
        (place / "doubtful.py").unlink()
        assert ("SyntaxWarning" in shown) == said


@builds
def test_modules_beside_the_requirements_and_settings_of_the_shell_do_not_reach_pip(
    tmp_path, requirements, cache, monkeypatch
):
    (tmp_path / "logging.py").write_text("raise RuntimeError('the job has its own logging.py')\n")
    requirements.write_text(requirements.read_text() + "--prefer-binary\n--no-index\n")
    monkeypatch.setenv("PIP_TARGET", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    folder = build_environment([requirements], name="test", cache=cache)
    monkeypatch.delenv("PYTHONPATH")
    assert greeting_of(folder) == "hello"


def test_no_room_is_said_before_anything_is_written(requirements, tmp_path):
    with pytest.raises(EnvironmentBuildError, match="No space left on .*LOCAL_SAGEMAKER_CACHE"):
        build_environment([requirements], name="test", cache=tmp_path / "cache", disk_gb=1e9)
    assert not [path for path in (tmp_path / "cache").iterdir() if path.is_dir()]


def test_an_old_python_is_refused_with_the_way_out(requirements, cache, monkeypatch):
    monkeypatch.setattr(build, "PYTHON_NEEDED", (99, 0))
    with pytest.raises(EnvironmentBuildError, match="Python 99.0 or newer is needed.*make PYTHON="):
        build_environment([requirements], name="test", cache=cache)


def test_a_python_that_cannot_unpack_a_job_s_output_is_refused_before_anything_is_built(
    requirements, cache, monkeypatch
):
    """Debian 12 has 3.11.2, whose tarfile knows no filter: the first job's output could not have been fetched."""
    monkeypatch.setattr(sys, "version_info", (3, 11, 2, "final", 0))
    with pytest.raises(EnvironmentBuildError, match="Python 3.11.4 or newer is needed"):
        build_environment([requirements], name="test", cache=cache)
    assert hasattr(tarfile, "data_filter")  # what the least version is for


@pytest.mark.parametrize("version", [(3, 11, 4), (3, 12, 0), (3, 13, 0)])
def test_the_pythons_that_the_readme_names_are_taken(requirements, tmp_path, monkeypatch, version):
    monkeypatch.setattr(sys, "version_info", (*version, "final", 0))
    with pytest.raises(EnvironmentBuildError, match="No space left on"):  # the check that comes next
        build_environment([requirements], name="test", cache=tmp_path / "cache", disk_gb=1e9)


@builds
def test_a_job_environment_is_base_and_own_requirements(tmp_path, requirements, cache):
    base = tmp_path / "base.txt"
    base.write_text("--prefer-binary\n")
    with_own = job_environment(requirements, log=print, base=base, cache=cache)
    without = job_environment(None, log=print, base=base, cache=cache)
    assert greeting_of(with_own) == "hello" and with_own != without


def test_the_link_is_moved_but_a_folder_in_its_place_is_left_alone(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        link_environment(tmp_path / ".venv", tmp_path / name)
    assert (tmp_path / ".venv").resolve() == tmp_path / "two"
    (tmp_path / "mine").mkdir()
    with pytest.raises(EnvironmentBuildError, match="not a link made here"):
        link_environment(tmp_path / "mine", tmp_path / "one")
    assert (tmp_path / "mine").is_dir() and not (tmp_path / "mine").is_symlink()


@builds
def test_the_command_line_prints_the_folder_or_the_reason(tmp_path, requirements, cache):
    builder = start_builder(requirements, cache)
    out, _ = builder.communicate(timeout=120)
    assert builder.returncode == 0 and greeting_of(Path(out.strip())) == "hello"
    builder = start_builder(tmp_path / "absent.txt", cache)
    out, err = builder.communicate(timeout=60)
    assert builder.returncode == 1 and out == "" and err.startswith("error: Requirements file")
