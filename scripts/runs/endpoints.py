"""Endpoints that live as long as what uses them, each in a home of its own."""

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from local_sagemaker import client
from local_sagemaker.home import home_folder


@contextlib.contextmanager
def own_endpoint(output: Path) -> Iterator[Path]:
    """A new home below `output`, for an endpoint that whoever needs it starts; it is stopped with its jobs at the end.

    Its buckets end with it, since no other endpoint serves that home: gigabytes, which lie in the jobs' folders as well.
    """
    folder = output / "local_sagemaker" / "runs"
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=folder))
    try:
        yield home
    finally:
        client.shutdown(home)
        shutil.rmtree(home / "s3", ignore_errors=True)


@contextlib.contextmanager
def endpoint_of_this_process(output: Path) -> Iterator[Path]:
    """The endpoint that is running, which is left running, or one of this process's own; yields its home."""
    if client.find_endpoint():
        yield home_folder()
        return
    before = os.environ.get("LOCAL_SAGEMAKER_HOME")
    with own_endpoint(output) as home:
        os.environ["LOCAL_SAGEMAKER_HOME"] = str(home)
        try:
            yield home
        finally:
            if before is None:
                del os.environ["LOCAL_SAGEMAKER_HOME"]
            else:
                os.environ["LOCAL_SAGEMAKER_HOME"] = before
