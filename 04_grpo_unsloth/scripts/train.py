"""GRPO with Unsloth's FastLanguageModel and TRL's GRPOTrainer: a frozen 4-bit base with adapters, on one device.

Runs inside the training container as one process; by hand, with the folders that SageMaker would provide:

    SM_CHANNEL_TRAIN=data/train SM_CHANNEL_TEST=data/test SM_MODEL_DIR=out/model SM_OUTPUT_DATA_DIR=out/data \\
    SM_CHECKPOINT_DIR=out/checkpoints python train.py --config recipes/tiny.yaml

The recipe has TRL's keys, and Unsloth gets them under its own names: quantization: nf4 is load_in_4bit, use_vllm is
fast_inference, gradient_checkpointing is "unsloth", which keeps activations in the host's memory.
QLoRA: Dettmers et al. 2023, https://arxiv.org/abs/2305.14314.
"""

from unsloth_first import FastLanguageModel  # isort: skip

from functools import partial

import torch
from arguments import SCRIPTS, AdapterArguments, TrainArguments
from compat.float32_adapters import keep_adapters_in_float32
from engine_evaluation import evaluate
from job.base_evaluation import base_evaluation
from job.checkpoints import CheckpointMarker, newest_complete, train
from job.container import channel, checkpoint_dir, model_dir
from job.dataset import as_dataset
from job.failure import report_failure
from job.fingerprints import fingerprints
from job.history import MetricLines
from job.model_tensors import check_tensors
from job.models import (
    check_finite,
    load_base,
    load_tokenizer,
    local_source,
    lora_config,
    save_model,
)
from job.prompt_lengths import check_prompts
from job.quantization import check_packed
from job.recipe import parse_arguments
from job.sharding import copy_trained
from job.summary import write_summary
from job.tracking import finish_tracking, log_evaluation, start_tracking
from job.zero_rewards import ZeroRewardWarnings
from peft import PeftModel, get_peft_model
from rl.rewards import get_rewards
from rl.tasks import fingerprint, read_rows
from rl.templates import opening
from rl.verifiers import get_verifier
from transformers import AutoModelForCausalLM, PrinterCallback
from trl import GRPOConfig, GRPOTrainer


def main() -> None:
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

    start_tracking(job, config, data_fingerprint=fingerprint(train_rows))
    policy = load_policy(job, config)
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
        callbacks=[MetricLines(), ZeroRewardWarnings(before), CheckpointMarker(made_of)],
    )
    trainer.remove_callback(PrinterCallback)  # MetricLines says the same in one line
    keep_adapters_in_float32(policy)  # or a resumed job would end with other weights
    training = train(trainer, checkpoint, before)

    policy = trainer.accelerator.unwrap_model(trainer.model)
    after = evaluate(policy, tokenizer, test_rows, **decoding) if training.time_for(before) else None
    log_evaluation("after", after)
    save_model(merge_into_full_precision(policy, job), tokenizer, model_dir(), base_spec=job.base_model)
    write_summary(job, trainer, before, after, training)
    finish_tracking()


def load_policy(job: AdapterArguments, config: GRPOConfig) -> PeftModel:
    """The recipe's base model as Unsloth loads it, with new adapters."""
    checkpointing = "unsloth" if config.gradient_checkpointing else False
    source = local_source(job.base_model)
    check_tensors(AutoModelForCausalLM, job.base_model, source)
    base, _ = FastLanguageModel.from_pretrained(
        source,
        max_seq_length=config.vllm_max_model_length,
        dtype=getattr(torch, job.dtype),
        load_in_4bit=job.quantization == "nf4",
        fast_inference=config.use_vllm,
        gpu_memory_utilization=config.vllm_gpu_memory_utilization,
        max_lora_rank=job.lora_rank,
        use_gradient_checkpointing=checkpointing,
        use_exact_model_name=True,  # not Unsloth's own upload of a known model, which is packed in another way
    )
    check_finite(base, job.base_model)
    return FastLanguageModel.get_peft_model(
        check_packed(base) if job.quantization else base,
        r=job.lora_rank,
        lora_alpha=job.lora_alpha,
        target_modules="all-linear" if job.lora_target_modules == ["all-linear"] else job.lora_target_modules,
        use_gradient_checkpointing=checkpointing,
        random_state=config.seed,
    )


def merge_into_full_precision(policy: PeftModel, job: TrainArguments) -> PeftModel:
    """The trained adapters on the base as it was before it was packed: merging into 4 bits would round them away.

    On the CPU, since a GPU has its memory full of the policy and vLLM.
    """
    base, _ = load_base(job.base_model, job.dtype, device="cpu")
    return copy_trained(policy, get_peft_model(base, lora_config(job)))


if __name__ == "__main__":
    with report_failure():
        main()
