"""A full disk, in words: libraries say it in their own ways, some not at all."""

import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from job.container import checkpoint_dir, model_dir, output_data_dir

TO_DO = (
    "On SageMaker: raise volume_size_in_gb of Compute. In local mode: free space on that disk, for example of earlier jobs "
    "(build/local_sagemaker/jobs). Or keep fewer checkpoints (save_total_limit). The last whole checkpoint is kept: a job with "
    "the same checkpoint address goes on from it."
)
# The system's words, as Python, Rust (safetensors) and Ray pass them on.
_SAYS = re.compile(r"No space left on|\(os error 28\)|\[Errno 28\]|Disk quota exceeded|OutOfDiskError")
# torch.save reports a write that failed, for whatever cause: https://github.com/pytorch/pytorch/issues/44286
_MAY_SAY = re.compile(r"PytorchStreamWriter failed|file write failed|unexpected pos \d+|iostream error")
_FULL_BYTES = 1 << 20  # a disk with less free space is taken for the cause of such a failure


def no_space(error: BaseException) -> str | None:
    """What to tell the learner of an error that a full disk caused, "No space left on <folder>" first; None if none did."""
    fullest = min(_places(), key=lambda place: shutil.disk_usage(place).free, default=Path("/"))
    for cause in _causes(error):
        text = str(cause)
        numbered = isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
        may_be = _MAY_SAY.search(text) and shutil.disk_usage(fullest).free < _FULL_BYTES
        if numbered or may_be or _SAYS.search(text):
            named = getattr(cause, "filename", None) if numbered else None
            folder = Path(named).parent if isinstance(named, str) and Path(named).parent.is_dir() else fullest
            usage = shutil.disk_usage(folder)
            free, total = usage.free / 1e6, usage.total / 1e6
            return f"No space left on {folder} ({free:,.1f} of {total:,.0f} MB are free). {TO_DO}"
    return None


def _places() -> list[Path]:
    """Where a job writes."""
    folders = [checkpoint_dir(), model_dir(), output_data_dir(), Path.cwd(), Path("/dev/shm")]
    folders += [Path(os.environ[name]) for name in ("TMPDIR", "HOME") if name in os.environ]
    return [folder for folder in folders if folder.is_dir()]


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__
