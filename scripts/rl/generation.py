"""Generating completions in batches with transformers, the same for every model."""

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from accelerate.utils import extract_model_from_parallel
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from rl.answers import END_THINK, THINK
from rl.tasks import Message
from rl.templates import render

Messages = list[Message]


class Generated(NamedTuple):
    """One completion."""

    text: str  # without special tokens; a prefill included
    tokens: int  # the end token and a prefill included
    cut_off: bool  # it reached the limit and had not ended


@contextlib.contextmanager
def undisturbed(model: torch.nn.Module) -> Iterator[PreTrainedModel]:
    """The model without its DDP wrapper, in evaluation mode; on leaving, its mode and the random state are as before."""
    bare = extract_model_from_parallel(model)
    training = bare.training
    devices = [bare.device] if bare.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield bare.eval()
        finally:
            bare.train(training)


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[Messages],
    *,
    max_new_tokens: int,
    temperature: float,
    seed: int,
    tools: list[dict] | None = None,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    prefill: str = "",
) -> list[Generated]:
    """One completion for each conversation, all in one batch.

    The prompts are padded on the left to one tensor of shape (batch, prompt tokens); the model returns (batch, prompt
    tokens + up to `max_new_tokens`). The length counts the end token.

    Temperature 0 is greedy decoding; otherwise the model's own distribution is sampled, whatever top-k, top-p or penalty
    its authors recommend: pass@1 shall measure what is trained. `tools` are offered to the model by its chat template,
    which also gets `chat_template_kwargs`, as it does in training.

    `prefill` is a text that each completion begins with, whatever the model would have written. Where it ends by opening
    the thinking, the model has to think: its first token can be none of `closing_tokens`.

    Raises:
        ValueError: the prefill leaves the model no token of `max_new_tokens`.
    """
    texts = [
        render(tokenizer, prompt, chat_template_kwargs=chat_template_kwargs, tools=tools)
        for prompt in prompts
    ]
    inputs = tokenizer(
        texts, return_tensors="pt", padding=True, padding_side="left", add_special_tokens=False
    )
    width = inputs["input_ids"].shape[1]
    # By itself, as a completion is in training: joined with the prompt's end it might be cut into other tokens.
    begun = tokenizer(prefill, return_tensors="pt", add_special_tokens=False)["input_ids"].long()
    if begun.shape[1] >= max_new_tokens:
        raise ValueError(
            f"The prefill {prefill!r} has {begun.shape[1]} tokens, and a completion may have {max_new_tokens}: nothing is "
            "left for the model. Allow longer completions (eval_max_new_tokens), or begin with less."
        )
    begun = begun.expand(len(prompts), -1)
    prompt = torch.cat([inputs["input_ids"], begun], dim=1)
    mask = torch.cat([inputs["attention_mask"], torch.ones_like(begun)], dim=1)
    ends = _end_tokens(model, tokenizer)
    config = GenerationConfig(
        do_sample=temperature > 0,
        temperature=temperature or 1.0,
        top_k=0 if temperature > 0 else 50,
        top_p=1.0,
        repetition_penalty=1.0,
        max_new_tokens=max_new_tokens - begun.shape[1],
        begin_suppress_tokens=closing_tokens(tokenizer) if prefill.rstrip().endswith(THINK) else None,
        eos_token_id=ends,
        pad_token_id=tokenizer.pad_token_id,
        use_cache=True,
    )
    torch.manual_seed(seed)
    output = model.generate(
        input_ids=prompt.to(model.device),
        attention_mask=mask.to(model.device),
        generation_config=config,
    )
    completions = []
    for tokens in output[:, width:].tolist():
        # Behind the end token there is only padding, and the padding token may itself be an end token.
        end = next((place + 1 for place, token in enumerate(tokens) if token in ends), None)
        text = tokenizer.decode(tokens[:end], skip_special_tokens=True)
        completions.append(Generated(text, end or len(tokens), cut_off=end is None))
    return completions


def closing_tokens(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Tokens with which thinking that has just been opened would be over before it began.

    They are those whose text is a beginning of `</think>` or begins like a closing tag, and those without any text of their
    own: white space, and special tokens, the end tokens among them. Which they are depends on the tokenizer: one may have
    `</think>` as a token, another `<`, `</` or `\\n\\n`.
    """
    texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))], skip_special_tokens=True)
    stripped = enumerate(text.strip() for text in texts)
    return [token for token, text in stripped if END_THINK.startswith(text) or text.startswith("</")]


def _end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """End tokens of the tokenizer and of the model (which may have several), as TRL's rollouts use them."""
    ends = model.generation_config.eos_token_id
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    return sorted({*ends, tokenizer.eos_token_id})
