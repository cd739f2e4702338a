"""Measures a model as the training scripts do, and trains nothing: the base, or what an earlier job saved.

With `prefill` each completion begins with a text that the model did not choose. `<think>` makes a model think before it
answers, each time, so that pass@1 is what its thinking is worth: the control for a training after which it thinks more often,
which may be all that was learned. Kojima et al. 2022 (https://arxiv.org/abs/2205.11916) found such words alone to raise it.

    python evaluate_policy.py --config recipes/tiny.yaml --prefill '<think>'
    python evaluate_policy.py --config recipes/tiny.yaml --base_model channel:model
"""

from arguments import SCRIPTS  # isort: skip  # before accelerate: it names the folders of caches (job.caches)

from functools import partial

from accelerate.utils import gather_object
from job.base_evaluation import base_evaluation
from job.container import channel, is_main_process, process_count
from job.failure import report_failure
from job.fingerprints import fingerprints
from job.models import load_base
from job.prompt_lengths import check_prompts
from job.recipe import parse_arguments
from job.summary import peak_rss, write_record
from job.tracking import finish_tracking, log_evaluation, start_tracking
from rl.evaluation import evaluate
from rl.tasks import fingerprint, read_rows
from rl.verifiers import get_verifier


def main() -> None:
    job, _ = parse_arguments(SCRIPTS["evaluate_policy.py"])
    rows, verifier = read_rows(channel("test"))[: job.eval_problems], get_verifier(job.verifier)
    start_tracking(job, job, data_fingerprint=fingerprint(rows))
    policy, tokenizer = load_base(job.base_model, job.dtype)
    check_prompts(rows, tokenizer, policy, job)
    measured = base_evaluation(
        partial(evaluate, policy, tokenizer),
        rows,
        job,
        fingerprints(job, rows),
        verifier=verifier,
        samples=job.eval_samples,
        max_new_tokens=job.eval_max_new_tokens,
        batch_size=job.eval_batch_size,
        seed=job.seed,
        chat_template_kwargs=job.chat_template_kwargs,
        prefill=job.prefill,
    )
    log_evaluation("before", measured)
    peak_rss_mb = max(gather_object([peak_rss()]))
    if is_main_process():
        write_record(
            job,
            measured,
            after=None,
            trainer="none",
            processes=process_count(),
            seed=job.seed,
            steps=0,
            tokens=0,
            peak_rss_mb=peak_rss_mb,
            train_seconds=0.0,
        )
    finish_tracking()


if __name__ == "__main__":
    with report_failure():
        main()
