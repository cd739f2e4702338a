"""What is known about instance types without asking AWS: which exist, how many GPUs, about what they cost."""

import functools
import json
from importlib import resources
from pathlib import Path

import boto3

_PRICES = Path(__file__).with_name("prices.json")


def training_instance_types() -> set[str]:
    """Instance types that CreateTrainingJob takes, from the service description in the installed boto3."""
    client = boto3.client("sagemaker", region_name="us-east-1")
    return set(client.meta.service_model.shape_for("TrainingInstanceType").enum)


def gpu_count(instance_type: str, region: str) -> int | None:
    """GPUs of one instance from the SDK's table: 0 for a CPU family, None for a GPU family it does not list."""
    table = _gpu_table()
    for listed in (table.get(region, {}), *table.values()):
        if instance_type in listed:
            return listed[instance_type]["Count"]
    family = instance_type.split(".")[1]
    return None if family[0] in "gp" or family.startswith("trn") else 0


def gpu_bytes(instance_type: str, region: str) -> float | None:
    """Memory of one GPU of the instance in bytes, from the SDK's table; None where it lists none."""
    table = _gpu_table()
    for listed in (table.get(region, {}), *table.values()):
        if instance_type in listed:
            found = listed[instance_type]
            return found["TotalGpuMemoryInMiB"] * 2**20 / found["Count"]
    return None


def hourly_price(instance_type: str) -> float | None:
    """Estimated USD an hour, on demand, in the price table's region; None where the table has no entry."""
    return _price_table()["prices"].get(instance_type)


def price_source() -> str:
    """Where the prices are from, for showing beside every figure made of them."""
    table = _price_table()
    return f"estimate from {table['region']} list prices as of {table['as_of']}, see {table['source']}"


@functools.cache
def _gpu_table() -> dict:
    path = resources.files("sagemaker.core") / "image_uri_config" / "instance_gpu_info.json"
    return json.loads(path.read_text(encoding="utf-8"))


@functools.cache
def _price_table() -> dict:
    return json.loads(_PRICES.read_text(encoding="utf-8"))
