"""The tiny model with an even vocabulary, so that tensor parallelism can cut it in two: one row more, of zeros.

    python scripts/pad_tiny_model.py --output scripts/assets/tiny-even

Vocabularies of large models are made a multiple of 64 or 128 for the same reason. The row belongs to no token. Its logit
is 0 whatever was read, so that it takes a little of the probability of all others; the card says how little.
"""

import shutil

import torch
from job.models import ASSETS, load_base
from model_building import read_arguments
from rl.tasks import make_splits
from transformers import PreTrainedModel, PreTrainedTokenizerFast

CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Tiny arithmetic model, with an even vocabulary

[tiny](../tiny/README.md) with {rows} rows in its embedding in the place of {before}, made by `scripts/pad_tiny_model.py`. The
row that was added is zero and belongs to no token. Tensor parallelism cuts the vocabulary into equal parts, which an odd
number does not allow.

| | |
|---|---|
| probability of the row, mean over the prompts' tokens of 100 problems | {mean:.1e} |
| the largest | {largest:.1e} |

Everything else is as on the card of tiny.
"""


def padded(model: PreTrainedModel, multiple: int = 2) -> PreTrainedModel:
    """The model with zero rows in its embedding and its head, until the vocabulary is a multiple of `multiple`."""
    before = model.config.vocab_size
    model.resize_token_embeddings(pad_to_multiple_of=multiple, mean_resizing=False)
    with torch.no_grad():
        model.get_input_embeddings().weight[before:] = 0
        model.get_output_embeddings().weight[before:] = 0
    return model


def measure(model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> dict[str, float]:
    """How probable the last row is: mean and largest over all tokens of 100 prompts."""
    rows = make_splits("chain_sum", {"train": 100})["train"]
    with torch.no_grad():
        shares = torch.cat(
            [
                model(torch.tensor([tokenizer(row["question"])["input_ids"]])).logits[0].softmax(-1)[:, -1]
                for row in rows
            ]
        )
    return {"mean": shares.mean().item(), "largest": shares.max().item()}


def main() -> None:
    arguments = read_arguments(__doc__)
    model, tokenizer = load_base("asset:tiny")
    before = model.config.vocab_size
    padded(model).save_pretrained(arguments.output)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(ASSETS / "tiny" / file, arguments.output / file)  # as they are, byte for byte
    card = CARD.format(rows=model.config.vocab_size, before=before, **measure(model, tokenizer))
    (arguments.output / "README.md").write_text(card)


if __name__ == "__main__":
    main()
