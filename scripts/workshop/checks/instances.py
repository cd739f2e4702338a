"""What is known about instance types without asking AWS: GPUs and their memory and speed, and about what an hour costs.

The table is instances.json, each figure with its source and date. A type that it lacks may still be in the SDK's table of
GPUs, or in the service description of the installed boto3, which knows every name.
"""

import functools
import json
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import boto3

_TABLE = Path(__file__).with_name("instances.json")


@dataclass(frozen=True)
class Gpu:
    """One GPU: its memory, and how fast it reads it and multiplies."""

    name: str
    memory: float  # bytes
    bandwidth: float  # bytes a second between the GPU and its memory
    link: float  # bytes a second to the other GPUs of the host, one way
    flops: float  # bfloat16 operations a second, dense


@dataclass(frozen=True)
class Instance:
    """One instance type of the table."""

    gpus: int
    gpu: Gpu | None
    vcpus: int
    memory_gib: int  # of the host
    local_disk_gb: int  # NVMe in the instance, which takes the place of a volume; 0: it has none
    price: float | None  # USD an hour, on demand, in the table's region; None: none was found
    price_source: str  # where the price is from and of when, or that there is none


def training_instance_types() -> set[str]:
    """Instance types that CreateTrainingJob takes, from the service description in the installed boto3."""
    client = boto3.client("sagemaker", region_name="us-east-1")
    return set(client.meta.service_model.shape_for("TrainingInstanceType").enum)


def find_instance(instance_type: str) -> Instance | None:
    """The instance type's row of the table, or None."""
    return _instances().get(instance_type)


def known_instances() -> list[str]:
    """All instance types of the table."""
    return list(_instances())


def gpu_count(instance_type: str, region: str) -> int | None:
    """GPUs of one instance: 0 for a CPU family, None for a GPU family that neither table lists."""
    if found := find_instance(instance_type):
        return found.gpus
    if listed := _sdk_row(instance_type, region):
        return listed["Count"]
    family = instance_type.split(".")[1]
    return None if family[0] in "gp" or family.startswith("trn") else 0


def gpu_bytes(instance_type: str, region: str) -> float | None:
    """Memory of one GPU of the instance in bytes; None where it has none, or neither table lists it."""
    if found := find_instance(instance_type):
        return found.gpu.memory if found.gpu else None
    if listed := _sdk_row(instance_type, region):
        return listed["TotalGpuMemoryInMiB"] * 2**20 / listed["Count"]
    return None


def hourly_price(instance_type: str) -> float | None:
    """USD an hour, on demand, in us-east-1; None where no price is known."""
    found = find_instance(instance_type)
    return found.price if found else None


def price_source(instance_type: str) -> str:
    """Where the price is from, for showing beside every figure made of it."""
    found = find_instance(instance_type)
    return found.price_source if found else f"{instance_type} is not in the table of prices"


def _sdk_row(instance_type: str, region: str) -> dict[str, int] | None:
    table = _sdk_table()
    listed = (regional.get(instance_type) for regional in (table.get(region, {}), *table.values()))
    return next(filter(None, listed), None)


@functools.cache
def _sdk_table() -> dict[str, dict[str, dict[str, int]]]:
    path = resources.files("sagemaker.core") / "image_uri_config" / "instance_gpu_info.json"
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def _instances() -> dict[str, Instance]:
    table = json.loads(_TABLE.read_text(encoding="utf-8"))
    gpus = {
        name: Gpu(
            name=name,
            memory=row["memory_mib"] * 2**20,
            bandwidth=row["bandwidth_gb_s"] * 1e9,
            link=row["link_gb_s"] * 1e9,
            flops=row["bf16_tflops"] * 1e12,
        )
        for name, row in table["gpus"].items()
    }
    return {
        name: Instance(
            gpus=row["gpus"],
            gpu=gpus[row["gpu"]] if row["gpu"] else None,
            vcpus=row["vcpus"],
            memory_gib=row["memory_gib"],
            local_disk_gb=row["local_disk_gb"],
            price=row["price"],
            price_source=_source_text(table, row["price_source"]),
        )
        for name, row in table["instances"].items()
    }


def _source_text(table: dict[str, Any], name: str) -> str:
    source = table["sources"][name]
    return f"{source['short']}, {table['region']}, {source['date']}"
