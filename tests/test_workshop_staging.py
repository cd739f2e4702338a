"""Staged sources hold what a job needs, nothing hidden, and refuse what cannot be shipped."""

import re
from pathlib import Path

import pytest
from workshop.folders import FolderError
from workshop.session import connection, staging
from workshop.session.staging import StagingError, stage_source


@pytest.fixture
def shared(tmp_path, monkeypatch) -> Path:
    """Stands for the repository's `scripts`, with small shared folders."""
    folder = tmp_path / "scripts"
    for name, text in {
        "rl/__init__.py": "",
        "rl/tasks.py": "shared",
        "job/container.py": "shared",
        "compat/__init__.py": "",
        "assets/tiny/config.json": "{}",
    }.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    (folder / "rl" / "__pycache__").mkdir()
    (folder / "rl" / "__pycache__" / "tasks.cpython-311.pyc").write_text("")
    monkeypatch.setattr(staging, "SCRIPTS", folder)
    return folder


@pytest.fixture
def scripts(tmp_path) -> Path:
    folder = tmp_path / "02_module" / "scripts"
    (folder / "recipes").mkdir(parents=True)
    (folder / "train.py").write_text("module")
    (folder / "recipes" / "tiny.yaml").write_text("seed: 1")
    return folder


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_module_and_shared_scripts_lie_in_one_folder(shared, scripts, tmp_path):
    staged = stage_source(scripts, build=tmp_path / "build")
    assert staged.parent == tmp_path / "build" / "staged" and staged.name.startswith("02_module-")
    assert files(staged) == {
        "train.py",
        "recipes/tiny.yaml",
        "compat/__init__.py",
        "job/container.py",
        "rl/__init__.py",
        "rl/tasks.py",
        "assets/tiny/config.json",
    }


def test_hidden_files_caches_and_notebooks_stay_behind(shared, scripts, tmp_path):
    for name in (
        ".env",
        ".ipynb_checkpoints/train.py",
        "__pycache__/train.pyc",
        "notes.ipynb",
        "recipes/.secret",
    ):
        (scripts / name).parent.mkdir(parents=True, exist_ok=True)
        (scripts / name).write_text("x")
    staged = stage_source(scripts, build=tmp_path / "build")
    assert not [name for name in files(staged) if re.search(r"(^|/)\.|pycache|ipynb", name)]


def test_every_call_stages_afresh(shared, scripts, tmp_path):
    first = stage_source(scripts, build=tmp_path / "build")
    (scripts / "train.py").write_text("edited")
    second = stage_source(scripts, build=tmp_path / "build")
    assert (first / "train.py").read_text() == "module"
    assert (second / "train.py").read_text() == "edited"


def test_the_real_shared_scripts_are_staged(scripts, tmp_path):
    staged = stage_source(scripts, build=tmp_path / "build")
    assert {"train.py", "rl/rewards.py", "job/container.py"} <= files(staged)


@pytest.mark.parametrize("name", ["rl/mine.py", "assets"])
def test_a_name_that_the_shared_scripts_take(shared, scripts, tmp_path, name):
    (scripts / name).parent.mkdir(exist_ok=True)
    (scripts / name).write_text("x")
    with pytest.raises(StagingError, match=f"has its own {name.split('/')[0]}"):
        stage_source(scripts, build=tmp_path / "build")


def test_a_large_file_is_refused_and_leaves_nothing_behind(shared, scripts, tmp_path):
    with open(scripts / "model.safetensors", "wb") as file:
        file.truncate(staging.MAX_FILE_BYTES + 1)
    with pytest.raises(StagingError, match="model.safetensors has 20 MB: .*channel"):
        stage_source(scripts, build=tmp_path / "build")
    assert not list((tmp_path / "build" / "staged").iterdir())


def test_a_broken_link_is_named(shared, scripts, tmp_path):
    (scripts / "data.txt").symlink_to(scripts / "gone")
    with pytest.raises(StagingError, match="data.txt"):
        stage_source(scripts, build=tmp_path / "build")
    assert not list((tmp_path / "build" / "staged").iterdir())


def test_a_workshop_that_cannot_be_written(shared, scripts, tmp_path, monkeypatch):
    """Root may write everywhere, so the folder for `build` is one that nobody can make."""
    nobodys = Path("/dev/null/build")
    monkeypatch.setattr(connection, "BUILD", nobodys)
    for use in (lambda: stage_source(scripts, build=nobodys), lambda: connection.open_session("local")):
        with pytest.raises(
            FolderError, match=r"/dev/null/build.* cannot be written \(Not a directory\).*Copy or clone"
        ):
            use()


def test_no_such_folder(tmp_path):
    with pytest.raises(StagingError, match="is not a folder"):
        stage_source(tmp_path / "none", build=tmp_path)


SECRETS = {
    "id_rsa": "x",
    "recipes/server.pem": "x",
    "secrets.json": "{}",
    "credentials": "[default]",
    "notes.md": f"use {'ghp_' + 'a1B2' * 9} for now",
    "recipes/hub.yaml": f"token: {'hf_' + 'a1B2' * 9}",
    "key.txt": "-----BEGIN " + "OPENSSH PRIVATE KEY-----",
    "aws.sh": "export AWS_ACCESS_KEY_ID=" + "AKIA" + "ABCDEFGHIJKLMNOP",
}


@pytest.mark.parametrize("name", SECRETS)
def test_secrets_are_not_shipped(name, shared, scripts, tmp_path):
    (scripts / name).write_text(SECRETS[name])
    with pytest.raises(StagingError, match=f"{re.escape(name)} is not sent to a job") as refused:
        stage_source(scripts, build=tmp_path / "build")
    assert SECRETS[name] not in str(refused.value) or len(SECRETS[name]) < 10
    assert not list((tmp_path / "build" / "staged").iterdir()), "a copy of the secret was left behind"


def test_a_link_out_of_the_folder_is_not_followed(shared, scripts, tmp_path):
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "diary.txt").write_text("x")
    for target in (tmp_path / "private", tmp_path / "private" / "diary.txt"):
        (scripts / "link").symlink_to(target)
        with pytest.raises(StagingError, match="is a link to .*outside the scripts folder"):
            stage_source(scripts, build=tmp_path / "build")
        (scripts / "link").unlink()
    (scripts / "same.py").symlink_to(scripts / "train.py")
    assert (stage_source(scripts, build=tmp_path / "build") / "same.py").read_text() == "module"
