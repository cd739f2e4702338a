"""The end token of a tokenizer that was read from a GGUF file (transformers 5.10.4 and 5.17.0).

transformers takes <|im_start|> for the end of SmolLM2's tokenizer, while the model's own config has the right one.
Trainers ask the tokenizer, and no answer would ever end. transformers 5.23.0 reads the right one: this can go when 04 and
05 are allowed as new a version.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def correct_end_token(tokenizer: "PreTrainedTokenizerBase", model: "PreTrainedModel") -> None:
    """Takes the model's end token for the tokenizer, and for padding."""
    tokenizer.eos_token = tokenizer.pad_token = tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
