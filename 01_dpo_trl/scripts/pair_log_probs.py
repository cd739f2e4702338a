"""What DPO looks at, for a few pairs and token by token: the log-probabilities of the chosen and rejected answers."""

from typing import Any

import torch
from trl import DPOTrainer


def pair_log_probs(trainer: DPOTrainer, count: int) -> list[dict[str, Any]]:
    """Log-probabilities of the first `count` validation pairs under the model as it is now.

    Every process must call this. Called before training, it gives those of the reference.

    Returns:
        For each pair "chosen" and "rejected", each with "tokens" (texts) and "log_probs" (one a token, natural
        logarithm), the reference's sums as the trainer precomputed them ("reference_chosen", "reference_rejected"),
        and "loss", the trainer's own loss for this pair alone.
    """
    model, tokenizer = trainer.model, trainer.processing_class
    training = model.training
    model.eval()
    pairs = []
    for example in trainer.eval_dataset.select(range(min(count, len(trainer.eval_dataset)))):
        batch = trainer._prepare_inputs(trainer.data_collator([example]))
        with torch.no_grad():
            loss = trainer.compute_loss(model, batch)
            logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits
        # The logits at a position predict the token that follows it.
        log_probs = logits[:, :-1].float().log_softmax(-1)  # (2, tokens - 1, vocabulary)
        chosen_of = log_probs.gather(-1, batch["input_ids"][:, 1:, None]).squeeze(-1)
        pair: dict[str, Any] = {"loss": loss.item(), "question": example["question"]}
        # The collator stacks all chosen, then all rejected.
        for row, side in enumerate(("chosen", "rejected")):
            answer = batch["completion_mask"][row, 1:].bool()
            pair[side] = {
                "tokens": [tokenizer.decode(token) for token in batch["input_ids"][row, 1:][answer].tolist()],
                "log_probs": chosen_of[row][answer].tolist(),
            }
            pair[f"reference_{side}"] = float(example[f"ref_{side}_logps"])
        pairs.append(pair)
    # compute_loss collects for the trainer's next evaluation, which this is not.
    trainer._metrics["eval"].clear()
    model.train(training)
    return pairs
