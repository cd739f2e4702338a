"""Disks that really are full: a few megabytes of memory, mounted for a test."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(folder: Path, megabytes: int) -> Iterator[Path]:
    """`folder` as a disk of this size. The test is skipped where nothing can be mounted."""
    folder.mkdir(parents=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "small-disk", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True)
        complaint = done.stderr.strip() if done.returncode else ""
    except OSError as error:
        complaint = str(error)
    if complaint:
        pytest.skip(f"no small disk can be mounted here: {complaint}")
    try:
        yield folder
    finally:
        # Lazily: a process of a failed test may still have a file open.
        subprocess.run(["umount", "--lazy", str(folder)], check=True)


def fill(file: Path) -> None:
    """Write to `file` until the disk is full."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 20, 1 << 12, 1):
            try:
                while True:
                    os.write(descriptor, bytes(size))
            except OSError:
                continue
    finally:
        os.close(descriptor)
