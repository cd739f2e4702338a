"""The user's settings of pip reach a job's pip, and uv."""

import configparser
import os

import pytest
from local_sagemaker.environments import pip_settings
from local_sagemaker.environments.pip_settings import uv_arguments, uv_variables, write_pip_settings


@pytest.fixture
def nobodys(tmp_path, monkeypatch):
    """No settings but those of a test, which says what the user's file holds."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("sys.prefix", str(tmp_path / "prefix"))
    monkeypatch.setattr(pip_settings, "ONE_FOR_ALL_USERS", tmp_path / "none.conf")
    own = tmp_path / ".config" / "pip" / "pip.conf"
    own.parent.mkdir(parents=True)

    def write(text: str) -> dict[str, str]:
        own.write_text(text)
        return {"XDG_CONFIG_DIRS": str(tmp_path / "everyones")}

    return write


def test_pips_settings_go_into_a_file_of_the_job(tmp_path):
    """Variables would be printed into the job's log by the SDK's drivers, passwords and all."""
    own = tmp_path / "own.conf"
    own.write_text("[global]\ntimeout = 7\nindex-url = https://other/\n[install]\nno-binary = x\n")
    environment = {
        "PIP_CONFIG_FILE": str(own),
        "PIP_INDEX_URL": "https://user:p%40ss@index/simple",
        "PIP_USER": "1",
        "XDG_CACHE_HOME": "/somewhere/cache",
    }
    write_pip_settings(tmp_path / "home", environment)
    written = tmp_path / "home" / ".config" / "pip" / "pip.conf"
    settings = configparser.RawConfigParser()
    settings.read(written)
    assert dict(settings["global"])["index-url"] == "https://user:p%40ss@index/simple"
    assert settings["global"]["timeout"] == "7" and settings["install"]["no-binary"] == "x"
    assert settings["global"]["cache-dir"].endswith("pip") and "user" not in settings["global"]
    assert written.stat().st_mode & 0o077 == 0


def test_pips_file_is_the_users_alone_while_it_is_written(tmp_path, monkeypatch):
    modes, write = [], configparser.RawConfigParser.write

    def look(settings, file):
        modes.append(os.fstat(file.fileno()).st_mode & 0o777)
        write(settings, file)

    monkeypatch.setattr(configparser.RawConfigParser, "write", look)
    write_pip_settings(tmp_path / "home", {"PIP_CONFIG_FILE": os.devnull})
    assert modes == [0o600]


def test_uv_looks_where_pip_would(nobodys):
    environment = nobodys(
        "[global]\nindex-url = https://user:p%40ss@index/simple\ncert = /own/ca.pem\ntimeout = 7\n"
        "[install]\nextra-index-url =\n  https://one/\n  https://two/\nfind-links = /wheels https://three/\n"
        "trusted-host = inside\n"
    )
    variables = uv_variables(environment | {"PIP_CONSTRAINT": "/limits.txt", "PIP_TIMEOUT": "9"})
    assert variables == {
        "UV_DEFAULT_INDEX": "https://user:p%40ss@index/simple",
        "UV_INDEX": "https://one/ https://two/",
        "UV_FIND_LINKS": "/wheels,https://three/",
        "UV_CONSTRAINT": "/limits.txt",
        "UV_INSECURE_HOST": "inside",
        "SSL_CERT_FILE": "/own/ca.pem",
        "UV_HTTP_TIMEOUT": "9",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_SYSTEM_CERTS": "1",
    }


def test_what_the_user_told_uv_itself_wins(nobodys):
    environment = nobodys("[global]\nindex-url = https://pips/\n") | {"UV_DEFAULT_INDEX": "https://uvs/"}
    assert "UV_DEFAULT_INDEX" not in uv_variables(environment)


@pytest.mark.skipif(os.uname().sysname != "Linux", reason="elsewhere PyPI's torch is the small one")
def test_torch_is_the_build_that_the_machine_can_use_where_no_one_said_where_packages_are(nobodys):
    assert uv_variables(nobodys(""))["UV_TORCH_BACKEND"] == "auto"
    assert "UV_TORCH_BACKEND" not in uv_variables(nobodys("[global]\nfind-links = /wheels\n"))


def test_what_uv_takes_as_arguments(nobodys):
    environment = nobodys("[install]\nno-binary = one,two\nno-index = true\n") | {"PIP_ONLY_BINARY": ":all:"}
    assert uv_arguments(environment) == [
        "--no-index",
        "--no-binary", "one",
        "--no-binary", "two",
        "--only-binary", ":all:",
    ]  # fmt: skip
    assert uv_arguments(nobodys("[global]\nno-index = 0\n")) == []


def test_a_file_that_is_chosen_stands_alone(nobodys, tmp_path):
    environment = nobodys("[global]\nindex-url = https://not-this/\n")
    chosen = tmp_path / "chosen.conf"
    chosen.write_text("[global]\nindex-url = https://this/\n")
    assert uv_variables(environment | {"PIP_CONFIG_FILE": str(chosen)})["UV_DEFAULT_INDEX"] == "https://this/"
    assert "UV_DEFAULT_INDEX" not in uv_variables(environment | {"PIP_CONFIG_FILE": os.devnull})
