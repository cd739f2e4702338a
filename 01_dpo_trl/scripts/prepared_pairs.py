"""Pairs made ready for DPOTrainer, as tokens; what nothing can be learned from is left out, and that is said."""

import hashlib
import json
from typing import Any

from datasets import Dataset
from job.container import is_main_process, print_line
from pair_tokens import Options, each_pairs_tokens, with_lengths
from rl.answers import END_THINK, THINK
from rl.preferences import SIDES, Pair, check_enough, length_report
from rl.tasks import DataError
from rl.templates import opening
from transformers import PreTrainedTokenizerBase
from trl import DPOConfig, DPOTrainer


class PreparedDPOTrainer(DPOTrainer):
    """A DPOTrainer of data sets that `prepared` made. TRL's own preparation would tokenize with a second BOS.

    It counts tokens on from a checkpoint: TRL's DPOTrainer begins again with 0 (1.16, dpo_trainer.py: _total_train_tokens),
    where its GRPOTrainer has the count in the trainer's state, which is saved.
    """

    def _prepare_dataset(self, dataset: Dataset, *args: Any, **kwargs: Any) -> Dataset:
        return dataset

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        self._total_train_tokens = self.state.num_input_tokens_seen
        loss = super().compute_loss(*args, **kwargs)
        self.state.num_input_tokens_seen = self._total_train_tokens
        return loss


def least_pairs(config: DPOConfig) -> int:
    """The fewest training pairs with which TRL does a step at all: with fewer it ends after 0 steps."""
    return config.per_device_train_batch_size * config.world_size if config.dataloader_drop_last else 1


def prepared(
    pairs: list[Pair],
    tokenizer: PreTrainedTokenizerBase,
    config: DPOConfig,
    *,
    name: str,
    least: int = 1,
    chat_template_kwargs: Options = None,
) -> Dataset:
    """A data set of prompt_ids, chosen_ids, rejected_ids and the question, of all pairs that can be learned from.

    It lies on disk: there all processes of a host find what one precomputed. `name` is the channel's, for what is
    printed: pairs left out or cut because of `max_length`, and pairs whose answers are equal in tokens.

    Raises:
        DataError: fewer than `least` pairs can be learned from, or one cannot be written by the chat template.
    """
    try:
        tokens = list(each_pairs_tokens(pairs, tokenizer, chat_template_kwargs))
        report = length_report(list(map(with_lengths, pairs, tokens)), config.max_length, least=least)
        rows, equal = [], []
        for pair, ids in zip(pairs, tokens, strict=True):
            room = None if config.max_length is None else max(0, config.max_length - len(ids["prompt_ids"]))
            if room == 0:
                continue
            chosen, rejected = (ids[f"{side}_ids"][:room] for side in SIDES)
            if chosen == rejected:
                equal.append(pair)
            else:
                rows.append({"question": pair["question"], **ids})
        if equal:
            texts = " and ".join(repr(equal[0][side][0]["content"][:60]) for side in SIDES)
            report.append(
                f"{len(equal)} of {len(pairs)} pairs are left out: both answers are the same tokens, as far as they are "
                f"trained on, so nothing is preferred. The first: {texts} (question: {equal[0]['question'][:60]!r})."
            )
        check_enough(len(rows), least, report)
        report += _unended_thoughts(pairs, opening(tokenizer, chat_template_kwargs))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    for line in report if is_main_process() else ():
        print_line(f"{name}: {line}")
    digest = hashlib.sha256(json.dumps(rows, sort_keys=True).encode()).hexdigest()
    return Dataset.from_generator(lambda: iter(rows), fingerprint=digest[:32])


def _unended_thoughts(pairs: list[Pair], opened: str) -> list[str]:
    """Chosen answers that do not end the thinking in which the chat template begins them."""
    if THINK not in opened or END_THINK in opened:
        return []
    found = sum(END_THINK not in pair["chosen"][0]["content"] for pair in pairs)
    report = (
        f"{found} of {len(pairs)} chosen answers have no {END_THINK}, but the model's chat template begins every answer with "
        f"{THINK}: they would be learned as thoughts. Write them with it, or set chat_template_kwargs (often "
        "enable_thinking: false)."
    )
    return [report] if found else []
