"""Preference pairs out of the base model itself: the step before train.py.

The model answers training problems several times, the verifier marks every answer, and right answers are joined with
wrong ones to the same problem. Reads the channel `problems`; leaves pairs.jsonl among the job's outputs. Run it with
the recipe that will train on the pairs, so that both speak of the same model:

    torchrun --nproc_per_node 2 pairs_sampled.py --config recipes/tiny.yaml --pair_problems 1000 --pair_samples 6

The problems are answered in portions. Where the job's time cap (job.time_cap) leaves no time for another one, the pairs are
made of those that were answered.
"""

from arguments import SCRIPTS, SampledPairsArguments
from job.container import channel, is_main_process, output_data_dir, print_line
from job.failure import report_failure
from job.models import load_base
from job.prompt_lengths import check_prompts
from job.recipe import parse_arguments
from job.time_cap import time_for
from pair_tokens import count_tokens
from rl.evaluation import evaluate
from rl.preferences import Pair, check_contrast, preference_pairs, write_pairs
from rl.tasks import Row, read_rows
from rl.verifiers import get_verifier
from transformers import PreTrainedModel, PreTrainedTokenizerBase

PORTION = 500  # problems


def main() -> None:
    job, _ = parse_arguments(SCRIPTS["pairs_sampled.py"])
    get_verifier(job.verifier)  # a name that leads nowhere is said before a model is loaded
    rows = read_rows(channel("problems"))[: job.pair_problems]
    model, tokenizer = load_base(job.base_model, job.dtype, job.quantization)
    check_prompts(rows, tokenizer, model, job)
    answered, pairs = sampled_pairs(job, rows, model, tokenizer)
    check_contrast(pairs, answered, job.pair_samples, keys="pair_samples or pair_problems")
    if is_main_process():
        pairs = count_tokens(pairs, tokenizer, job.chat_template_kwargs)
        write_pairs(pairs, output_data_dir() / "pairs.jsonl")


def sampled_pairs(
    job: SampledPairsArguments, rows: list[Row], model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
) -> tuple[int, list[Pair]]:
    """How many problems were answered, and the pairs made of them. Every process must call this."""
    pairs: list[Pair] = []
    slowest = 0.0
    for start in range(0, len(rows), PORTION):
        if start and not time_for(slowest):
            if is_main_process():
                print_line(
                    f"[time cap] {start} of {len(rows)} problems are answered; there is no time for more."
                )
            return start, pairs
        portion = rows[start : start + PORTION]
        sampled = evaluate(
            model,
            tokenizer,
            portion,
            verifier=get_verifier(job.verifier),
            chat_template_kwargs=job.chat_template_kwargs,
            samples=job.pair_samples,
            max_new_tokens=job.eval_max_new_tokens,
            batch_size=job.pair_batch_size or job.eval_batch_size,
            seed=job.seed + start,
        )
        slowest = max(slowest, sampled.seconds)
        pairs += preference_pairs(portion, sampled, per_problem=job.pairs_per_problem)
        if is_main_process():
            done = start + len(portion)
            print_line(f"{done} problems, sampled pass@1 {sampled.sampled}, {len(pairs)} pairs")
    return len(rows), pairs


if __name__ == "__main__":
    with report_failure():
        main()
