"""Where things are inside a SageMaker training container, and who this process is among the others.

SageMaker describes the container in SM_* variables; without them the documented /opt/ml paths are used.
"""

import os
import sys
from pathlib import Path

# While SageMaker's agent copies FILE of the checkpoint folder to S3, FILE.sagemaker-uploading lies beside it, and afterwards
# FILE.sagemaker-uploaded; what a program names .sagemaker-ignore, the agent leaves alone. None of them reaches S3.
AGENT_SUFFIXES = (".sagemaker-uploading", ".sagemaker-uploaded", ".sagemaker-ignore")


class ChannelNotFound(Exception):
    """The job was started without a data channel that the script reads."""


def channel(name: str) -> Path:
    """Folder of one input channel, as set in SM_CHANNEL_<NAME>.

    Raises:
        ChannelNotFound: the job has no such channel; the message lists those it has and the line to add.
    """
    folder = os.environ.get(channel_variable(name))
    if folder:
        return Path(folder)
    prefix = "SM_CHANNEL_"
    own = {"code", "sm_drivers"}  # the SDK's channels, not the learner's
    present = sorted({key.removeprefix(prefix).lower() for key in os.environ if key.startswith(prefix)} - own)
    raise ChannelNotFound(
        f"This job has no input channel '{name}' (it has: {', '.join(present) or 'none'}). "
        f'Add InputData(channel_name="{name}", data_source=<S3 URI of the data>) to input_data_config.'
    )


def has_channel(name: str) -> bool:
    """Whether the job was started with such an input channel."""
    return bool(os.environ.get(channel_variable(name)))


def channel_variable(name: str) -> str:
    """The environment variable that holds an input channel's folder."""
    return f"SM_CHANNEL_{name.upper()}"


def input_config_dir() -> Path:
    """Folder of the files in which the service describes the job (hyperparameters.json and others)."""
    return Path(os.environ.get("SM_INPUT_CONFIG_DIR", "/opt/ml/input/config"))


def model_dir() -> Path:
    """Folder whose content becomes model.tar.gz."""
    return Path(os.environ.get("SM_MODEL_DIR", "/opt/ml/model"))


def output_data_dir() -> Path:
    """Folder whose content becomes output.tar.gz: history, summary, evaluations, tracking files."""
    return Path(os.environ.get("SM_OUTPUT_DATA_DIR", "/opt/ml/output/data"))


def checkpoint_dir() -> Path:
    """Folder that SageMaker copies to and from S3 while the job runs (CheckpointConfig)."""
    return Path(os.environ.get("SM_CHECKPOINT_DIR", "/opt/ml/checkpoints"))


def checkpoint_files(folder: Path) -> list[Path]:
    """All files below a folder of the checkpoint folder, sorted, without those of SageMaker's agent."""
    return [
        path
        for path in sorted(folder.rglob("*"))
        if not path.name.endswith(AGENT_SUFFIXES) and path.is_file()
    ]


def failure_file() -> Path:
    """File whose first 1,024 characters become the job's FailureReason."""
    return Path(os.environ.get("SM_OUTPUT_FAILURE", "/opt/ml/output/failure"))


def process_rank() -> int:
    """Number of this process among all of the job's processes, from 0 (RANK, set by torchrun and accelerate)."""
    return int(os.environ.get("RANK", "0"))


def process_count() -> int:
    """Number of processes that train together, over all hosts (WORLD_SIZE)."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def is_main_process() -> bool:
    """True in the one process that prints, tracks and saves."""
    return process_rank() == 0


def host_count() -> int:
    """Number of instances (SM_HOST_COUNT)."""
    return int(os.environ.get("SM_HOST_COUNT", "1"))


def print_line(text: str) -> None:
    """Prints a line in one piece: what metric definitions and notebooks read from the log.

    The processes of a host share its log, and Python's unbuffered print writes the end of the line separately, so
    that another process's line can come between.
    """
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
