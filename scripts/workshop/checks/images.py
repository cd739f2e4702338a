"""Training images: their addresses, and what is known of what they hold (images.json) without pulling one.

    image = image_address(image_uris.retrieve("pytorch", ...), machine.image)

Nothing of an image is in the way of the SDK: CreateTrainingJob gets an entry point of the SDK's own, which takes the
place of the image's, and needs bash, python3 and pip, all first on the PATH as root. In the images `pytorch` these are of
the virtual environment /opt/venv, so no system packages are touched. AWS starts both families with ModelTrainer and
Torchrun itself (test/pytorch/integration/sagemaker of the repository that images.json names).
"""

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from workshop.errors import WorkshopError

# That of the notebooks for an instance without a GPU, for requests that are made without asking the SDK for it.
CPU_IMAGE = "763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10.0-cpu-py313"
_TABLE = Path(__file__).with_name("images.json")
_ADDRESS = re.compile(r"[^/]+/(?P<repository>[^:@]+):(?P<tag>[^:@]+)")


class ImageError(WorkshopError):
    """An image's address is not written as one."""


@dataclass(frozen=True)
class Image:
    """What one of AWS's training images holds."""

    repository: str
    tags: list[str]
    device: str  # cpu or gpu
    python: str  # "3.12"
    torch: str
    cuda: str | None  # the toolkit's; torch brings libraries of its own, of CUDA 13.0 in all of these
    compiled: dict[str, str]  # packages compiled against this torch: they break when another takes its place
    also: dict[str, str]
    entry_point: list[str]
    released: str  # ISO date of general availability
    patched_until: str  # ISO date; afterwards AWS mends nothing in it
    files: list[str]  # of the source, where each of this is said

    @property
    def name(self) -> str:
        """`repository:tag`, as machines.yaml has it."""
        return f"{self.repository}:{self.tags[0]}"

    def __str__(self) -> str:
        parts = {"Python": self.python, "torch": self.torch, "CUDA": self.cuda, **self.compiled}
        held = ", ".join(f"{name} {version}" for name, version in parts.items() if version)
        return f"{self.name}: {held}; patched until {self.patched_until}"


def image_address(default: str, image: str) -> str:
    """`default`, or where `image` is given, that one from the same registry.

    The registry's account is the same for all of AWS's deep learning images: docs/reference/region_availability.md of
    deep-learning-containers has the accounts of the SDK's table for pytorch-training, in all of its 36 regions.

    Args:
        default: what image_uris.retrieve found for region and instance type.
        image: "repository:tag", such as "pytorch:2.13-cu133-amzn2023-sagemaker"; "" for the default.

    Raises ImageError.
    """
    if not image:
        return default
    if not re.fullmatch(r"[a-z0-9._/-]+:[A-Za-z0-9._-]+", image):
        raise ImageError(
            f"image is {image!r}: write it as repository:tag, such as pytorch:2.13-cu133-amzn2023-sagemaker."
        )
    return f"{default.split('/')[0]}/{image}"


def find_image(address: str) -> Image | None:
    """What is known of the image at this address; None for one that images.json does not list."""
    parts = _ADDRESS.fullmatch(address)
    if parts is None:
        return None
    asked = parts["repository"], parts["tag"]
    return next((one for one in known_images() if asked in [(one.repository, tag) for tag in one.tags]), None)


def known_images() -> list[Image]:
    """Every image of images.json."""
    return [Image(**row) for row in _table()["images"]]


def torch_of(package: str, version: str) -> str | None:
    """The torch that a package of this version brings; None where images.json does not say."""
    return _table()["torch_of"].get(package, {}).get(version)


@functools.cache
def _table() -> dict[str, Any]:
    return json.loads(_TABLE.read_text(encoding="utf-8"))
