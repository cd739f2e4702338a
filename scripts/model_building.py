"""What the scripts share that build the tiny models: their command line, and a model's folder with its card."""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PreTrainedModel, PreTrainedTokenizerFast


def read_arguments(description: str, steps: int | None = None) -> argparse.Namespace:
    """`--output`, a folder that is not there yet; and `--steps`, if a number of them is given as its default."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--output", type=Path, required=True, help="folder for the model; it must not exist yet"
    )
    if steps is not None:
        parser.add_argument("--steps", type=int, default=steps)
    arguments = parser.parse_args()
    if arguments.output.exists():
        parser.error(f"{arguments.output} exists; move it away first, nothing is overwritten")
    return arguments


def reproducibly() -> None:
    """Lets torch give the same weights for the same seed on the same machine."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)


def save_with_card(
    folder: Path, model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, card: str, **facts: Any
) -> None:
    """Saves a model that was trained here. `facts` fill in the card, and so do its size and the libraries' versions."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    print(json.dumps(facts, indent=2))
    versions = {"torch": torch.__version__, "transformers": transformers.__version__}
    (folder / "README.md").write_text(card.format(parameters=model.num_parameters(), **versions, **facts))
