"""Whether the files of a model hold the tensors that its config.json describes.

transformers gives random numbers to those that it does not find, passes over those that it does not know, and says so in a
table of its log; a job would train from there and complete.
"""

from collections.abc import Collection
from typing import Any

from transformers import AutoConfig
from transformers.utils import logging

NAMED = 3  # of the tensors of each kind, so many are named


class ModelUnusable(Exception):
    """A model that is there and cannot be trained; the message says why, and what would mend it."""


def check_tensors(kind: Any, spec: str, source: str) -> None:
    """Looks at the names and shapes of a model's tensors before they are loaded.

    Raises:
        ModelUnusable: some are missing, have another shape, or belong to another model; says which.
    """
    if problems := tensor_problems(kind, source):
        raise ModelUnusable(
            f"{spec} does not hold the model that its config.json describes: {'; '.join(problems)}. Take the folder that "
            "save_pretrained of the trained model wrote, files and config.json together."
        )


def tensor_problems(kind: Any, source: str) -> list[str]:
    """What is wrong with the tensors at a source (a folder, or a name on the Hub); empty if nothing is.

    Only their names and shapes are read. A head that is tied to the embeddings need not be there. Weights that were packed
    before they were saved have names of their own kind, and are not looked at.

    Args:
        kind: the class that is to read them, such as AutoModelForCausalLM.
    """
    if getattr(AutoConfig.from_pretrained(source, trust_remote_code=False), "quantization_config", None):
        return []
    bar = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        _, found = kind.from_pretrained(
            source,
            device_map="meta",
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    finally:
        if bar:
            logging.enable_progress_bar()
    problems = []
    if missing := found["missing_keys"]:
        problems.append(_counted(missing, "missing, and would be random numbers"))
    if unexpected := found["unexpected_keys"]:
        problems.append(_counted(unexpected, "not part of it, and would be left out"))
    for name, file, model in sorted(found["mismatched_keys"])[:NAMED]:
        problems.append(f"{name} has the shape {tuple(file)} and should have {tuple(model)}")
    if problems and unexpected and all(name.startswith("module.") for name in unexpected):
        problems.append(
            "names that begin with 'module.' come from a wrapper around the model: save what it wraps (model.module)"
        )
    return problems


def _counted(names: Collection[str], what: str) -> str:
    shown = ", ".join(sorted(names)[:NAMED]) + (", ..." if len(names) > NAMED else "")
    return f"{len(names)} tensor{'s are' if len(names) > 1 else ' is'} {what} ({shown})"
