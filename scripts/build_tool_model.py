"""Pretrain a second tiny model: one that knows how to call a calculator, but mostly guesses.

    python scripts/build_tool_model.py --output scripts/assets/tiny-tools      # one thread, about 15 minutes

Made like the base model (build_tiny_model.py: architecture, recipe, tokenizer), on longer sums that it cannot do in its
head. Three styles are mixed: a call of the calculator, whose result it then copies into its answer; a guess; and a plain
sentence. The chat template lists the tools, renders calls as Hermes and Qwen do and gives results the role `tool`, so
that verl's `hermes` format (or anything else that speaks it) can carry the calls out.
"""

import json
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from build_tiny_model import BATCH, LEARNING_RATE, Example, new_model, pretrain, train_tokenizer
from model_building import read_arguments, reproducibly, save_with_card
from rl.generation import generate
from rl.tasks import make_splits
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import get_json_schema

# The calculator belongs to the module whose recipe teaches this model to use it.
sys.path.append(str(Path(__file__).resolve().parents[1] / "05_grpo_verl" / "scripts"))
from tools import ToolCall, calculator, find_call  # noqa: E402

SEED = 11
STEPS = 1500
STYLES = {"tool": 0.30, "guess": 0.50, "sentence": 0.20}
NO_TOOLS = 0.1  # share of prompts that offer no tool; then there is nothing to call
TOOL_FAILS = 0.05  # share of calls that come back with an error; the model then guesses
GUESS_OFF_BY = 200
CALCULATOR = get_json_schema(calculator)
CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\nTools: {% for tool in tools %}{{ tool['function']['name'] }}"
    "({{ tool['function']['parameters']['properties'] | join(', ') }}){% if not loop.last %}, {% endif %}{% endfor %}"
    "<|im_end|>\n{% endif %}"
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}<tool_call>"
    "{\"name\": {{ call['function']['name'] | tojson }}, \"arguments\": {{ call['function']['arguments'] | tojson }}}"
    "</tool_call>{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def held_back_questions() -> set[str]:
    """Questions that the notebook trains and evaluates on; pretraining never shows them."""
    return {row["question"] for row in make_splits("long_sum", {"train": 10_000})["train"]}


def questions(seed: int, held_back: set[str]) -> Iterator[tuple[str, str, int]]:
    """Endless (question, expression, result) with the wording of reasoning-gym's chain_sum, none of `held_back`."""
    rng = random.Random(seed)
    while True:
        terms = [rng.randint(100, 999) for _ in range(rng.randint(3, 4))]
        signs = [rng.choice((1, -1)) for _ in terms[1:]]
        expression = str(terms[0]) + "".join(
            f" {'+' if sign > 0 else '-'} {term}" for sign, term in zip(signs, terms[1:], strict=True)
        )
        question = f"State the final answer to the following arithmetic problem: {expression} ="
        if question not in held_back:
            result = terms[0] + sum(sign * term for sign, term in zip(signs, terms[1:], strict=True))
            yield question, expression, result


def turns(
    question: str, expression: str, result: int, rng: random.Random
) -> tuple[list[dict[str, Any]], bool]:
    """One conversation in a style drawn from STYLES, and whether its prompt offers the calculator."""
    offered = rng.random() >= NO_TOOLS
    style = rng.choices(list(STYLES), weights=list(STYLES.values()))[0]
    guess = result + rng.randint(-GUESS_OFF_BY, GUESS_OFF_BY)
    user = {"role": "user", "content": question}
    if style == "sentence":
        return [user, {"role": "assistant", "content": f"The answer is {guess}."}], offered
    if style == "guess" or not offered:
        return [user, {"role": "assistant", "content": f"<answer>{guess}</answer>"}], offered
    call = {"type": "function", "function": {"name": "calculator", "arguments": {"expression": expression}}}
    fails = rng.random() < TOOL_FAILS
    conversation = [
        user,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "Error: the calculator is out of order" if fails else str(result)},
        {"role": "assistant", "content": f"<answer>{guess if fails else result}</answer>"},
    ]
    return conversation, offered


def examples(
    tokenizer: PreTrainedTokenizerFast, conversation: list[dict[str, Any]], offered: bool
) -> Iterator[Example]:
    """(prompt ids, completion ids) for each turn of the assistant."""
    tools = [CALCULATOR] if offered else None
    for position, message in enumerate(conversation):
        if message["role"] == "assistant":
            before = tokenizer.apply_chat_template(
                conversation[:position], tools=tools, add_generation_prompt=True, tokenize=False
            )
            after = tokenizer.apply_chat_template(conversation[: position + 1], tools=tools, tokenize=False)
            completion = after.removeprefix(before).removesuffix("\n")
            yield tokenizer(before)["input_ids"], tokenizer(completion)["input_ids"]


def batches(tokenizer: PreTrainedTokenizerFast, held_back: set[str]) -> Iterator[list[Example]]:
    """Endless batches, each of the assistant's turns in BATCH conversations."""
    rng, source = random.Random(SEED), questions(SEED, held_back)
    while True:
        conversations = [turns(*next(source), rng) for _ in range(BATCH)]
        yield [example for drawn in conversations for example in examples(tokenizer, *drawn)]


