"""Direct preference optimisation with TRL's DPOTrainer, started by torchrun (the SDK's `Torchrun` on SageMaker).

Runs inside the training container; by hand, with the folders that SageMaker would provide:

    SM_CHANNEL_TRAIN=data/train SM_CHANNEL_VALIDATION=data/validation SM_CHANNEL_TEST=data/test SM_MODEL_DIR=out/model \\
    SM_OUTPUT_DATA_DIR=out/data SM_CHECKPOINT_DIR=out/checkpoints torchrun --nproc_per_node 2 train.py \\
    --config recipes/tiny.yaml

Channels: `train` and `validation` hold preference pairs (made by pairs_sampled.py or pairs_when2call.py), `test` the
held-out problems. Every `eval_steps` steps the job measures both: what DPO optimises, the margin between the answers of
the validation pairs, and what we want, pass@1 on the problems. They can part ways.

DPO: Rafailov et al. 2023, https://arxiv.org/abs/2305.18290. All weights, LoRA or NF4-QLoRA by recipe (lora_rank,
quantization); on several processes DDP, or FSDP2 where the recipe says `fsdp: full_shard`.
"""

import json
from functools import partial
from typing import Any

from arguments import SCRIPTS, TrainArguments
from compat.fsdp_fused_head import end_begun_groups
from compat.fsdp_on_cpu import enable_fsdp_on_cpu
from job.base_evaluation import base_evaluation
from job.checkpoints import CheckpointMarker, newest_complete, train
from job.container import channel, checkpoint_dir, model_dir, output_data_dir
from job.failure import report_failure
from job.fingerprints import fingerprints
from job.history import MetricLines
from job.models import load_base, load_tokenizer, lora_config, save_model
from job.prompt_lengths import check_prompts
from job.recipe import parse_arguments
from job.sharding import copy_trained
from job.summary import write_summary
from job.tracking import finish_tracking, log_evaluation, start_tracking
from pair_log_probs import pair_log_probs
from peft import get_peft_model
from prepared_pairs import PreparedDPOTrainer, least_pairs, prepared
from rl.evaluation import evaluate, greedy_pass_at_1
from rl.preferences import read_pairs
from rl.tasks import Row, fingerprint, read_rows
from rl.verifiers import Verifier, get_verifier
from transformers import PreTrainedModel, PrinterCallback, set_seed

PAIRS_TO_SHOW = 8  # of the validation pairs; their log-probabilities by token are kept for the notebook


class PassAtOneDPOTrainer(PreparedDPOTrainer):
    """A DPOTrainer whose evaluations, besides the validation pairs, measure greedy pass@1 on held-out problems."""

    def __init__(
        self, *args: Any, job: TrainArguments, problems: list[Row], verifier: Verifier, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.job, self.problems, self.verifier = job, problems, verifier

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        output = super().evaluation_loop(*args, **kwargs)
        measured = greedy_pass_at_1(
            self.whole_policy(),
            self.processing_class,
            self.problems,
            verifier=self.verifier,
            chat_template_kwargs=self.job.chat_template_kwargs,
            max_new_tokens=self.job.eval_max_new_tokens,
            batch_size=self.job.eval_batch_size,
        )
        output.metrics["eval_pass_at_1"] = measured.value
        return output

    def whole_policy(self) -> PreTrainedModel:
        """The policy as one model in each process. Of a sharded one it is a copy: to generate in pieces is slow."""
        policy = self.accelerator.unwrap_model(self.model)
        if not self.is_fsdp_enabled:
            return policy
        whole, _ = load_base(self.job.base_model, self.job.dtype, self.job.quantization)
        if self.job.lora_rank:
            whole = get_peft_model(whole, lora_config(self.job))
        return copy_trained(policy, whole)


def main() -> None:
    enable_fsdp_on_cpu()
    end_begun_groups()
    job, config = parse_arguments(SCRIPTS["train.py"])
    verifier = get_verifier(job.verifier)
    pairs = {name: read_pairs(channel(name)) for name in ("train", "validation")}
    test_rows = read_rows(channel("test"))[: job.eval_problems]
    config.output_dir = str(checkpoint_dir())
    made_of = fingerprints(job, pairs["train"], seed=config.seed)
    checkpoint = newest_complete(checkpoint_dir(), fingerprints=made_of)

    tokenizer = load_tokenizer(job.base_model)
    template = {"chat_template_kwargs": job.chat_template_kwargs}
    datasets = {
        name: prepared(pairs[name], tokenizer, config, name=name, least=least, **template)
        for name, least in (("train", least_pairs(config)), ("validation", 1))
    }
    set_seed(config.seed)  # every process begins with the same adapters
    start_tracking(job, config, data_fingerprint=fingerprint(pairs["train"]))
    policy, _ = load_base(job.base_model, job.dtype, job.quantization)
    check_prompts(test_rows, tokenizer, policy, job)
    decoding = {
        "verifier": verifier,
        **template,
        "samples": job.eval_samples,
        "max_new_tokens": job.eval_max_new_tokens,
        "batch_size": job.eval_batch_size,
        "seed": config.seed,
    }
    before = base_evaluation(partial(evaluate, policy, tokenizer), test_rows, job, made_of, **decoding)
    log_evaluation("before", before)

    trainer = PassAtOneDPOTrainer(
        model=policy,
        args=config,
        train_dataset=datasets["train"],
        eval_dataset=datasets["validation"],
        processing_class=tokenizer,
        peft_config=lora_config(job),
        callbacks=[MetricLines(), CheckpointMarker(made_of)],
        job=job,
        problems=test_rows,
        verifier=verifier,
    )
    trainer.remove_callback(PrinterCallback)  # MetricLines says the same in one line
    reference = pair_log_probs(trainer, PAIRS_TO_SHOW)

    training = train(trainer, checkpoint, before)

    trained = pair_log_probs(trainer, PAIRS_TO_SHOW)
    policy = trainer.whole_policy()
    after = evaluate(policy, tokenizer, test_rows, **decoding) if training.time_for(before) else None
    log_evaluation("after", after)
    write_summary(job, trainer, before, after, training)
    if trainer.accelerator.is_main_process:
        shown = {key: getattr(config, key) for key in ("beta", "loss_type", "loss_weights")}
        shown |= {"reference": reference, "trained": trained}
        (output_data_dir() / "pair_log_probs.json").write_text(json.dumps(shown, indent=1))
        save_model(policy, tokenizer, model_dir(), base_spec=job.base_model)
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
