"""The lock of local_sagemaker.home: one process at a time, and free again when its holder dies."""

import subprocess
import sys

from filelock import FileLock, Timeout
from local_sagemaker.home import file_lock

HOLDER = """
import sys, time
from pathlib import Path
from local_sagemaker.home import file_lock
with file_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def is_free(path) -> bool:
    try:
        with FileLock(path, timeout=0):
            return True
    except Timeout:
        return False


def test_the_lock_of_a_killed_process_is_free_at_once(tmp_path):
    path = tmp_path / "not_there_yet" / "start.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, path],
        env={"PYTHONPATH": ":".join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert holder.stdout.readline() == "held\n"
        assert not is_free(path)
    finally:
        holder.kill()
        holder.communicate(timeout=30)
    with file_lock(path):
        assert path.exists()
    assert is_free(path)
