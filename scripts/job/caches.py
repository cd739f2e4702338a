"""What a job downloads and compiles goes to the disk that was paid for.

A training job's storage (volume_size_in_gb, or an instance's own NVMe disks, which make that number void) is mounted at
SageMaker's default paths, /opt/ml and /tmp among them; a home folder is on the small disk of the system
(https://docs.aws.amazon.com/sagemaker/latest/dg/model-train-storage-tips-considerations.html, November 2026). Libraries keep
gigabytes of models and compiled kernels below the home folder unless told otherwise.
"""

import os
import tempfile
from pathlib import Path

FOLDERS = {
    "XDG_CACHE_HOME": "cache",  # below it huggingface, vllm, torch, flashinfer and the packaged models, each by its name
    "TRITON_HOME": "triton",
}


def use_large_disk() -> None:
    """In a training job, puts caches below the folder of temporary files, unless a variable says where.

    Libraries read the variables as they are imported, so this has to come before. Elsewhere nothing changes.
    """
    if "TRAINING_JOB_NAME" in os.environ:
        for name, folder in FOLDERS.items():
            os.environ.setdefault(name, str(Path(tempfile.gettempdir(), folder)))
