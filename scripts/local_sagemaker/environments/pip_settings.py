"""The user's settings of pip: for a job's own pip, in a file of its private home, and for uv, as its variables.

A file and not PIP_* variables, since the SDK's drivers print every variable into the job's log and an index
address may hold a password.
"""

import configparser
import os
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path

# An option of pip, the variable of uv that says the same, and what stands between two values of it.
UV_VARIABLES = (
    ("index-url", "UV_DEFAULT_INDEX", " "),
    ("extra-index-url", "UV_INDEX", " "),
    ("find-links", "UV_FIND_LINKS", ","),
    ("constraint", "UV_CONSTRAINT", " "),
    ("trusted-host", "UV_INSECURE_HOST", " "),
    ("cert", "SSL_CERT_FILE", " "),
    ("client-cert", "SSL_CLIENT_CERT", " "),
    ("proxy", "ALL_PROXY", " "),
    ("default-timeout", "UV_HTTP_TIMEOUT", " "),
    ("timeout", "UV_HTTP_TIMEOUT", " "),
    ("retries", "UV_HTTP_RETRIES", " "),
    ("require-hashes", "UV_REQUIRE_HASHES", " "),
)
SOURCES = {"UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS"}
ONE_FOR_ALL_USERS = Path("/etc/pip.conf")
# Options for which it has an argument and no variable.
UV_ARGUMENTS = ("no-binary", "only-binary")


def write_pip_settings(home: Path, environment: Mapping[str, str]) -> None:
    """Write `home`/.config/pip/pip.conf from the user's file and PIP_* variables; the download cache is shared."""
    settings = _read(_files_of_the_user(environment))
    if not settings.has_section("global"):
        settings.add_section("global")
    for name, value in environment.items():
        option = name.removeprefix("PIP_").lower().replace("_", "-")
        if name.startswith("PIP_") and option not in ("config-file", "user", "target", "prefix", "root"):
            settings.set("global", option, value)
    if not settings.has_option("global", "cache-dir"):
        settings.set("global", "cache-dir", str(_default_cache(environment)))
    folder = home / ".config" / "pip"
    folder.mkdir(parents=True)
    with open(
        folder / "pip.conf", "x", opener=partial(os.open, mode=0o600)
    ) as file:  # it may hold a password
        settings.write(file)


def uv_variables(environment: Mapping[str, str]) -> dict[str, str]:
    """Variables by which uv looks where pip would: indexes, links, constraints, certificates. Those of uv's own win.

    The files that pip reads: https://pip.pypa.io/en/stable/topics/configuration/; the variables of uv:
    https://docs.astral.sh/uv/reference/environment/.
    """
    options = pip_options(environment)
    found: dict[str, str] = {}
    for option, variable, separator in UV_VARIABLES:
        if values := options.get(option, "").split():
            found[variable] = separator.join(values)
    if found.keys().isdisjoint(SOURCES) and sys.platform == "linux":
        found["UV_TORCH_BACKEND"] = "auto"  # plain PyPI has the build with CUDA, gigabytes of it
    found["UV_INDEX_STRATEGY"] = "unsafe-best-match"  # pip's: the best version of all indexes
    found["UV_SYSTEM_CERTS"] = "1"  # pip's
    return {name: value for name, value in found.items() if name not in environment}


def uv_arguments(environment: Mapping[str, str]) -> list[str]:
    """What of the same settings uv takes as arguments only."""
    options = pip_options(environment)
    arguments = ["--no-index"] if options.get("no-index", "").lower() in ("1", "true", "yes", "on") else []
    for option in UV_ARGUMENTS:
        for value in options.get(option, "").replace(",", " ").split():
            arguments += [f"--{option}", value]
    return arguments


def pip_options(environment: Mapping[str, str]) -> dict[str, str]:
    """All of pip's options that are set: global files, then the user's, then variables."""
    everyones = [Path(folder) / "pip" / "pip.conf" for folder in _everyones_folders(environment)]
    chosen = environment.get("PIP_CONFIG_FILE")
    files = [*everyones, ONE_FOR_ALL_USERS] if chosen != os.devnull else []
    settings = _read([*files, *_files_of_the_user(environment), Path(sys.prefix) / "pip.conf"])
    options: dict[str, str] = {}
    for section in ("global", "install"):
        if settings.has_section(section):
            options |= dict(settings.items(section))
    for name, value in environment.items():
        if name.startswith("PIP_"):
            options[name.removeprefix("PIP_").lower().replace("_", "-")] = value
    return options


def _everyones_folders(environment: Mapping[str, str]) -> list[str]:
    if sys.platform == "darwin":
        return ["/Library/Application Support"]
    return (environment.get("XDG_CONFIG_DIRS") or "/etc/xdg").split(os.pathsep)


def _files_of_the_user(environment: Mapping[str, str]) -> list[Path]:
    chosen = environment.get("PIP_CONFIG_FILE")
    if chosen:
        return [Path(chosen)]
    home = Path.home()
    configuration = Path(environment.get("XDG_CONFIG_HOME") or home / ".config")
    files = [home / ".pip" / "pip.conf", configuration / "pip" / "pip.conf"]
    if sys.platform == "darwin":
        files.append(home / "Library" / "Application Support" / "pip" / "pip.conf")
    return files


def _read(files: list[Path]) -> configparser.RawConfigParser:
    settings = configparser.RawConfigParser()
    settings.read(files, encoding="utf-8")
    return settings


def _default_cache(environment: Mapping[str, str]) -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pip"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pip"
