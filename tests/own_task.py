"""A task of a learner's own, as modules' scripts get it: words for answers, columns more, own rewards and own verdict.

The base model answers with digits, so only the own verifier finds it right.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from job_variables import SHARED
from rl.tasks import Row, make_splits, write_splits

ONES = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen".split()
ONES += "sixteen seventeen eighteen nineteen".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
OWN_CODE = f"""
import re
import numpy as np

ONES, TENS = {ONES!r}, {TENS!r}
"""
OWN_CODE += '''

def spelled(number):
    if number < 0:
        return "minus " + spelled(-number)
    if number < 20:
        return ONES[number]
    return TENS[number // 10 - 2] + ("-" + ONES[number % 10] if number % 10 else "")


def same_word(given, gold):
    """9 is nine."""
    return given == gold or (re.fullmatch("-?[0-9]{1,2}", given) is not None and spelled(int(given)) == gold)


def paid(completions, bonus, note, **kwargs):
    """What the column says, if the answer begins as asked; written for TRL, whose completions are conversations."""
    if any(len(keys) != 1 for (keys,) in note):
        raise ValueError(f"objects with keys of other rows: {note}")
    return [float(b) * (c[0]["content"].startswith("<think>")) for c, b in zip(completions, bonus, strict=True)]


def in_numpy(completions, **kwargs):
    return [np.float32(0.5) for _ in completions]


def in_a_tensor(completions, **kwargs):
    import torch

    return torch.full((len(completions),), 0.25)


def without_opinion(prompts, completions, **kwargs):
    """Every other completion only."""
    return [None if place % 2 else 1.0 for place, _ in enumerate(completions)]


async def at_leisure(completions, **kwargs):
    return [0.75] * len(completions)


def never(completions, **kwargs):
    return [0.0] * len(completions)
'''
FEW: dict[str, Any] = {
    "rewards": ["accuracy", "words_in_a_test.paid"],
    "reward_weights": [1.0, 0.5],
    "verifier": "words_in_a_test.same_word",
    "max_steps": 2,
    "per_device_train_batch_size": 32,
    "num_generations": 8,
    "max_completion_length": 96,
    "warmup_steps": 0,
    "save_strategy": "no",
    "eval_problems": 60,
    "eval_samples": 1,
    "eval_max_new_tokens": 96,
    "report_to": "none",
}


def write_own_task(folder: Path) -> tuple[dict[str, Path], dict[str, str]]:
    """The channels, and the environment in which jobs find words_in_a_test.py."""
    (folder / "own").mkdir(parents=True)
    (folder / "own" / "words_in_a_test.py").write_text(OWN_CODE)
    spelled = _functions()["spelled"]
    splits = make_splits("chain_sum", {"train": 64, "test": 60})
    rows: dict[str, list[Row]] = {
        name: [
            {**row, "answer": spelled(int(row["answer"])), "bonus": "1", "note": [{f"of {row['index']}": 1}]}
            for row in split
        ]
        for name, split in splits.items()
    }
    channels = write_splits(rows, folder / "data")
    return channels, {"PYTHONPATH": os.pathsep.join([str(folder / "own"), str(SHARED)])}


def check_own_task(history: list[Mapping[str, Any]], evaluation: Mapping[str, Any]) -> None:
    """That rewards and evaluation used the own verdict, and that the own reward got its columns as they were written."""
    right = [item for item in evaluation["completions"] if item["correct"]]
    assert right, "the own verifier found nothing right"
    same_word = _functions()["same_word"]
    for item in evaluation["completions"]:
        said = item["extracted"] is not None and same_word(item["extracted"], item["answer"])
        assert item["correct"] == said
    assert all(item["extracted"] != item["answer"] for item in right), "digits were to be right"
    assert max(logs["rewards/accuracy/mean"] for logs in history) > 0
    for logs in history:
        paid = logs["rewards/words_in_a_test.paid/mean"]
        assert 0 < paid <= 1
        assert abs(logs["reward"] - logs["rewards/accuracy/mean"] - 0.5 * paid) < 1e-5


def _functions() -> dict[str, Any]:
    namespace: dict[str, Any] = {}
    exec(OWN_CODE, namespace)
    return namespace
