"""Prompts as a model's chat template renders them. Works with any tokenizer of transformers, and needs no torch."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rl.answers import TAGS, THINK
from rl.tasks import Message

QUESTION = "What is asked?"
# Arguments of apply_chat_template that are not the template's own; the jobs set them.
NOT_VARIABLES = (
    "messages",
    "conversation",
    "tools",
    "tokenize",
    "add_generation_prompt",
    "continue_final_message",
    "return_dict",
    "return_tensors",
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def render(
    tokenizer: "PreTrainedTokenizerBase",
    messages: Sequence[Message],
    *,
    chat_template_kwargs: Mapping[str, Any] | None = None,
    tools: Sequence[dict[str, Any]] | None = None,
) -> str:
    """The prompt that a model is given to complete: its turn has been opened, and nothing of it written.

    Raises:
        ValueError: `chat_template_kwargs` holds what is no variable of a template. A template may raise anything.
    """
    if wrong := sorted({*NOT_VARIABLES} & {*(chat_template_kwargs or {})}):
        raise ValueError(
            f"chat_template_kwargs: {', '.join(wrong)} is no variable of the chat template, and is set by the job: leave it out."
        )
    options = {"tools": tools, **(chat_template_kwargs or {})}
    return tokenizer.apply_chat_template(
        list(messages), add_generation_prompt=True, tokenize=False, **options
    )


def opening(
    tokenizer: "PreTrainedTokenizerBase", chat_template_kwargs: Mapping[str, Any] | None = None
) -> str:
    """What the chat template puts into the answer before the model writes, from `<think>` on; mostly nothing.

    DeepSeek's R1 distills open the thinking ("<think>\\n"); Qwen3 without thinking gets an empty block
    ("<think>\\n\\n</think>\\n\\n").
    """
    question: list[Message] = [{"role": "user", "content": QUESTION}]
    try:
        prompt = render(tokenizer, question, chat_template_kwargs=chat_template_kwargs)
    except Exception:  # some templates insist on a system message; what else there is, they say again
        question = [{"role": "system", "content": ""}, *question]
        prompt = render(tokenizer, question, chat_template_kwargs=chat_template_kwargs)
    without = tokenizer.apply_chat_template(question, tokenize=False, **(chat_template_kwargs or {}))
    # What stands before the question, such as a system prompt that explains the tags, is no part of the answer. A
    # template may open the turn without being asked.
    asked = prompt != without and prompt.startswith(without)
    added = prompt[len(without) :] if asked else prompt.rpartition(QUESTION)[2]
    return added[added.find(THINK) :] if THINK in added else ""


def special_tags(tokenizer: "PreTrainedTokenizerBase") -> list[str]:
    """Tags of the answer format that are special tokens of a tokenizer.

    They are lost when a completion is decoded, as special tokens are: such a model can never be seen to answer.
    """
    special = set(tokenizer.all_special_tokens)
    special |= {token.content for token in tokenizer.added_tokens_decoder.values() if token.special}
    return [tag for tag in TAGS if tag in special]
