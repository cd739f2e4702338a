"""Preflight of the layers that a recipe names: those that get adapters, and those that FSDP shards one by one.

Their names are in the headers of the weights, and in the text of transformers' own file for the architecture, which is read and
not imported: that would take torch.
"""

import importlib.util
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rl.spelling import unknown_name

from workshop.checks.recipe_checks import as_list
from workshop.checks.request import PROBLEM, WARNING, Check
from workshop.checks.tensor_checks import Unreadable, tensor_shapes


def check_layers(
    folder: Path | None, config: Mapping[str, Any], values: Mapping[str, Any]
) -> Iterator[Check]:
    """What a recipe calls layers that this model has not got.

    Args:
        folder: where the whole model lies; None: it is not on this machine.
        config: the model's config.json.
        values: of every key that the script reads (recipe_values).
    """
    source = _source(str(config.get("model_type")))
    if source is None:
        return  # an architecture that the installed transformers does not have: the job says more
    wrapped = values.get("fsdp_config") if values.get("fsdp") else None
    names = as_list(wrapped.get("transformer_layer_cls_to_wrap")) if isinstance(wrapped, dict) else []
    classes = re.findall(r"^class (\w+)", source, re.MULTILINE)
    for name in map(str, names):
        if not re.search(rf"\b{re.escape(name)}\b", source):
            known = [found for found in classes if found.endswith(("Layer", "Block"))] or classes
            text = f"transformer_layer_cls_to_wrap: {unknown_name('class', name, known)}"
            yield Check("fsdp_config", PROBLEM, text)
    targets = [str(name) for name in as_list(values.get("lora_target_modules"))]
    if folder is None or values.get("lora_rank") in (None, 0) or targets == ["all-linear"]:
        return
    yield from _adapters(targets, _matrices(folder), source)


def _adapters(targets: list[str], matrices: set[str], source: str) -> Iterator[Check]:
    # A name may be missing from the weights where transformers gives a layer another one as it loads them.
    unknown = [
        name
        for name in targets
        if not any(path == name or path.endswith(f".{name}") for path in matrices)
        and not re.search(rf"\bself\.{re.escape(name.rpartition('.')[2])}\b", source)
    ]
    known = sorted({path.rpartition(".")[2] for path in matrices})
    for name in unknown if known else ():
        text = f"{unknown_name('layer', name, known)} (all-linear: all of them)"
        if len(unknown) < len(targets):
            yield Check("lora_target_modules", WARNING, f"{text}. It gets no adapter, the others do")
        else:
            yield Check("lora_target_modules", PROBLEM, text)


def _matrices(folder: Path) -> set[str]:
    """The layers whose weights are matrices, by their paths; none where the weights cannot be read (weight_problems)."""
    try:
        shapes = [
            entry
            for path in sorted(folder.glob("*.safetensors"))
            if path.is_file()
            for entry in tensor_shapes(path).items()
        ]
    except Unreadable:
        return set()
    return {name.rpartition(".")[0] for name, shape in shapes if len(shape) > 1}


def _source(model_type: str) -> str | None:
    """The text of transformers' modeling files for an architecture, such as qwen2."""
    from transformers.models.auto.configuration_auto import model_type_to_module_name

    package = importlib.util.find_spec("transformers")
    assert package and package.origin  # imported above
    folder = Path(package.origin).parent / "models" / model_type_to_module_name(model_type)
    files = sorted(folder.glob("modeling_*.py"))
    return "\n".join(path.read_text(encoding="utf-8") for path in files) or None
