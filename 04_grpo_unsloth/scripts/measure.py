"""What 32, 16 and 4 bits a weight cost, measured: the bytes of the weights, peak memory, time of a step, loss.

Runs inside the training container, with the recipe and the hyperparameters of train.py; by hand:

    SM_CHANNEL_TEST=data/test SM_OUTPUT_DATA_DIR=out/data python measure.py --config recipes/tiny.yaml

The model is the recipe's `base_model`. A process's peak memory never goes down, so each precision has a process of its own
(measure_precision.py). Leaves measurements.json among the job's outputs.
"""

import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.context import BaseContext

from job.container import channel, output_data_dir
from job.failure import report_failure
from rl.tasks import read_rows

PRECISIONS = ("fp32", "bf16", "nf4")


def main() -> None:
    read_rows(channel("test"))  # a damaged row is named before anything is loaded
    from measure_precision import measure

    report: dict = {"precisions": {}}
    for precision in PRECISIONS:
        with ProcessPoolExecutor(1, mp_context=kind_of_process()) as process:
            about, measured = process.submit(measure, precision, sys.argv[1:]).result()
        report |= about
        report["precisions"][precision] = measured
    output_data_dir().mkdir(parents=True, exist_ok=True)
    (output_data_dir() / "measurements.json").write_text(json.dumps(report, indent=2) + "\n")


def kind_of_process() -> BaseContext:
    """A forked one where that can be done: it has Unsloth already, whose import takes longer than a measurement.

    CUDA cannot be used in a forked process, nor Apple's libraries.
    """
    import torch

    forks = sys.platform == "linux" and not torch.cuda.is_available()
    return multiprocessing.get_context("fork" if forks else "spawn")


if __name__ == "__main__":
    with report_failure():
        main()
