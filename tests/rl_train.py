"""A small real GRPO job on the random tiny model, as the tests of checkpoints, tracking and summary start it.

python rl_train.py --max_steps 4 [any GRPOConfig or JobArguments setting]
"""

import sys
import time

from datasets import Dataset
from rl.checkpoints import CheckpointMarker, newest_complete
from rl.container import checkpoint_dir, model_dir
from rl.evaluation import evaluate
from rl.failure import report_failure
from rl.models import save_model
from rl.recipe import JobArguments, parse_arguments
from rl.rewards import get_rewards
from rl.summary import write_summary
from rl.tasks import fingerprint, make_splits
from rl.tracking import MetricLines, finish_tracking, log_evaluation, start_tracking
from tiny import tiny_model
from transformers import set_seed
from trl import GRPOConfig, GRPOTrainer

CONFIG = {
    "use_cpu": True,
    "bf16": False,
    "per_device_train_batch_size": 4,
    "num_generations": 4,
    "max_completion_length": 16,
    "learning_rate": 1e-3,
    "logging_steps": 1,
    "save_steps": 2,
    "report_to": "none",
    "eval_samples": 1,
    "eval_max_new_tokens": 8,
    "disable_tqdm": True,
}


def vowels(completions, **kwargs):
    """A reward that a random model earns some of, so that weights change."""
    texts = [messages[0]["content"] for messages in completions]
    return [float(sum(letter in "aeiou" for letter in text)) for text in texts]


def main() -> None:

    defaults = [f"--{key}={value}" for key, value in CONFIG.items()]
    job, config = parse_arguments((JobArguments, GRPOConfig), [*defaults, *sys.argv[1:]])
    config.output_dir = str(checkpoint_dir())
    splits = make_splits("chain_sum", {"train": 16, "test": 4})
    model, tokenizer = tiny_model()
    set_seed(config.seed)
    start_tracking(job, config, data_fingerprint=fingerprint(splits["train"]))
    decoding = {"samples": 1, "max_new_tokens": 8, "batch_size": 4, "seed": 1}
    before = evaluate(model, tokenizer, splits["test"], **decoding)
    log_evaluation("before", before)
    trainer = GRPOTrainer(
        model=model,
        reward_funcs=[vowels, *get_rewards(job.rewards, max_completion_length=config.max_completion_length)],
        args=config,
        train_dataset=Dataset.from_list(splits["train"]),
        processing_class=tokenizer,
        callbacks=[MetricLines(), CheckpointMarker()],
    )
    checkpoint = newest_complete(checkpoint_dir())
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    seconds = time.perf_counter() - started
    model = trainer.accelerator.unwrap_model(trainer.model)
    after = evaluate(model, tokenizer, splits["test"], **decoding)
    log_evaluation("after", after)
    if trainer.accelerator.is_main_process:
        save_model(model, tokenizer, model_dir(), base_spec="test:random")
    write_summary(job, trainer, before, after, train_seconds=seconds)
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
