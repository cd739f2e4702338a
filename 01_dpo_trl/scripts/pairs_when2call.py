"""Preference pairs from nvidia/When2Call, for runs with a network: the step before train.py for a tool-calling model.

Nothing is sampled: the data set brings better and worse answers. What this step adds is their length under the chat
template of the recipe's model, tools included. Leaves pairs.jsonl among the job's outputs, as pairs_sampled.py does:

    python pairs_when2call.py --config recipes/full.yaml --pair_problems 4000
"""

from arguments import SCRIPTS
from job.container import is_main_process, output_data_dir
from job.failure import report_failure
from job.models import load_tokenizer
from job.recipe import parse_arguments
from pair_tokens import count_tokens
from rl.preferences import write_pairs
from when2call import load_when2call


def main() -> None:
    job, _ = parse_arguments(SCRIPTS["pairs_when2call.py"])
    if is_main_process():  # no work to share
        found = load_when2call(job.pair_problems, seed=job.seed)
        pairs = count_tokens(found, load_tokenizer(job.base_model), job.chat_template_kwargs)
        print(f"{len(pairs)} pairs", flush=True)
        write_pairs(pairs, output_data_dir() / "pairs.jsonl")


if __name__ == "__main__":
    with report_failure():
        main()
