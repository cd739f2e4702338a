"""Pretrain a third tiny model: one that knows how to scan items at a till, but is hasty.

    python scripts/build_till_model.py --output scripts/assets/tiny-till      # one thread, about 25 minutes

It begins as the model with a calculator (build_tool_model.py: weights, tokenizer and chat template), which knows what a
call is and how to copy three digits, and learns on whole conversations at tills (rl.environments): what it says, and what
the till shows too, where what is left is copied as well. Two habits are mixed in for reinforcement learning to weed out: to
guess at once, and to answer with the total so far although something is left. Copying is learned first, for which long
conversations are better; then it becomes hastier.
"""

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from build_tiny_model import Example, pretrain
from job.models import load_base
from model_building import read_arguments, reproducibly, save_with_card
from rl.environments import DEAREST, MOST_ITEMS, Till, till_problem
from rl.rewards import is_right
from rl.tasks import make_splits
from rl.verifiers import number
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import get_json_schema

# How a conversation with tools goes belongs to the module whose recipe trains this model.
sys.path.append(str(Path(__file__).resolve().parents[1] / "05_grpo_verl" / "scripts"))
from tool_use import Conversation, Tool, Turns, generate_with_tools  # noqa: E402
from tools import find_call  # noqa: E402

START = "asset:tiny-tools"
SEED = 13
BATCH = 48
GUESSES = 0.15  # share of conversations that begin with an answer
# Steps, learning rate, and after each scan that leaves something the share that answers with the total so far
PHASES = ((1500, 2e-3, 0.4), (200, 5e-4, 0.6))
TILLS = range(100, 1000, 2)  # even numbers; those of the task, on which it is trained and evaluated, are odd
SCAN = get_json_schema(Till().scan)


def conversation(rng: random.Random, hasty: float) -> list[dict[str, Any]]:
    """A visit to a till: scanned are the items in their order, until nothing is left or patience ends (with share `hasty`)."""
    question, answer = till_problem(rng, TILLS)
    messages: list[dict[str, Any]] = [{"role": "user", "content": question}]
    if rng.random() < GUESSES:
        return [*messages, _answer(int(answer) + rng.randint(-DEAREST, DEAREST))]
    till = Till()
    till.reset(question)
    left = question.partition("do ")[2].partition(" cost")[0]
    while True:
        item = left.split(", ")[0]
        shown = till.scan(item)
        total, _, left = shown.partition(", left ")
        messages += [_call(item), {"role": "tool", "content": shown}]
        if left == "nothing" or rng.random() < hasty:
            return [*messages, _answer(int(total))]


def _call(item: str) -> dict[str, Any]:
    call = {"type": "function", "function": {"name": "scan", "arguments": {"item": item}}}
    return {"role": "assistant", "content": "", "tool_calls": [call]}


def _answer(value: int) -> dict[str, Any]:
    return {"role": "assistant", "content": f"<answer>{value}</answer>"}


def example(tokenizer: PreTrainedTokenizerFast, messages: list[dict[str, Any]]) -> Example:
    """(ids of the question, ids of all that follows: what the till shows is learned as well)."""
    before = tokenizer.apply_chat_template(
        messages[:1], tools=[SCAN], add_generation_prompt=True, tokenize=False
    )
    whole = tokenizer.apply_chat_template(messages, tools=[SCAN], tokenize=False)
    after = whole.removeprefix(before).removesuffix("\n")
    return tokenizer(before)["input_ids"], tokenizer(after)["input_ids"]


def batches(tokenizer: PreTrainedTokenizerFast, hasty: float) -> Iterator[list[Example]]:
    """Endless batches of BATCH conversations."""
    rng = random.Random(SEED)
    while True:
        yield [example(tokenizer, conversation(rng, hasty)) for _ in range(BATCH)]


def measure(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast, problems: int = 300
) -> dict[str, float]:
    """What samples at temperature 1 do on problems of the task. All but `problems` are shares, from 0 to 1."""
    rows = make_splits("till", {"test": problems})["test"]
    scans: list[tuple[str, str]] = []  # (item, what the till showed)
    tills: dict[int, Till] = {}  # by conversation

    async def scan(visit: Conversation, item: str) -> str:
        if id(visit) not in tills:
            tills[id(visit)] = Till()
            tills[id(visit)].reset(visit.question)
        shown = tills[id(visit)].scan(item)
        scans.append((item, shown))
        return shown

    turns = Turns([Tool(SCAN, scan, remembers=True)], most=MOST_ITEMS + 1, result_length=64)
    visits = generate_with_tools(
        model,
        tokenizer,
        [row["prompt"] for row in rows],
        turns=turns,
        max_new_tokens=48,
        temperature=1.0,
        seed=SEED,
    )
    scanned = [visit.text for visit in visits if find_call(visit.text)]
    hasty = sum("left nothing" not in text and "<answer>" in text for text in scanned)
    right = [is_right(visit.text, row["answer"], number) for visit, row in zip(visits, rows, strict=True)]
    return {
        "problems": problems,
        "share_that_scans": len(scanned) / problems,
        "scans_of_what_is_left": sum("Error" not in shown for _, shown in scans) / len(scans),
        "answers_although_something_is_left": hasty / len(scanned),
        "right": sum(right) / problems,
    }


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Tiny model at a till

A Qwen2-architecture language model of {parameters:,} parameters, made by `scripts/build_till_model.py` from generated text
alone (no external data). It exists so that reinforcement learning in an environment with a state can be seen on two CPU
cores: it is of no use for anything else.

| | |
|---|---|
| task | what two to four items cost at a till (`till`); only the till knows their prices |
| tool | `scan(item)`: `<tool_call>{{"name": "scan", "arguments": {{"item": "..."}}}}</tool_call>`, result in the role `tool`: the total so far, and which items are left |
| begun as | [tiny-tools](../tiny-tools/README.md): weights, tokenizer and chat template |
| its training text | {guesses:.0%} of the conversations begin with a guess; after each scan that leaves something a part answers with the total so far; the others scan until nothing is left |
| recipe | {phases} (whole conversations, {batch} a step; AdamW, one-cycle learning rate, float32) |
| seed | {seed} |
| kept out | tills with an odd number, from which the workshop's notebook trains and evaluates |
| time | {seconds:.0f} s on one CPU thread (torch {torch}, transformers {transformers}) |

Measured on {problems} problems (one conversation each, temperature 1):

| | |
|---|---|
| samples that scan | {share_that_scans:.3f} |
| scans of an item that is left | {scans_of_what_is_left:.3f} |
| answers behind a scan although something is left | {answers_although_something_is_left:.3f} |
| right | {right:.3f} |
"""


def main() -> None:
    arguments = read_arguments(__doc__)
    reproducibly()
    torch.manual_seed(SEED)
    model, tokenizer = load_base(START)
    started = time.perf_counter()
    for steps, learning_rate, hasty in PHASES:
        pretrain(model, batches(tokenizer, hasty), steps, learning_rate)
    seconds = time.perf_counter() - started
    save_with_card(
        arguments.output,
        model,
        tokenizer,
        CARD,
        guesses=GUESSES,
        phases=", then ".join(
            f"{steps} steps at {learning_rate:g} in which {hasty:.0%} are hasty"
            for steps, learning_rate, hasty in PHASES
        ),
        batch=BATCH,
        seed=SEED,
        seconds=seconds,
        **measure(model, tokenizer),
    )


if __name__ == "__main__":
    main()
