"""Training text models without torchvision, which unsloth 2026.10.9 requires and no text model needs."""

import sys
from typing import Any

import torch


def hide_torchvision() -> None:
    """Makes torchvision count as not installed beside a CPU build of torch. Call it before transformers is imported.

    pip takes torchvision from PyPI, built for CUDA, unless it is told of another index. Beside a CPU build of torch that
    one does not load, and transformers and Unsloth stop at it: "operator torchvision::nms does not exist".
    """
    if torch.version.cuda is None:
        modules: dict[str, Any] = sys.modules
        modules["torchvision"] = None  # what Python takes for "not found"
