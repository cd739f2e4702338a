"""The environment variables of a job's process that the tests start themselves."""

import os
from pathlib import Path

SHARED = Path(__file__).resolve().parents[1] / "scripts"
# What a job gets from SageMaker and from launchers only, not from the machine that runs the tests.
_NOT_FROM_HERE = ("MLFLOW_", "WANDB_", "AWS_", "SM_", "ACCELERATE_", "UNSLOTH_", "VERL_")


def job_variables(*path: Path, **variables: str) -> dict[str, str]:
    """The environment of a job's process: nothing of this machine's AWS or trackers; `path` before the shared code."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FROM_HERE)}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join(map(str, [*path, SHARED])),
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **variables,
    }
