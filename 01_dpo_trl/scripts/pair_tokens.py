"""Preference pairs as a model reads them: the prompt by its own chat template, the answers as it would write them.

`pair_tokens` gives what DPO trains on, token by token, and `count_tokens` counts the same tokens.
"""

import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, cast

from rl.preferences import PARTS, SIDES, Pair, normal_form
from rl.tasks import DataError
from rl.templates import render

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Options = Mapping[str, Any] | None


def as_texts(
    pair: Pair, tokenizer: "PreTrainedTokenizerBase", chat_template_kwargs: Options = None
) -> dict[str, str]:
    """The prompt as the model is asked it, with the pair's tools, and both answers bare, without an end token.

    Bare: given messages, DPOTrainer would apply the chat template to the answers too, and ChatML's puts a line break
    behind the end token. No model ever writes that one, so its log-probability is about -20, and DPO could earn margin
    with a token that no answer contains. Calls of tools are written as the template writes them.

    Raises:
        DataError: as `rl.preferences.normal_form`; or the chat template refuses the exchange, or leaves out its calls.
    """
    from jinja2 import TemplateError

    pair = normal_form(pair)
    tools = json.loads(pair["tools"]) if pair.get("tools") else None
    options = {"chat_template_kwargs": chat_template_kwargs, "tools": tools}
    prompt = [_with_parsed_calls(cast(dict, message)) for message in pair["prompt"]]
    try:
        asked = render(tokenizer, prompt, **options)
        if any("tool_calls" in message for message in prompt):
            bare = [{key: message[key] for key in message if key != "tool_calls"} for message in prompt]
            if render(tokenizer, bare, **options) == asked:
                raise DataError(f"'prompt' has tool_calls, which {_NOT_WRITTEN}.")
        answers = {
            side: _written(pair[side][0], prompt, tokenizer, {"tools": tools, **(chat_template_kwargs or {})})
            for side in SIDES
        }
    except (TemplateError, TypeError) as error:  # TypeError: a template that does sums with what is no text
        raise DataError(f"the model's chat template refuses this exchange: {error}") from error
    return {"prompt": asked} | answers


_NOT_WRITTEN = "the model's chat template does not write"


def _written(message: Any, prompt: list[dict], tokenizer: "PreTrainedTokenizerBase", options: dict) -> str:
    """An answer's text, and behind it what the chat template writes of its calls."""
    if not message.get("tool_calls"):
        return message["content"]
    called = _with_parsed_calls(message)
    bare = {key: called[key] for key in ("role", "content")}
    whole, plain = (
        tokenizer.apply_chat_template([*prompt, answer], tokenize=False, **options)
        for answer in (called, bare)
    )
    # The template writes the same with and without calls, but for what stands between the text and the end token.
    end = plain.rfind(tokenizer.eos_token)
    before, after = plain[:end], plain[end:]
    calls = whole[len(before) : len(whole) - len(after)]
    if end < 0 or whole != before + calls + after or not calls:
        raise DataError(
            f"an answer has tool_calls, which {_NOT_WRITTEN}{' behind a text' if message['content'] else ''}. Write the call "
            "into 'content' as the model would, such as <tool_call>\\n{...}\\n</tool_call>."
        )
    return message["content"] + calls


def _with_parsed_calls(message: dict[str, Any]) -> dict[str, Any]:
    """Arguments that are JSON text, as OpenAI writes them, become mappings: templates would quote the text again."""
    calls = []
    for call in message.get("tool_calls") or ():
        function = dict(call.get("function", call))
        if isinstance(function.get("arguments"), str):
            try:
                function["arguments"] = json.loads(function["arguments"])
            except ValueError:
                pass  # a model's broken call stays the text that it is
        calls.append({**call, "type": "function", "function": function} if "function" in call else function)
    return {**message, "tool_calls": calls} if calls else message


def pair_tokens(
    pair: Pair, tokenizer: "PreTrainedTokenizerBase", chat_template_kwargs: Options = None
) -> dict[str, list[int]]:
    """ "prompt_ids", "chosen_ids" and "rejected_ids", the end token included: what DPO trains on.

    The prompt has the tokens that the model is asked with when it generates: nothing is added to what the chat template
    writes. (A tokenizer that adds a BOS by itself would add it to the template's.)
    """
    texts = as_texts(pair, tokenizer, chat_template_kwargs)
    prompt = _ids(tokenizer, texts["prompt"])
    tokens = {"prompt_ids": prompt}
    for side in SIDES:
        answer = texts[side].removesuffix(tokenizer.eos_token) + tokenizer.eos_token
        whole = _ids(tokenizer, texts["prompt"] + answer)
        # The end of a prompt can merge with the beginning of an answer, which never happens when the model writes.
        apart = whole[: len(prompt)] != prompt
        tokens[f"{side}_ids"] = _ids(tokenizer, answer) if apart else whole[len(prompt) :]
    return tokens


def _ids(tokenizer: "PreTrainedTokenizerBase", text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]


def each_pairs_tokens(
    pairs: list[Pair], tokenizer: "PreTrainedTokenizerBase", chat_template_kwargs: Options = None
) -> Iterator[dict[str, list[int]]]:
    """`pair_tokens` of every pair; a DataError names the row, counted from 1."""
    for number, pair in enumerate(pairs, start=1):
        try:
            yield pair_tokens(pair, tokenizer, chat_template_kwargs)
        except DataError as error:
            raise DataError(f"pair {number}: {error}") from error


def count_tokens(
    pairs: list[Pair], tokenizer: "PreTrainedTokenizerBase", chat_template_kwargs: Options = None
) -> list[Pair]:
    """The pairs with prompt_tokens, chosen_tokens and rejected_tokens: the lengths of `pair_tokens`."""
    found = each_pairs_tokens(pairs, tokenizer, chat_template_kwargs)
    return [with_lengths(pair, tokens) for pair, tokens in zip(pairs, found, strict=True)]


def with_lengths(pair: Pair, tokens: Mapping[str, list[int]]) -> Pair:
    """The pair with the lengths of its tokens."""
    return cast(Pair, {**pair, **{f"{name}_tokens": len(tokens[f"{name}_ids"]) for name in PARTS}})