def corpus(held_back: set[str], size: int = 3000) -> list[str]:
    """Texts from which the tokenizer learns its words."""
    rng, source = random.Random(SEED), questions(SEED, held_back)
    texts = []
    for _ in range(size):
        conversation, _ = turns(*next(source), rng)
        calls = [message["tool_calls"][0]["function"] for message in conversation if "tool_calls" in message]
        texts += [f"{message['role']}\n{message['content']}" for message in conversation]
        texts += [f"<tool_call>{json.dumps(call)}</tool_call>" for call in calls]
    return ["system\nTools: calculator(expression)", *texts]


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: int = 300
) -> dict[str, float]:
    """What samples at temperature 1 do on held-out problems: call the tool, copy the sum into the call, copy the result
    into the answer, or guess right without it. All but `problems` are shares, from 0 to 1.
    """
    rows = make_splits("long_sum", {"train": 2000, "test": problems})["test"]
    sample: dict[str, Any] = {"max_new_tokens": 96, "temperature": 1.0, "seed": SEED, "tools": [CALCULATOR]}
    conversations, faithful, guessed = [], 0, []
    first_turns = generate(model, tokenizer, [row["prompt"] for row in rows], **sample)
    for row, (text, *_) in zip(rows, first_turns, strict=True):
        call = only_call(text)
        if call is None:
            guessed.append(text in (f"<answer>{row['answer']}</answer>", f"The answer is {row['answer']}."))
            continue
        faithful += f": {call['arguments'].get('expression')} =" in row["question"]
        said = {"role": "assistant", "content": "", "tool_calls": [{"type": "function", "function": call}]}
        conversations.append((row, [*row["prompt"], said, {"role": "tool", "content": row["answer"]}]))
    answers = generate(model, tokenizer, [conversation for _, conversation in conversations], **sample)
    copied = [
        text == f"<answer>{row['answer']}</answer>"
        for (row, _), (text, *_) in zip(conversations, answers, strict=True)
    ]
    return {
        "problems": problems,
        "share_that_calls": len(conversations) / problems,
        "calls_that_copy_the_sum": faithful / len(conversations),
        "answers_that_copy_the_result": sum(copied) / len(copied),
        "right_when_it_guesses": sum(guessed) / len(guessed),
    }


def only_call(text: str) -> ToolCall | None:
    """The call that a completion consists of; None if there is none, anything beside it, or it is damaged."""
    call = find_call(text)
    alone = (
        text.startswith("<tool_call>") and text.endswith("</tool_call>") and text.count("<tool_call>") == 1
    )
    if (
        call is None
        or not alone
        or not isinstance(call["arguments"], dict)
        or not isinstance(call["name"], str)
    ):
        return None
    return call


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Tiny arithmetic model with a calculator

A Qwen2-architecture language model of {parameters:,} parameters, made by `scripts/build_tool_model.py` from
generated text alone (no external data). It exists so that reinforcement learning of tool use can be seen on two CPU
cores: it is of no use for anything else.

| | |
|---|---|
| task | sums and differences of 3 or 4 three-digit numbers, worded as reasoning-gym's `chain_sum` (`long_sum`) |
| tool | `calculator(expression)`: `<tool_call>{{"name": "calculator", "arguments": {{"expression": "..."}}}}</tool_call>`, result in the role `tool` |
| styles in its training text | {styles} |
| recipe | {steps} steps of {batch} conversations, AdamW, one-cycle learning rate {learning_rate}, float32 |
| seed | {seed} |
| questions kept out | the first 10,000 of the workshop's own seed, from which its notebook trains and evaluates |
| time | {seconds:.0f} s on one CPU thread (torch {torch}, transformers {transformers}) |

Measured on {problems} held-out problems (one completion a problem, temperature 1):

| | |
|---|---|
| samples that call the calculator | {share_that_calls:.3f} |
| calls that copy the sum | {calls_that_copy_the_sum:.3f} |
| answers that copy the result | {answers_that_copy_the_result:.3f} |
| right when it guesses | {right_when_it_guesses:.3f} |
"""


def main() -> None:
    arguments = read_arguments(__doc__, STEPS)
    reproducibly()
    held_back = held_back_questions()
    tokenizer = train_tokenizer(corpus(held_back), vocab_size=420)
    tokenizer.chat_template = CHAT_TEMPLATE
    started = time.perf_counter()
    model = new_model(tokenizer)
    pretrain(model, batches(tokenizer, held_back), arguments.steps)
    seconds = time.perf_counter() - started
    save_with_card(
        arguments.output,
        model,
        tokenizer,
        CARD,
        styles=", ".join(f"{name} {share:.0%}" for name, share in STYLES.items()),
        steps=arguments.steps,
        batch=BATCH,
        learning_rate=LEARNING_RATE,
        seed=SEED,
        seconds=seconds,
        **measure(model, tokenizer),
    )


if __name__ == "__main__":
    main()
