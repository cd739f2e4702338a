"""What 32, 16 and 4 bits a weight cost, measured: the bytes of the weights, peak memory, time of a step, quality.

Runs inside the training container, with the recipe and the hyperparameters of train.py; by hand:

    SM_CHANNEL_TEST=data/test SM_OUTPUT_DATA_DIR=out/data python measure.py --config recipes/tiny.yaml

The model is the recipe's `base_model`. With --base_model channel:model, and an earlier job's result as the channel
`model`, it is a trained model that is quantized afterwards. Leaves measurements.json among the job's outputs.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from job.container import channel, output_data_dir
from job.failure import report_failure
from rl.tasks import read_rows

PRECISIONS = ("fp32", "bf16", "nf4")


def main() -> None:
    read_rows(channel("test"))  # a damaged row is named before a model is loaded
    report: dict = {"precisions": {}}
    with tempfile.TemporaryDirectory() as folder:
        for precision in PRECISIONS:
            result = Path(folder) / f"{precision}.json"
            script = Path(__file__).with_name("measure_precision.py")
            subprocess.run([sys.executable, str(script), precision, str(result), *sys.argv[1:]], check=True)
            found = json.loads(result.read_text())
            report |= found["about"]
            report["precisions"][precision] = found["measured"]
    output_data_dir().mkdir(parents=True, exist_ok=True)
    (output_data_dir() / "measurements.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    with report_failure():
        main()
