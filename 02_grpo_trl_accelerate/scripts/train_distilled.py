"""On-policy distillation with TRL's DistillationTrainer: the student writes, and at each token a teacher says what it would.

The student is base_model, the teacher the model that an earlier job saved, in the channel `teacher`. Both score every token of the
student's own completions, and the loss is the mean divergence of the two distributions over the vocabulary: with beta 1.0
the reverse KL, KL(student || teacher). So each token is taught, where a reward says one number of a whole completion; but
the student learns the teacher's ways, mistakes included, and no answer is looked at. GKD: Agarwal et al. 2023,
https://arxiv.org/abs/2306.13649, with all completions from the student (lambda 1).

    python train_distilled.py --config recipes/distilled.yaml
"""

from functools import partial

from arguments import SCRIPTS
from job.base_evaluation import base_evaluation
from job.checkpoints import CheckpointMarker, newest_complete, train
from job.container import channel, checkpoint_dir, model_dir
from job.dataset import as_dataset
from job.failure import report_failure
from job.fingerprints import fingerprints, model_fingerprint
from job.history import MetricLines
from job.models import ModelUnusable, load_base, lora_config, save_model
from job.prompt_lengths import check_prompts
from job.recipe import parse_arguments
from job.summary import write_summary
from job.tracking import finish_tracking, log_evaluation, start_tracking
from rl.evaluation import evaluate
from rl.tasks import fingerprint, read_rows
from rl.verifiers import get_verifier
from transformers import PrinterCallback
from trl import DistillationTrainer


def main() -> None:
    job, config = parse_arguments(SCRIPTS["train_distilled.py"])
    train_rows, test_rows = read_rows(channel("train")), read_rows(channel("test"))[: job.eval_problems]
    config.output_dir = str(checkpoint_dir())

    made_of = fingerprints(job, train_rows, seed=config.seed) | {"teacher": model_fingerprint(job.teacher)}
    checkpoint = newest_complete(checkpoint_dir(), fingerprints=made_of)

    start_tracking(job, config, data_fingerprint=fingerprint(train_rows))
    student, tokenizer = load_base(job.base_model, job.dtype)
    teacher, teachers_tokenizer = load_base(job.teacher, job.dtype)
    if tokenizer.get_vocab() != teachers_tokenizer.get_vocab():  # TRL compares their sizes only
        raise ModelUnusable(
            f"{job.teacher} cannot teach {job.base_model}: their tokenizers differ, so that a token of one means something "
            "else to the other. Take a teacher that was trained from the same base, or is of the same family."
        )
    check_prompts([*train_rows, *test_rows], tokenizer, student, config)
    decoding = {
        "verifier": get_verifier(job.verifier),
        "samples": job.eval_samples,
        "max_new_tokens": job.eval_max_new_tokens,
        "batch_size": job.eval_batch_size,
        "seed": config.seed,
        "chat_template_kwargs": config.chat_template_kwargs,
    }
    before = base_evaluation(partial(evaluate, student, tokenizer), test_rows, job, made_of, **decoding)
    log_evaluation("before", before)

    trainer = DistillationTrainer(
        model=student,
        teacher_model=teacher,
        args=config,
        train_dataset=as_dataset(train_rows),
        processing_class=tokenizer,
        peft_config=lora_config(job),
        callbacks=[MetricLines(), CheckpointMarker(made_of)],
    )
    trainer.remove_callback(PrinterCallback)  # MetricLines says the same in one line
    training = train(trainer, checkpoint, before)

    student = trainer.accelerator.unwrap_model(trainer.model)
    after = evaluate(student, tokenizer, test_rows, **decoding) if training.time_for(before) else None
    log_evaluation("after", after)
    if trainer.accelerator.is_main_process:
        save_model(student, tokenizer, model_dir(), base_spec=job.base_model)
    write_summary(job, trainer, before, after, training)
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
