"""Pretrain the workshop's base model: half a million parameters that can add, but mostly do not bother to think.

    python scripts/build_tiny_model.py --output scripts/assets/tiny      # one thread, under 20 minutes

The model is a Qwen2 decoder with a byte-level BPE tokenizer and a ChatML template, trained on generated
text in which three styles of answer are mixed: step by step and right, at once and usually wrong, and a plain
sentence without tags. A sample from it therefore shows all three, and reinforcement learning has something to
find: the style that earns the reward. The same seed on the same machine gives the same file.
"""

import random
import re
import time
from collections.abc import Iterator

import torch
from model_building import read_arguments, reproducibly, save_with_card
from rl.evaluation import evaluate
from rl.tasks import make_splits
from rl.verifiers import number
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SEED = 7
STEPS = 3000
BATCH = 64
LEARNING_RATE = 3e-3
STYLES = {"thinks": 0.36, "direct": 0.46, "sentence": 0.18}
DIRECT_OFFSETS = (-1, 0, 1)
Example = tuple[list[int], list[int]]
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def held_back_questions() -> set[str]:
    """Questions that the notebooks train and evaluate on; pretraining never shows them."""
    splits = make_splits("chain_sum", {"train": 20_000})
    return {row["question"] for row in splits["train"]}


def questions(seed: int, held_back: set[str]) -> Iterator[tuple[str, str]]:
    """Endless (question, expression) pairs with the wording of reasoning-gym's chain_sum."""
    rng = random.Random(seed)
    while True:
        terms = [str(rng.randint(0, 9)) for _ in range(rng.randint(4, 6))]
        expression = terms[0] + "".join(f" {rng.choice('+-')} {term}" for term in terms[1:])
        question = f"State the final answer to the following arithmetic problem: {expression} ="
        if question not in held_back:
            yield question, expression


def running_sums(expression: str) -> tuple[list[str], list[int]]:
    """'2 + 6 - 1' -> (['2 + 6 = 8', '8 - 1 = 7'], [2, 8, 7])."""
    first, *rest = expression.split()
    totals, lines = [int(first)], []
    for operator, term in zip(rest[::2], rest[1::2], strict=True):
        totals.append(totals[-1] + int(operator + term))
        lines.append(f"{totals[-2]} {operator} {term} = {totals[-1]}")
    return lines, totals


def completion(expression: str, rng: random.Random) -> str:
    """One answer in a style drawn from STYLES."""
    lines, totals = running_sums(expression)
    style = rng.choices(list(STYLES), weights=list(STYLES.values()))[0]
    if style == "thinks":
        return "<think>" + "\n".join(lines) + f"</think><answer>{totals[-1]}</answer>"
    # A careless answer overlooks the last term. Noise alone would not do: the model averages it away, adds in its
    # head after all, and leaves nothing for reinforcement learning to find.
    guess = totals[-2] + rng.choice(DIRECT_OFFSETS)
    return f"<think></think><answer>{guess}</answer>" if style == "direct" else f"The answer is {guess}."


