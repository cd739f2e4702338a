"""Requirements files as environments read them: what counts as their content, and what a job's may not name."""

import pytest
from local_sagemaker.environments import (
    EnvironmentBuildError,
    build,
    build_environment,
    check_job_requirements,
    job_environment,
    requirement_lines,
)


def test_a_missing_requirements_file_is_named(tmp_path):
    with pytest.raises(EnvironmentBuildError, match="absent.txt does not exist"):
        build_environment([tmp_path / "absent.txt"], name="test", cache=tmp_path / "cache")


def test_included_files_count_as_content(tmp_path):
    (tmp_path / "base.txt").write_text("one==1 # why\n\n")
    (tmp_path / "all.txt").write_text("-r base.txt\ntwo==2 \\\n  --hash=sha256:0\n")
    assert requirement_lines(tmp_path / "all.txt") == ["one==1", "two==2    --hash=sha256:0"]


@pytest.mark.parametrize(
    "line", ["torch", "torch==2.13.0", "Torch >= 2", "torch[opt]", "torch; python_version > '3'"]
)
def test_a_job_that_names_torch_is_refused(tmp_path, line):
    file = tmp_path / "requirements.txt"
    file.write_text(f"numpy\n{line}\n")
    with pytest.raises(EnvironmentBuildError, match="must not name torch.*The training image brings"):
        job_environment(file, log=print, cache=tmp_path / "cache")


def test_packages_that_only_begin_like_torch_are_allowed(tmp_path):
    file = tmp_path / "requirements.txt"
    file.write_text("torchmetrics==1.0\ntorch-geometric\ntransformers # needs torch\n")
    check_job_requirements(file)


def test_the_files_of_a_package_in_a_folder_count_as_content(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    package = tmp_path / "own"
    package.mkdir()
    (package / "pyproject.toml").write_text("[project]\n")
    requirements = tmp_path / "requirements.txt"
    requirements.write_text("./own\n")
    one = build._content([], [requirements])
    (package / "own.py").write_text("a = 1\n")
    assert build._content([], [requirements]) != one
