"""Preflight of a model's tokenizer and configuration, read as the job will read them: what would a trainer meet?"""

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from job.model_files import tokenizer_problems
from job.prompt_lengths import positions
from rl.answers import END_THINK
from rl.templates import opening, render

from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check
from workshop.checks.time_limit import Overtime, time_limit

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_S = 15.0  # for all that is rendered; a second is much
_SAMPLE = {"prompt": [{"role": "user", "content": "What is 2 + 6?"}]}  # where there is no data yet
_ADVICE = "TRANSFORMERS_NO_ADVISORY_WARNINGS"


@dataclass(frozen=True)
class ModelFolder:
    """Where the small files of a model are on this machine."""

    tokenizer: Path
    config: Path  # another folder, where adapters bring a tokenizer of their own


@dataclass(frozen=True)
class Model:
    """A model without its weights."""

    tokenizer: "PreTrainedTokenizerBase"
    config: dict[str, Any]  # config.json, the part about text
    ends: set[int]  # with which a completion ends

    @property
    def positions(self) -> int | None:
        """The longest sequence in tokens that it was made for; None: it does not say."""
        return positions(self.config)


def check_tokenizer(
    key: str, folder: ModelFolder, rows: list[dict[str, Any]], chat_template_kwargs: Mapping[str, Any] | None
) -> tuple[Model | None, list[int], list[Check]]:
    """Open a model's tokenizer and configuration, and render the training data with them.

    Args:
        key: the recipe's key that names the model.
        rows: of the training data; of each, `prompt` is rendered, with its `tools`.

    Returns:
        The model and the length of each prompt in tokens, or None and nothing where it cannot be used; and the findings.
    """
    try:
        model = _open(folder)
    except ImportError as error:
        return (
            None,
            [],
            [Check(key, WARNING, f"its tokenizer cannot be opened here, so not checked: {error}")],
        )
    except Exception as error:  # tokenizers raises nothing more specific for a file that it cannot read
        problem = f"its tokenizer or its configuration cannot be read: {type(error).__name__}: {error}"
        return None, [], [Check(key, PROBLEM, problem)]
    try:
        with time_limit(TEMPLATE_S):
            return _check_texts(key, model, rows, chat_template_kwargs)
    except Overtime:
        problem = (
            f"its chat template does not end within {TEMPLATE_S:.0f} s: is there a loop in it that never ends? Take the "
            "template of the model that it is made of"
        )
        return None, [], [Check(key, PROBLEM, problem)]


def _check_texts(
    key: str, model: Model, rows: list[dict[str, Any]], chat_template_kwargs: Mapping[str, Any] | None
) -> tuple[Model | None, list[int], list[Check]]:
    problems = tokenizer_problems(model.tokenizer)
    texts: list[str] = []
    if not problems:
        texts, problems = _render(model.tokenizer, rows or [_SAMPLE], chat_template_kwargs)
    if problems:
        return None, [], [Check(key, PROBLEM, problem) for problem in problems]
    ids = model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    checks = [
        *_check_embedding(key, model, {token for sequence in ids for token in sequence}),
        *_check_end(key, model, chat_template_kwargs),
        *_notes(model.tokenizer, texts[0], chat_template_kwargs),
    ]
    if any(check.status == PROBLEM for check in checks):
        return None, [], checks
    words = f"{len(model.tokenizer):,} tokens, ends with {model.tokenizer.eos_token!r}"
    return (
        model,
        [len(sequence) for sequence in ids] if rows else [],
        [Check("tokenizer", OK, words), *checks],
    )


def _open(folder: ModelFolder) -> Model:
    advice = os.environ.get(_ADVICE)
    os.environ[_ADVICE] = "1"  # or the import says that there is no PyTorch, as is meant here
    try:
        from transformers import AutoTokenizer
    finally:
        os.environ.pop(_ADVICE)
        os.environ.update({_ADVICE: advice} if advice else {})

    tokenizer = AutoTokenizer.from_pretrained(
        folder.tokenizer, local_files_only=True, trust_remote_code=False
    )
    whole = json.loads((folder.config / "config.json").read_text(encoding="utf-8"))
    config = whole.get("text_config") or whole
    generation = folder.config / "generation_config.json"
    ends = json.loads(generation.read_text(encoding="utf-8")) if generation.is_file() else config
    found = ends.get("eos_token_id")
    found = found if isinstance(found, list) else [found]
    return Model(tokenizer, config, {end for end in [*found, tokenizer.eos_token_id] if end is not None})


