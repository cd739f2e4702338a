"""Requirements resolved for a training image, whatever this machine is: from the packages' metadata, without a wheel.

Needs the package index; where it cannot be reached, the test that asks is skipped.
"""

import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

NO_NETWORK = re.compile(r"failed to fetch|dns error|error sending request|timed out", re.IGNORECASE)


def resolve(
    requirements: Path, result: Path, *options: str, python: str, there: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess:
    """`uv pip compile` of a requirements file for Linux, into the file `result`.

    Args:
        python: version of the image's Python.
        there: what the image has, package -> version. As with pip in the image, it stays where it still fits.
    """
    if there is not None:
        result.write_text("".join(f"{name}=={version}\n" for name, version in there.items()))
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    index = ["--index-url", configured.stdout.strip()] if configured.returncode == 0 else []
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", requirements, "-o", result, "-q", "--python-version", python,
         "--python-platform", "x86_64-manylinux_2_34", "--no-header", "--no-annotate", *index, *options],
        capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    return done


def pins(path: Path) -> dict[str, str]:
    """Package -> version of a file that pins each of its packages; names in small letters."""
    lines = [re.split(r"[;#]", line)[0].strip() for line in path.read_text().splitlines()]
    found = dict(line.split("==") for line in lines if "==" in line)
    return {
        re.sub(r"\[.*\]", "", name).strip().lower().replace("_", "-"): version.strip()
        for name, version in found.items()
    }
