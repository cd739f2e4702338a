"""GRPO with TRL's GRPOTrainer under FSDP2: parameters, gradients and optimizer state spread over all processes.

Runs inside the training container, started by the SDK's Torchrun on every host; by hand, with the folders that
SageMaker would provide:

    SM_CHANNEL_TRAIN=data/train SM_CHANNEL_TEST=data/test SM_MODEL_DIR=out/model SM_OUTPUT_DATA_DIR=out/data \\
    SM_CHECKPOINT_DIR=out/checkpoints torchrun --nproc_per_node 2 train.py --config recipes/tiny.yaml

The recipe decides between all weights, LoRA (lora_rank) and QLoRA (quantization: nf4). A job that is started again
goes on from its newest complete checkpoint, and ends with the weights that it would have had without the break.
"""

from functools import partial

from arguments import SCRIPTS
from compat.fsdp_fused_head import end_begun_groups
from compat.fsdp_on_cpu import enable_fsdp_on_cpu
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
from job.sharding import ShardReport, copy_trained
from job.summary import write_summary
from job.tracking import finish_tracking, log_evaluation, start_tracking
from job.zero_rewards import ZeroRewardWarnings
from peft import get_peft_model
from rl.evaluation import evaluate
from rl.rewards import get_rewards
from rl.tasks import fingerprint, read_rows
from rl.templates import opening
from rl.verifiers import get_verifier
from transformers import PrinterCallback, set_seed
from trl import GRPOTrainer


def main() -> None:
    enable_fsdp_on_cpu()
    end_begun_groups()
    job, config = parse_arguments(SCRIPTS["train.py"])
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

    set_seed(config.seed)  # every process begins with the same adapters
    start_tracking(job, config, data_fingerprint=fingerprint(train_rows))
    policy, _ = load_base(job.base_model, job.dtype, job.quantization)
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

    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=rewards,
        args=config,
        train_dataset=as_dataset(train_rows),
        processing_class=tokenizer,
        peft_config=lora_config(job),
        callbacks=[MetricLines(), ZeroRewardWarnings(before), CheckpointMarker(made_of), ShardReport()],
    )
    trainer.remove_callback(PrinterCallback)  # MetricLines says the same in one line
    training = train(trainer, checkpoint, before)

    # Evaluated and saved is a model that is whole again, so that generation needs no talk between the processes, and
    # whose base is not quantized, so that adapters can be merged into it: what is measured is what is saved.
    trained, _ = load_base(job.base_model, job.dtype)
    if job.lora_rank:
        trained = get_peft_model(trained, lora_config(job))
    copy_trained(trainer.accelerator.unwrap_model(trainer.model), trained)
    after = evaluate(trained, tokenizer, test_rows, **decoding) if training.time_for(before) else None
    log_evaluation("after", after)
    if trainer.accelerator.is_main_process:
        save_model(trained, tokenizer, model_dir(), base_spec=job.base_model)
    write_summary(job, trainer, before, after, training)
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
