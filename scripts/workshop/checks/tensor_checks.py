"""Preflight of a model's weights, as far as the headers of its files say: whole, all there, and those of its config.json.

A safetensors file begins with eight bytes, the length of its header; the header is JSON and has type, shape and place of each
tensor (https://huggingface.co/docs/safetensors). The job looks closer, with transformers (job.model_tensors): it knows which
names each architecture has.
"""

import json
import re
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_NAMED = 3  # of what is missing, so many are named
_LONGEST_HEADER = 100_000_000  # bytes; the limit of the safetensors library
_EMBEDDINGS = re.compile(r"(^|\.)(embed_tokens|wte)\.weight$")
_LAYER = re.compile(r"(?:^|\.)(?:layers|h)\.(\d+)\.")

Shapes = Mapping[str, tuple[int, ...]]  # by the tensors' names


class Unreadable(Exception):
    """A file that is no safetensors file, or not all of one."""


def weight_problems(folder: Path) -> Iterator[str]:
    """What is wrong with the weights in a model's folder, in words, one kind after the other."""
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        yield "it has no weights: there is no .safetensors file"
        return
    if odd := [path.name for path in files if not path.is_file()]:
        yield f"{_some(odd)} is no file that can be read: a folder, a pipe, a device or a link to nowhere"
        return
    index = folder / "model.safetensors.index.json"
    named = set(_json(index).get("weight_map", {}).values()) if index.is_file() else set()
    if missing := sorted(named - {path.name for path in files}):
        yield f"{_some(missing)} of its index is missing"
        return
    try:
        shapes = {name: shape for path in files for name, shape in tensor_shapes(path).items()}
    except Unreadable as error:
        yield str(error)
        return
    config = _json(folder / "config.json")
    # Weights that were packed have names and shapes of their own kind, and a model with images has layers for these too.
    if "quantization_config" not in config and "text_config" not in config:
        yield from _differences(shapes, config)


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor in a file, from its header.

    Raises:
        Unreadable: the header is damaged, or the file ends before its tensors do.
    """
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > min(size, _LONGEST_HEADER):
                raise ValueError("longer than the file")
            header = json.loads(file.read(length))
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"}
        end = 8 + length + max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    except (ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Unreadable(f"{path.name} is no whole safetensors file: its header cannot be read") from error
    if size != end:
        raise Unreadable(f"{path.name} has {size:,} bytes, and its tensors take {end:,}")
    return shapes


def _differences(shapes: Shapes, config: Mapping[str, Any]) -> Iterator[str]:
    """How tensors differ from those that a decoder with this config.json has."""
    if shapes and all(name.startswith("module.") for name in shapes):
        yield (
            "all its tensors have names that begin with 'module.', which come from a wrapper around the model: save what it "
            "wraps (model.module)"
        )
        return
    layers = {int(found[1]) for name in shapes if (found := _LAYER.search(name))}
    wanted = config.get("num_hidden_layers")
    # Layers beyond these some models have for a use that is not trained here; which ones, the job knows.
    if isinstance(wanted, int) and layers and (missing := sorted(set(range(wanted)) - layers)):
        yield f"its config.json says num_hidden_layers {wanted}, and layer {_some([*map(str, missing)])} is missing"
    rows_and_width = config.get("vocab_size"), config.get("hidden_size")
    for name, shape in shapes.items():
        if _EMBEDDINGS.search(name) and all(rows_and_width) and shape != rows_and_width:
            yield f"{name} has the shape {shape}, and its config.json says {rows_and_width}"


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}  # said by the check of the configuration
    return content if isinstance(content, dict) else {}


def _some(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
