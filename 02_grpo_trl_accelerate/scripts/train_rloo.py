"""RLOO with TRL's RLOOTrainer: train.py with another advantage, for a comparison with GRPO on the same recipe.

Of G completions to a prompt, each is compared with the mean reward of the other G - 1, and nothing is divided by a
standard deviation. A completion counts as one action, whose probability ratio is that of all its tokens together, where
train.py has a ratio for each token. REINFORCE leave-one-out: Ahmadian et al. 2024, https://arxiv.org/abs/2402.14740.

    python train_rloo.py --config recipes/tiny.yaml
"""

from functools import partial

from arguments import SCRIPTS
from job.base_evaluation import base_evaluation
from job.checkpoints import CheckpointMarker, newest_complete, train
from job.container import channel, checkpoint_dir, model_dir
from job.dataset import as_dataset
from job.failure import report_failure
from job.fingerprints import fingerprints
from job.history import MetricLines
from job.models import load_base, load_tokenizer, lora_config, save_model
from job.prompt_lengths import check_prompts
from job.recipe import parse_arguments
from job.summary import write_summary
from job.tracking import finish_tracking, log_evaluation, start_tracking
from job.zero_rewards import ZeroRewardWarnings
from rl.evaluation import evaluate
from rl.rewards import get_rewards
from rl.tasks import fingerprint, read_rows
from rl.templates import opening
from rl.verifiers import get_verifier
from transformers import PrinterCallback
from trl import RLOOTrainer


def main() -> None:
    job, config = parse_arguments(SCRIPTS["train_rloo.py"])
    train_rows, test_rows = read_rows(channel("train")), read_rows(channel("test"))[: job.eval_problems]
    config.output_dir = str(checkpoint_dir())

    tokenizer, verifier = load_tokenizer(job.base_model), get_verifier(job.verifier)
    bound = {
        "verifier": verifier,
        "opening": opening(tokenizer, config.chat_template_kwargs),
        "max_completion_length": config.max_completion_length,
        "seed": config.seed,
    }
    rewards = get_rewards(job.rewards, **bound)
    made_of = fingerprints(job, train_rows, seed=config.seed, reward_weights=config.reward_weights)
    checkpoint = newest_complete(checkpoint_dir(), fingerprints=made_of)

    start_tracking(job, config, data_fingerprint=fingerprint(train_rows))
    policy, _ = load_base(job.base_model, job.dtype)
    check_prompts([*train_rows, *test_rows], tokenizer, policy, config)
    decoding = {
        "verifier": verifier,
        "samples": job.eval_samples,
        "max_new_tokens": job.eval_max_new_tokens,
        "batch_size": job.eval_batch_size,
        "seed": config.seed,
        "chat_template_kwargs": config.chat_template_kwargs,
    }
    before = base_evaluation(partial(evaluate, policy, tokenizer), test_rows, job, made_of, **decoding)
    log_evaluation("before", before)

    trainer = RLOOTrainer(
        model=policy,
        reward_funcs=rewards,
        args=config,
        train_dataset=as_dataset(train_rows),
        processing_class=tokenizer,
        peft_config=lora_config(job),
        callbacks=[MetricLines(), CheckpointMarker(made_of), ZeroRewardWarnings(before)],
    )
    trainer.remove_callback(PrinterCallback)  # MetricLines says the same in one line
    training = train(trainer, checkpoint, before)

    policy = trainer.accelerator.unwrap_model(trainer.model)
    after = evaluate(policy, tokenizer, test_rows, **decoding) if training.time_for(before) else None
    log_evaluation("after", after)
    if trainer.accelerator.is_main_process:
        save_model(policy, tokenizer, model_dir(), base_spec=job.base_model)
    write_summary(job, trainer, before, after, training)
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
