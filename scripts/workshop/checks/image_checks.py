"""Preflight of the training image: it fits the machine, and what the job installs leaves its compiled packages usable."""

import re
from collections.abc import Iterator
from typing import Any

from local_sagemaker.environments import EnvironmentBuildError, requirement_lines

from workshop.checks.images import Image, find_image, known_images, torch_of
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest


def check_image(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """What images.json tells of the image, against machine, requirements and recipe."""
    if not request.image:
        return
    image = find_image(request.image)
    if image is None:
        yield Check(
            "image",
            NOTE,
            f"{request.image}: what it holds is not known here, so recipe and requirements are not checked against it",
        )
        return
    installed = pinned_packages(request)
    problems = [*_device_problems(request, image), *_vllm_problems(request, image, settings, installed)]
    problems += _moved_torch_problems(request, image, installed)
    yield from [Check("image", PROBLEM, problem) for problem in problems] or [Check("image", OK, str(image))]
    if "vllm" in installed and image.compiled and torch_of("vllm", installed["vllm"]) is None:
        yield Check(
            "image",
            WARNING,
            f"which torch vllm {installed['vllm'] or 'without a version'} brings is not known here. If it is another than "
            f"the image's {image.torch}, {_listed(image.compiled)} cannot be imported: add it to torch_of in images.json",
        )


def _device_problems(request: JobRequest, image: Image) -> Iterator[str]:
    if request.local or request.gpus is None:
        return
    if image.device == "cpu" and request.gpus:
        yield (
            f"{image.name} is made for CPUs, so the {request.gpus} GPU(s) of {request.instance_type} would stay idle: "
            "take the image that image_uris.retrieve finds for this instance type"
        )
    if image.device == "gpu" and request.gpus == 0:
        yield f"{image.name} is made for GPUs, and {request.instance_type} has none: choose another instance type or image"


def _vllm_problems(
    request: JobRequest, image: Image, settings: dict[str, Any], installed: dict[str, str]
) -> Iterator[str]:
    """Rollouts by vLLM where nothing brings it: none of AWS's training images does."""
    if "vllm" in installed:
        return
    if settings.get("rollout_name") == "vllm":
        yield (
            f"the rollout is by vLLM, and neither {image.name} nor the job's requirements have it: build the image of "
            "05_grpo_verl/container once and give its address as image_uri, with requirements=None"
        )
    elif settings.get("use_vllm") is True and not request.requirements:
        yield (
            f"use_vllm: true needs vllm, and {image.name} does not have it: add "
            'SourceCode(requirements="requirements-gpu.txt")'
        )


def _moved_torch_problems(request: JobRequest, image: Image, installed: dict[str, str]) -> Iterator[str]:
    """A package that brings another torch takes it from under what the image has compiled against its own.

    torch keeps no binary interface from one minor version to the next: what 2.10 compiled fails to import under 2.13 with
    an undefined symbol. vLLM and transformers look whether flash-attn is installed, not whether it can be imported, and
    end with that error.
    """
    for package, version in installed.items():
        torch = torch_of(package, version)
        if torch is None or torch == image.torch or not image.compiled:
            continue
        fitting = [one.name for one in known_images() if (one.torch, one.device) == (torch, image.device)]
        yield (
            f"{request.requirements} installs {package} {version}, which puts torch {torch} in the place of the image's "
            f"{image.torch}. {_listed(image.compiled)} of {image.name} are compiled against {image.torch}, and the job would "
            f"end where one is imported: choose {' or '.join(fitting) or f'an image with torch {torch}'}"
        )


def pinned_packages(request: JobRequest) -> dict[str, str]:
    """Package -> version as the job's requirements pin it ("" without one); none where the file cannot be read."""
    if request.source_dir is None or not request.requirements:
        return {}
    path = request.source_dir / request.requirements
    try:
        lines = requirement_lines(path) if path.is_file() else []
    except EnvironmentBuildError:
        return {}  # check_source reports it
    found = [
        re.match(r"([A-Za-z0-9][A-Za-z0-9._-]*)(?:\[.*?\])?\s*(?:==\s*([^\s;,]+))?", line) for line in lines
    ]
    return {match[1].lower().replace("_", "-"): match[2] or "" for match in found if match}


def _listed(packages: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in packages.items())