def train_tokenizer(corpus: list[str], vocab_size: int = 400) -> PreTrainedTokenizerFast:
    """Byte-level BPE (no unknown character is possible) in which every digit stays a token of its own."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(corpus, trainer)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        model_max_length=1024,
        model_input_names=["input_ids", "attention_mask"],
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def batches(tokenizer: PreTrainedTokenizerFast, held_back: set[str]) -> Iterator[list[Example]]:
    """Endless batches of (prompt ids, completion ids)."""
    rng = random.Random(SEED)
    source = questions(SEED, held_back)
    while True:
        batch = []
        for question, expression in (next(source) for _ in range(BATCH)):
            messages = [{"role": "user", "content": question}]
            prompt = tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            answer = tokenizer(completion(expression, rng) + tokenizer.eos_token)["input_ids"]
            batch.append((prompt, answer))
        yield batch


def padded(examples: list[Example], pad_token_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """input_ids and labels, both (examples, longest) int64; labels are -100 outside the completion."""
    longest = max(len(prompt) + len(answer) for prompt, answer in examples)
    ids = torch.full((len(examples), longest), pad_token_id)
    labels = torch.full((len(examples), longest), -100)
    for row, (prompt, answer) in enumerate(examples):
        ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
        labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
    return ids, labels


def new_model(tokenizer: PreTrainedTokenizerFast) -> Qwen2ForCausalLM:
    """Random weights from SEED."""
    torch.manual_seed(SEED)
    return Qwen2ForCausalLM(
        Qwen2Config(
            vocab_size=len(tokenizer),
            hidden_size=96,
            intermediate_size=288,
            num_hidden_layers=4,
            num_attention_heads=4,
            num_key_value_heads=2,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def pretrain(
    model: PreTrainedModel, source: Iterator[list[Example]], steps: int, learning_rate: float = LEARNING_RATE
) -> None:
    """AdamW with a one-cycle learning rate on batches of `source`; the loss covers the completions only."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, weight_decay=0.01, betas=(0.9, 0.95))
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, steps, pct_start=0.1)
    started = time.perf_counter()
    for step, batch in zip(range(1, steps + 1), source, strict=False):
        # Short and long examples go through apart, which saves a quarter of the padding; their summed gradient is
        # that of the whole batch. (Batches of one length only would give each style a batch of its own.)
        batch.sort(key=lambda example: len(example[0]) + len(example[1]))
        tokens = sum(len(answer) for _, answer in batch)
        optimizer.zero_grad()
        loss = 0.0
        for half in (batch[: len(batch) // 2], batch[len(batch) // 2 :]):
            ids, labels = padded(half, model.config.pad_token_id)
            part = model(input_ids=ids, labels=labels, num_items_in_batch=tokens).loss
            part.backward()
            loss += part.item()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0:
            print(
                f"step={step}/{steps} loss={loss:.4f} seconds={time.perf_counter() - started:.0f}", flush=True
            )


def measure(
    model: Qwen2ForCausalLM, tokenizer: PreTrainedTokenizerFast, problems: int = 300
) -> dict[str, float]:
    """pass@1 on held-out problems, and the accuracy of each style when sampled at temperature 1."""
    rows = make_splits("chain_sum", {"train": 2000, "test": problems})["test"]
    result = evaluate(
        model, tokenizer, rows, verifier=number, samples=4, max_new_tokens=96, batch_size=300, seed=SEED
    )
    sampled = [item for item in result.completions if item["decoding"] == "sampled"]
    thinks = [item["correct"] for item in sampled if re.match(r"<think>\d", item["completion"])]
    direct = [item["correct"] for item in sampled if item["completion"].startswith("<think></think>")]
    return {
        "problems": problems,
        "greedy_pass_at_1": result.greedy.value,
        "sampled_pass_at_1": result.sampled.value,
        "share_that_thinks": len(thinks) / len(sampled),
        "right_when_it_thinks": sum(thinks) / len(thinks),
        "right_when_direct": sum(direct) / len(direct),
    }


CARD = """---
license: apache-2.0
library_name: transformers
pipeline_tag: text-generation
---
# Tiny arithmetic model

A Qwen2-architecture language model of {parameters:,} parameters, made by `scripts/build_tiny_model.py` from
generated text alone (no external data). It exists so that reinforcement learning can be seen to work on two CPU
cores in a minute: it is of no use for anything else.

| | |
|---|---|
| task | sums and differences of 4 to 6 one-digit numbers, worded as reasoning-gym's `chain_sum` |
| answers | `<think>` running sums `</think><answer>` result `</answer>` |
| styles in its training text | {styles} |
| recipe | {steps} steps of {batch} examples, AdamW, one-cycle learning rate {learning_rate}, float32 |
| seed | {seed} |
| questions kept out | the first 20,000 of the workshop's own seed, from which its notebooks train and evaluate |
| time | {seconds:.0f} s on one CPU thread (torch {torch}, transformers {transformers}) |

Measured on {problems} held-out problems (sampled: 4 completions a problem, temperature 1):

| | |
|---|---|
| pass@1, sampled | {sampled_pass_at_1:.3f} |
| pass@1, greedy | {greedy_pass_at_1:.3f} |
| samples that think step by step | {share_that_thinks:.3f} |
| right when it thinks | {right_when_it_thinks:.3f} |
| right when it answers directly | {right_when_direct:.3f} |

The gap between the last two rows is what the workshop's trainers find.
"""


def main() -> None:
    arguments = read_arguments(__doc__, STEPS)
    reproducibly()
    held_back = held_back_questions()
    rng, source = random.Random(SEED), questions(SEED, held_back)
    corpus = [
        f"user\n{question}\nassistant\n{completion(expression, rng)}\nsystem"
        for question, expression in (next(source) for _ in range(3000))
    ]
    tokenizer = train_tokenizer(corpus)
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
