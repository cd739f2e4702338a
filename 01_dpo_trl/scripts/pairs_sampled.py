"""Preference pairs out of the base model itself: the step before train.py.

The model answers training problems several times, the verifier marks every answer, and right answers are joined with
wrong ones to the same problem. Reads the channel `problems`; leaves pairs.jsonl among the job's outputs. Run it with
the recipe that will train on the pairs, so that both speak of the same model:

    torchrun --nproc_per_node 2 pairs_sampled.py --config recipes/tiny.yaml --pair_problems 1000 --pair_samples 6
"""

from arguments import SCRIPTS
from job.container import channel, is_main_process, output_data_dir
from job.failure import report_failure
from job.models import load_base
from job.recipe import parse_arguments
from pair_tokens import count_tokens
from rl.evaluation import evaluate
from rl.preferences import check_contrast, preference_pairs, write_pairs
from rl.tasks import read_rows
from rl.verifiers import get_verifier


def main() -> None:
    job, _ = parse_arguments(SCRIPTS["pairs_sampled.py"])
    verifier = get_verifier(job.verifier)
    rows = read_rows(channel("problems"))[: job.pair_problems]
    model, tokenizer = load_base(job.base_model, job.dtype, job.quantization)
    sampled = evaluate(
        model,
        tokenizer,
        rows,
        verifier=verifier,
        chat_template_kwargs=job.chat_template_kwargs,
        samples=job.pair_samples,
        max_new_tokens=job.eval_max_new_tokens,
        batch_size=job.eval_batch_size,
        seed=job.seed,
    )
    pairs = preference_pairs(rows, sampled, per_problem=job.pairs_per_problem)
    check_contrast(pairs, len(rows), job.pair_samples, keys="pair_samples or pair_problems")
    if is_main_process():
        print(f"{len(rows)} problems, sampled pass@1 {sampled.sampled}, {len(pairs)} pairs", flush=True)
        pairs = count_tokens(pairs, tokenizer, job.chat_template_kwargs)
        write_pairs(pairs, output_data_dir() / "pairs.jsonl")


if __name__ == "__main__":
    with report_failure():
        main()
