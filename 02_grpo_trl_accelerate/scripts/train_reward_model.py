"""A reward model learned from preferences, with TRL's RewardTrainer: the alternative to a rule that can be checked.

The pairs are made on the spot. The base model answers training problems several times, the verifier marks every
answer, and a right answer is paired with a wrong one to the same problem. A sequence-classification head on the
same base then learns to score the right one higher (Bradley-Terry loss; Ouyang et al. 2022, equation 1,
https://arxiv.org/abs/2203.02155). Recipe: recipes/reward_model.yaml.
"""

from arguments import SCRIPTS  # isort: skip  # before accelerate: it names the folders of caches (job.caches)

from accelerate import PartialState
from job.checkpoints import CheckpointMarker, newest_complete, train
from job.container import channel, checkpoint_dir, model_dir
from job.dataset import as_table
from job.failure import report_failure
from job.fingerprints import SHOWN, fingerprints, verifier_fingerprint
from job.history import MetricLines
from job.models import load_base
from job.prompt_lengths import check_prompts
from job.recipe import parse_arguments
from job.tracking import finish_tracking, start_tracking
from rl.evaluation import evaluate
from rl.preferences import SIDES, check_contrast, preference_pairs
from rl.tasks import fingerprint, read_rows
from rl.verifiers import get_verifier
from transformers import AutoModelForSequenceClassification, PrinterCallback, set_seed
from trl import RewardTrainer


def main() -> None:
    job, config = parse_arguments(SCRIPTS["train_reward_model.py"])
    rows = read_rows(channel("train"))[: job.eval_problems]
    config.output_dir = str(checkpoint_dir())
    verifier = get_verifier(job.verifier)

    base, tokenizer = load_base(job.base_model, job.dtype)
    check_prompts(rows, tokenizer, base, job)
    sampled = evaluate(
        base,
        tokenizer,
        rows,
        verifier=verifier,
        samples=job.eval_samples,
        max_new_tokens=job.eval_max_new_tokens,
        batch_size=job.eval_batch_size,
        seed=config.seed,
        chat_template_kwargs=job.chat_template_kwargs,
    )
    pairs = preference_pairs(rows, sampled)
    check_contrast(pairs, len(rows), job.eval_samples, keys="eval_samples or eval_problems")
    # Behind the pairs stand eval_samples and much else; the verdict is named besides, to say what differs.
    verdict = verifier_fingerprint(job.verifier)
    made_of = fingerprints(job, rows, seed=config.seed) | {
        "verdict": verdict,
        "pairs": fingerprint(pairs)[:SHOWN],
    }
    checkpoint = newest_complete(checkpoint_dir(), fingerprints=made_of)
    template = {"chat_template_kwargs": job.chat_template_kwargs} if job.chat_template_kwargs else {}
    messages = [{name: pair[name] for name in ("prompt", *SIDES)} | template for pair in pairs]
    pairs = as_table(messages).train_test_split(test_size=0.2, seed=config.seed)
    print(f"{len(pairs['train'])} pairs to learn from, {len(pairs['test'])} held out", flush=True)

    set_seed(config.seed)  # the scoring head is new and starts from random weights
    distributed = PartialState()
    with distributed.local_main_process_first():  # which writes what the others read
        if distributed.is_local_main_process:
            base.save_pretrained(model_dir())
        reward_model = AutoModelForSequenceClassification.from_pretrained(model_dir(), num_labels=1)
    start_tracking(job, config, data_fingerprint=fingerprint(rows))
    trainer = RewardTrainer(
        model=reward_model,
        args=config,
        train_dataset=pairs["train"],
        eval_dataset=pairs["test"],
        processing_class=tokenizer,
        callbacks=[MetricLines(), CheckpointMarker(made_of)],
    )
    trainer.remove_callback(PrinterCallback)  # MetricLines says the same in one line
    train(trainer, checkpoint)
    held_out = trainer.evaluate()
    print(f"held-out pairs ranked the right way round: {held_out['eval_accuracy']:.3f}", flush=True)
    if trainer.accelerator.is_main_process:
        trainer.accelerator.unwrap_model(trainer.model).save_pretrained(model_dir())
        tokenizer.save_pretrained(model_dir())
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
