"""Files of the job's other hosts, fetched through Ray.

What is called on another host runs in a process made for it. It imports this file, so nothing heavy may be imported here.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from job.container import checkpoint_files
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

PART_BYTES = 64 * 2**20


def on_host(host: str, function: Callable, *arguments: Any) -> ray.ObjectRef:
    """Call `function` on the host with this id of Ray's."""
    strategy = NodeAffinitySchedulingStrategy(host, soft=False)
    return ray.remote(num_cpus=0)(function).options(scheduling_strategy=strategy).remote(*arguments)


def fetch_missing(folder: Path) -> None:
    """Bring the files of a checkpoint that other hosts wrote to this one."""
    own = ray.get_runtime_context().get_node_id()
    others = [node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != own]
    listed = ray.get([on_host(host, list_files, folder) for host in others])
    for host, files in zip(others, listed, strict=True):
        for name, size in files.items():
            target = folder / name
            if target.is_file() and target.stat().st_size == size:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as file:
                while file.tell() < size:
                    file.write(ray.get(on_host(host, read_part, folder / name, file.tell())))


def list_files(folder: Path) -> dict[str, int]:
    """Size in bytes of each file of a checkpoint, by its path there."""
    return {str(path.relative_to(folder)): path.stat().st_size for path in checkpoint_files(folder)}


def read_part(path: Path, offset: int) -> bytes:
    """At most PART_BYTES of a file."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(PART_BYTES)
