"""verl's checkpoints on one host or several: marked when complete, merged into a model for transformers, and opened.

Each training process writes its shard on its own host. SageMaker copies them all to S3, and back to every host when
the job starts again; the host that merges asks the others for what it lacks.
"""

import gc
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import ray
import torch
from job.checkpoints import mark_complete
from job.models import check_finite
from peft import PeftModel
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from transformers import AutoModelForCausalLM, PreTrainedModel

PART_BYTES = 64 * 2**20


def on_every_host(function: Callable, *arguments: Any) -> dict[str, Any]:
    """Call `function` once on each host of the Ray cluster; returns the results by Ray's id of the host."""
    hosts = [node["NodeID"] for node in ray.nodes() if node["Alive"]]
    return dict(zip(hosts, ray.get([on_host(host, function, *arguments) for host in hosts]), strict=True))


def on_host(host: str, function: Callable, *arguments: Any) -> ray.ObjectRef:
    """Call `function` on the host with this id."""
    strategy = NodeAffinitySchedulingStrategy(host, soft=False)
    return ray.remote(num_cpus=0)(function).options(scheduling_strategy=strategy).remote(*arguments)


def close_checkpoint(folder: Path, made_of: dict[str, str]) -> float:
    """Mark a checkpoint as complete on this host, and with the fingerprints of what it is made of.

    Returns the most memory that a process of Ray here has held so far, in MB (2**20 bytes).
    """
    mark_complete(folder, made_of)
    peaks = [0.0]
    # The parent of a task's process is Ray on this host.
    for process in psutil.Process(os.getppid()).children():
        status = Path(f"/proc/{process.pid}/status")
        lines = status.read_text().splitlines() if status.exists() else []
        peaks += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")]
    return max(peaks)


def step_of(checkpoint: Path | None) -> int:
    """The step after which a checkpoint (a folder global_step_<n>) was saved; 0 without one."""
    return int(checkpoint.name.rpartition("_")[2]) if checkpoint else 0


def merged_model(checkpoint: Path, dtype: str) -> PreTrainedModel:
    """The model of a checkpoint, merged from its shards by verl's own merger.

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
    backend = "megatron" if (checkpoint / "actor" / "dist_ckpt").is_dir() else "fsdp"
    target = Path(tempfile.mkdtemp())
    command = [sys.executable, "-m", "verl.model_merger", "merge", "--backend", backend]
    command += ["--local_dir", str(checkpoint / "actor"), "--target_dir", str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode or not (target / "config.json").is_file():
        raise RuntimeError(f"verl could not merge {checkpoint}:\n{done.stderr[-2000:]}")
    model = open_model(target, dtype, name=checkpoint.name)
    adapter = target / "lora_adapter"
    return PeftModel.from_pretrained(model, adapter) if adapter.is_dir() else model


def open_model(source: Path | str, dtype: str, *, name: str) -> PreTrainedModel:
    """A model to evaluate, its layers spread over this host's GPUs: what verl trains is often too large for one.

    `name` is what an error calls it: a spec or a checkpoint.

    Raises:
        job.models.ModelUnusable: weights that are no numbers.
    """
    place = "auto" if torch.cuda.is_available() else None
    model = AutoModelForCausalLM.from_pretrained(source, dtype=dtype, device_map=place)
    check_finite(model, name)
    return model


def free_gpus() -> None:
    """Give the memory of models that are no longer used back, so that other processes can have it."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def fetch_missing(folder: Path) -> None:
    """Bring the files of a checkpoint that other hosts wrote to this one."""
    own = ray.get_runtime_context().get_node_id()
    for host, files in on_every_host(list_files, folder).items():
        for name, size in files.items():
            target = folder / name
            if host == own or (target.is_file() and target.stat().st_size == size):
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while file.tell() < size:
                    file.write(ray.get(on_host(host, read_part, folder / name, file.tell())))


def list_files(folder: Path) -> dict[str, int]:
    """Size in bytes of each file below a folder, by its path there."""
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }


def read_part(path: Path, offset: int) -> bytes:
    """At most PART_BYTES of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PART_BYTES)
