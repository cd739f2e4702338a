"""GRPO with TRL's GRPOTrainer under FSDP2: parameters, gradients and optimizer state spread over all processes.

Runs inside the training container, started by the SDK's Torchrun on every host; by hand, with the folders that
SageMaker would provide:

    SM_CHANNEL_TRAIN=data/train SM_CHANNEL_TEST=data/test SM_MODEL_DIR=out/model SM_OUTPUT_DATA_DIR=out/data \\
    SM_CHECKPOINT_DIR=out/checkpoints torchrun --nproc_per_node 2 train.py --config recipes/tiny.yaml

The recipe decides between all weights, LoRA (lora_rank) and QLoRA (quantization: nf4). A job that is started again
goes on from its newest complete checkpoint, and ends with the weights that it would have had without the break.
"""

import time

from arguments import SCRIPTS
from compat.fsdp_on_cpu import enable_fsdp_on_cpu
from datasets import Dataset
from job.checkpoints import CheckpointMarker, newest_complete
from job.container import channel, checkpoint_dir, model_dir
from job.failure import report_failure
from job.history import MetricLines
from job.models import load_base, lora_config, save_model
from job.recipe import parse_arguments
from job.sharding import ShardReport, copy_trained
from job.summary import write_summary
from job.tracking import finish_tracking, log_evaluation, start_tracking
from peft import get_peft_model
from rl.evaluation import evaluate
from rl.rewards import get_rewards
from rl.tasks import fingerprint, read_rows
from transformers import PrinterCallback, set_seed
from trl import GRPOTrainer


def main() -> None:
    enable_fsdp_on_cpu()
    job, config = parse_arguments(SCRIPTS["train.py"])
    train_rows, test_rows = read_rows(channel("train")), read_rows(channel("test"))[: job.eval_problems]
    config.output_dir = str(checkpoint_dir())
    set_seed(config.seed)  # every process begins with the same adapters

    policy, tokenizer = load_base(job.base_model, job.dtype, job.quantization)
    start_tracking(job, config, data_fingerprint=fingerprint(train_rows))
    decoding = {
        "samples": job.eval_samples,
        "max_new_tokens": job.eval_max_new_tokens,
        "batch_size": job.eval_batch_size,
        "seed": config.seed,
    }
    before = evaluate(policy, tokenizer, test_rows, **decoding)
    log_evaluation("before", before)

    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=get_rewards(job.rewards, max_completion_length=config.max_completion_length),
        args=config,
        train_dataset=Dataset.from_list(train_rows),
        processing_class=tokenizer,
        peft_config=lora_config(job),
        callbacks=[MetricLines(), CheckpointMarker(), ShardReport()],
    )
    trainer.remove_callback(PrinterCallback)  # MetricLines says the same in one line
    checkpoint = newest_complete(checkpoint_dir())
    started = time.perf_counter()
    trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    train_seconds = time.perf_counter() - started

    # Evaluated and saved is a model that is whole again, so that generation needs no talk between the processes, and
    # whose base is not quantized, so that adapters can be merged into it: what is measured is what is saved.
    trained, _ = load_base(job.base_model, job.dtype)
    if job.lora_rank:
        trained = get_peft_model(trained, lora_config(job))
    copy_trained(trainer.accelerator.unwrap_model(trainer.model), trained)
    after = evaluate(trained, tokenizer, test_rows, **decoding)
    log_evaluation("after", after)
    if trainer.accelerator.is_main_process:
        save_model(trained, tokenizer, model_dir(), base_spec=job.base_model)
    write_summary(job, trainer, before, after, train_seconds=train_seconds)
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
