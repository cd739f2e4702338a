"""pip inside a job: the user's own settings, in a file of the job's private home.

A file and not PIP_* variables, since the SDK's drivers print every variable into the job's log and an index
address may hold a password.
"""

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path


def write_pip_settings(home: Path, environment: Mapping[str, str]) -> None:
    """Write `home`/.config/pip/pip.conf from the user's file and PIP_* variables; the download cache is shared."""
    settings = configparser.RawConfigParser()
    own = [Path.home() / ".pip" / "pip.conf", Path.home() / ".config" / "pip" / "pip.conf"]
    chosen = environment.get("PIP_CONFIG_FILE")
    settings.read([Path(chosen)] if chosen else own)
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
    with open(folder / "pip.conf", "w") as file:
        settings.write(file)
    os.chmod(folder / "pip.conf", 0o600)


def _default_cache(environment: Mapping[str, str]) -> Path:
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "pip"
    return Path(environment.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pip"
