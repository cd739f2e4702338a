"""Unsloth, made ready: import this module before transformers, PEFT and TRL, which Unsloth patches as it is imported."""

import os
import sys

import torch

# Standby: while the trainer computes, vLLM hands its memory back. Read at the import, so it cannot be a recipe's key.
os.environ.setdefault("UNSLOTH_VLLM_STANDBY", "1")

# Unsloth requires torchvision, though text needs none, and pip takes it from PyPI, built for CUDA. Beside a CPU build of
# torch that one does not load, and Unsloth and transformers stop at it. A module that is None counts as not installed.
if torch.version.cuda is None:
    sys.modules["torchvision"] = None

from rl.quantization import keep_scales_right  # noqa: E402, I001
from unsloth import FastLanguageModel  # noqa: E402

keep_scales_right()

__all__ = ["FastLanguageModel"]
