"""A newcomer's first `make run`, the second, and what both leave on the disk.

    python -m bench first_run

A clone of the last commit, and a home without caches: what is downloaded the first time comes from the package index that pip
is set to. The whole of it takes as long as two `make run`; nothing else should run meanwhile.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from runs.times import read_times
from workshop.folders import REPOSITORY

from bench.rows import Row

STAGES = ("from empty caches", "again")
SET_UP = "make setup"
# What says where caches are; without them everything is under the home.
CACHE_VARIABLES = ("LOCAL_SAGEMAKER_CACHE", "UV_CACHE_DIR", "PIP_CACHE_DIR", "XDG_CACHE_HOME", "HF_HOME")
# `make bench ARGS=first_run` tells a make started in it of its own ARGS and options.
OF_THE_OUTER_MAKE = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "MAKELEVEL", "ARGS")
PLACES = {"environments, and the packages that they share": "home", "what the jobs leave": "clone/build"}


def measure() -> Iterator[Row]:
    """Rows of both runs: wall seconds of the set-up and of each notebook; then the disk that is taken, in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "home").mkdir()
        subprocess.run(["git", "clone", "--quiet", REPOSITORY, folder / "clone"], check=True)
        for stage in STAGES:
            began = time.perf_counter()
            _make("setup", folder)
            yield Row(f"{SET_UP}, {stage}", "wall time", time.perf_counter() - began, "s")
            _make("run", folder)
            yield from notebook_rows(folder / "clone" / "build", stage)
        yield from disk_rows(folder)


def _make(target: str, folder: Path) -> None:
    """Raises RuntimeError with the end of what it said if it fails."""
    inherited = {*CACHE_VARIABLES, *OF_THE_OUTER_MAKE}
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    run = subprocess.run(
        ["make", target, f"PYTHON={getattr(sys, '_base_executable', sys.executable)}"],
        cwd=folder / "clone",
        env=environment | {"HOME": str(folder / "home")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if run.returncode:
        raise RuntimeError(f"make {target} in a new clone failed:\n{run.stdout[-4000:]}")


def notebook_rows(build: Path, stage: str) -> Iterator[Row]:
    """What the last run of each notebook took, from the folder that `make run` writes to."""
    for notebook, moments in sorted(read_times(build).items()):
        yield Row(f"{Path(notebook).stem}, {stage}", "wall time", moments[-1], "s")


def disk_rows(folder: Path) -> Iterator[Row]:
    """Files that several environments share count once."""
    for what, place in PLACES.items():
        measured = subprocess.run(
            ["du", "-sm", folder / place], check=True, stdout=subprocess.PIPE, text=True
        )
        yield Row(what, "disk", float(measured.stdout.split()[0]), "MB")
