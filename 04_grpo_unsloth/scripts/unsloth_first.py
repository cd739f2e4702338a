"""Unsloth, made ready: import this module before transformers, PEFT and TRL, which Unsloth patches as it is imported."""

import os

import job  # noqa: F401  (first: it says where caches go)
from compat.bitsandbytes_on_cpu import correct_dequantization
from compat.no_torchvision import hide_torchvision

# Standby: while the trainer computes, vLLM hands its memory back. Read at the import, so it cannot be a recipe's key.
os.environ.setdefault("UNSLOTH_VLLM_STANDBY", "1")
hide_torchvision()  # unsloth requires it, and so pip installs it

from unsloth import FastLanguageModel  # noqa: E402

correct_dequantization()

__all__ = ["FastLanguageModel"]
