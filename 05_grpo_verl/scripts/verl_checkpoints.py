"""verl's checkpoints on one host or several: marked when complete, merged into a model for transformers, and opened.

Each training process writes its shard on its own host. SageMaker copies them all to S3, and back to every host when
the job starts again; the host that merges asks the others for what it lacks.
"""

import contextlib
import gc
import io
import logging
import os
import tempfile
from pathlib import Path

import psutil
import torch
from job.checkpoints import mark_complete
from job.model_tensors import check_tensors
from job.models import check_finite
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel
from transformers.utils.logging import disable_progress_bar
from verl.model_merger.base_model_merger import ModelMergerConfig
from verl.model_merger.fsdp_model_merger import FSDPModelMerger
from verl_hosts import fetch_missing

disable_progress_bar()  # of weights that are loaded and written: the log has lines for what counts


def close_checkpoint(folder: Path, made_of: dict[str, str]) -> float:
    """Mark a checkpoint as complete on this host, and with the fingerprints of what it is made of. For one of Ray's processes.

    Returns the most memory that a process of Ray here has held so far, in MB (2**20 bytes).
    """
    mark_complete(folder, made_of)
    peaks = [0.0]
    # The parent of such a process is Ray on this host.
    for process in psutil.Process(os.getppid()).children():
        status = Path(f"/proc/{process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return max(peaks)


def step_of(checkpoint: Path | None) -> int:
    """The step after which a checkpoint (a folder global_step_<n>) was saved; 0 without one."""
    return int(checkpoint.name.rpartition("_")[2]) if checkpoint else 0


def merged_model(checkpoint: Path, dtype: str) -> PreTrainedModel:
    """The model of a checkpoint: merged from its shards by verl's own merger, or as Megatron's engine exported it.

    Adapters, if that is what was trained, are on it and not in its weights. `dtype` is that of the weights: float32,
    bfloat16 or float16.

    Raises:
        RuntimeError: verl did not save it, or could not merge it; the message has the end of what verl said.
    """
    if not checkpoint.is_dir():
        saved = sorted((path.name for path in checkpoint.parent.glob("global_step_*")), key=len)
        raise RuntimeError(
            f"verl ended without saving {checkpoint.name}; it saved {', '.join(saved) or 'none'}."
        )
    fetch_missing(checkpoint)
    shards = checkpoint / "actor"
    # Under Megatron mbridge exports the whole model with each checkpoint, and there is nothing to merge.
    target = shards / "model" / "huggingface"
    if not target.is_dir():
        target = Path(tempfile.mkdtemp())
        try:
            _merge(shards, target)
        except Exception as error:
            raise RuntimeError(f"verl could not merge {checkpoint}: {error}") from error
    model = open_model(target, dtype, name=checkpoint.name)
    adapter = target / "lora_adapter"
    return PeftModel.from_pretrained(model, adapter) if adapter.is_dir() else model


def _merge(shards: Path, target: Path) -> None:
    """In this process: another one would need much longer for its imports than for the merging."""
    config = ModelMergerConfig(
        operation="merge",
        backend="fsdp",
        local_dir=str(shards),
        target_dir=str(target),
        hf_model_config_path=str(shards / "huggingface"),
    )
    logging.disable(logging.WARNING)  # that shards know nothing of each other's processes
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            FSDPModelMerger(config).merge_and_save()
    finally:
        logging.disable(logging.NOTSET)


def open_model(source: Path | str, dtype: str, *, name: str) -> PreTrainedModel:
    """A model to evaluate, its layers spread over this host's GPUs: what verl trains is often too large for one.

    `name` is what an error calls it: a spec or a checkpoint.

    Raises:
        job.models.ModelUnusable: other tensors than its configuration describes; weights that are no numbers.
    """
    check_tensors(AutoModelForCausalLM, name, str(source))
    place = "auto" if torch.cuda.is_available() else None
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, device_map=place)
    check_finite(model, name)
    return model


def free_gpus() -> None:
    """Give the memory of models that are no longer used back, so that other processes can have it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
