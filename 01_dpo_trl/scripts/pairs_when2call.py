"""Preference pairs from nvidia/When2Call, for runs with a network: the step before train.py for a tool-calling model.

Nothing is sampled: the data set brings better and worse answers. What this step adds is their length under the chat
template of the recipe's model, tools included. Leaves pairs.jsonl among the job's outputs, as pairs_sampled.py does:

    python pairs_when2call.py --config recipes/full.yaml --pair_problems 4000
"""

from rl.container import is_main_process, output_data_dir
from rl.failure import report_failure
from rl.models import load_tokenizer
from rl.preferences import count_tokens, write_pairs
from rl.recipe import JobArguments, parse_arguments
from rl.when2call import load_when2call
from trl import DPOConfig


def main() -> None:
    job, config = parse_arguments((JobArguments, DPOConfig))
    if is_main_process():  # no work to share
        pairs = count_tokens(
            load_when2call(job.pair_problems, seed=config.seed), load_tokenizer(job.base_model)
        )
        print(f"{len(pairs)} pairs", flush=True)
        write_pairs(pairs, output_data_dir() / "pairs.jsonl")


if __name__ == "__main__":
    with report_failure():
        main()