def _render(
    tokenizer: "PreTrainedTokenizerBase",
    rows: list[dict[str, Any]],
    chat_template_kwargs: Mapping[str, Any] | None,
) -> tuple[list[str], list[str]]:
    """Each row's prompt as the model gets it, and what is wrong with it."""

    def rendered(row: dict[str, Any], roles: set[str]) -> str:
        messages = [message for message in row["prompt"] if message["role"] in roles]
        tools = json.loads(row["tools"]) if row.get("tools") else None
        return render(tokenizer, messages, chat_template_kwargs=chat_template_kwargs, tools=tools)

    roles = {message["role"] for row in rows for message in row["prompt"]}
    with_system = sum(any(message["role"] == "system" for message in row["prompt"]) for row in rows)
    cure = (
        f"{with_system} of {len(rows)} prompts have a system message: put its text at the beginning of the question "
        "instead, or take a model whose template has a system role"
    )
    try:
        texts = [rendered(row, roles) for row in rows]
    except Exception as error:  # a template may raise anything
        try:
            rendered(rows[0], roles - {"system"})
        except Exception:
            return [], [f"its chat template cannot render the prompts of the data: {error}"]
        if not with_system:
            return [], [f"its chat template cannot render some prompts of the data: {error}"]
        return [], [f"its chat template refuses system messages ({error}), and {cure}"]
    dropped = {
        message["role"]
        for row, text in zip(rows, texts, strict=True)
        for message in row["prompt"]
        if message["role"] in ("system", "user") and message["content"].strip() not in text
    }
    if "user" in dropped:
        return texts, [
            "its chat template leaves out or alters the text of user messages. Does it want a list of parts as content? "
            "Take the template of a text model"
        ]
    if "system" in dropped:
        return texts, [f"its chat template drops system messages without a word, and {cure}"]
    return texts, []


def _check_embedding(key: str, model: Model, used: set[int]) -> Iterator[Check]:
    """Token ids are row numbers of the embedding, so it must have a row for each."""
    rows = model.config.get("vocab_size")
    if not isinstance(rows, int):
        return
    tokenizer = model.tokenizer
    used = used | model.ends | {token for token in (tokenizer.pad_token_id, tokenizer.bos_token_id) if token}
    by_number = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    beyond = {token: number for token, number in by_number if number >= rows}
    met = [token for token, number in beyond.items() if number in used]
    if not beyond:
        return
    highest = f"its tokenizer counts up to token {max(beyond.values())}, but its embedding has {rows:,} rows"
    if met:
        text = f"{highest}: {_some(met)} would be an index error in the first step. Take the tokenizer that belongs to it"
        yield Check(key, PROBLEM, text)
    else:
        yield Check(
            key, WARNING, f"{highest}: a text with {_some(list(beyond))} in it would end in an index error"
        )


def _some(tokens: list[str]) -> str:
    shown = ", ".join(map(repr, tokens[:3]))
    return f"{shown} and {len(tokens) - 3} more" if len(tokens) > 3 else shown


def _check_end(key: str, model: Model, chat_template_kwargs: Mapping[str, Any] | None) -> Iterator[Check]:
    """A model ends its turn as its chat template taught it; trainers must know that token as an end."""
    turns = [*_SAMPLE["prompt"], {"role": "assistant", "content": "eight"}]
    try:
        text = model.tokenizer.apply_chat_template(turns, tokenize=False, **(chat_template_kwargs or {}))
    except Exception:  # a template for prompts alone, which writes no answers
        return
    _, answered, ending = text.rpartition("eight")
    ends = model.tokenizer.convert_ids_to_tokens(sorted(model.ends))
    if answered and not any(end in ending for end in ends):
        yield Check(
            key,
            WARNING,
            f"its chat template writes {ending!r} behind an answer, and none of the end tokens {', '.join(ends)}: a model "
            'that ends as it was taught is never seen to end, and every completion is cut off. Set "eos_token" in '
            "tokenizer_config.json to what the template writes",
        )


def _notes(
    tokenizer: "PreTrainedTokenizerBase", text: str, chat_template_kwargs: Mapping[str, Any] | None
) -> Iterator[Check]:
    """What a trainer takes in its stride, and a learner may wonder about."""
    try:
        added = opening(tokenizer, chat_template_kwargs)
    except Exception as error:  # a template may raise anything
        yield Check("template", PROBLEM, f"the chat template cannot render a single question: {error}")
        return
    if END_THINK in added:
        yield Check(
            "template",
            NOTE,
            f"the chat template puts an empty thinking block ({added!r}) in front of every answer: a completion is judged "
            "with it, so that the format asks for no second one",
        )
    elif added:
        yield Check(
            "template",
            NOTE,
            f"the chat template opens the thinking ({added!r}) before the model writes: a completion is judged with it, "
            f"and its answer counts behind the last {END_THINK}",
        )
    twice = tokenizer(text)["input_ids"][:2]
    if tokenizer.bos_token_id is not None and twice == [tokenizer.bos_token_id] * 2:
        yield Check(
            "template",
            NOTE,
            f"the chat template writes {tokenizer.bos_token!r}, and the tokenizer would add another: rendered prompts are "
            "tokenized without special tokens in all jobs here; do so too where you use the model",
        )
    if tokenizer.pad_token is None:
        yield Check("tokenizer", NOTE, f"no padding token: the job pads with {tokenizer.eos_token!r}")
