"""verl's metrics on their way to the workshop's reports: the log, history.jsonl, MLflow and W&B.

verl writes each step's metrics as a JSON line (its logger `file`). A thread of the script reads that file while verl
trains, so that all trackers are opened once, here, where the key of W&B never meets Ray.
"""

import contextlib
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from numbers import Real
from pathlib import Path
from typing import Any, TypedDict

from job.container import checkpoint_dir, output_data_dir, print_line
from job.metrics import HISTORY, Metrics, metrics_line
from job.tracking import log_metrics
from job.zero_rewards import ZeroRewards
from rl.evaluation import Evaluation

POLL_S = 0.5
SAVED_STEP = "metrics.jsonl"  # in a checkpoint: the line of its step, which verl writes only after saving
# verl's name -> the one that TRL has for the same; tokens and turns, which TRL does not log, are the workshop's. Not among them:
# response_length/clip_ratio, the share of completions that are as long as the longest of their batch (see verl_trainer).
NAMES = {
    "critic/rewards/mean": "reward",
    "actor/pg_loss": "loss",
    "response_length/mean": "completions/mean_length",
    "actor/entropy": "entropy",
    "actor/kl_loss": "kl",
    "actor/lr": "learning_rate",
    "actor/grad_norm": "grad_norm",
    "timing_s/step": "step_time",
    "perf/total_num_tokens": "tokens",
    "num_turns/mean": "turns",
}


class WrittenStep(TypedDict):
    """A line of verl's file."""

    step: int
    data: dict[str, float]  # by verl's names


def write_step(folder: Path, step: int, metrics: dict[str, Any]) -> None:
    """Keeps the metrics of a checkpoint's own step in its folder."""
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, Real)}
    (folder / SAVED_STEP).write_text(json.dumps({"step": step, "data": numbers}) + "\n")


class History:
    """The metrics of one run, in order, each step once.

    Attributes:
        rows: the metrics of each step, by the names in NAMES or else verl's; `step` among them.
        file: the JSON lines that verl writes in this run.
    """

    def __init__(self, checkpoint: Path | None) -> None:
        """`checkpoint`: the folder global_step_<n> that verl goes on from."""
        self.rows: list[Metrics] = []
        start = int(checkpoint.name.rpartition("_")[2]) if checkpoint else 0
        # Kept with the checkpoints, so that a resumed run finds what came before; of a step done twice the later counts.
        self.file = checkpoint_dir() / f"metrics_{start:06}.jsonl"
        earlier: dict[int, WrittenStep] = {}
        for path in sorted(checkpoint_dir().glob("metrics_*.jsonl")):
            lines = path.read_bytes().splitlines(keepends=True) if path != self.file else []
            if lines and not lines[-1].endswith(b"\n"):
                print_line(
                    f"{path.name}: its last line was cut off as that run was killed, and its step has no metrics."
                )
            written = [json.loads(line) for line in lines if line.endswith(b"\n")]
            earlier |= {row["step"]: row for row in written if row["step"] <= start}
        if checkpoint and start not in earlier and (checkpoint / SAVED_STEP).is_file():
            line = (checkpoint / SAVED_STEP).read_bytes()
            earlier[start] = json.loads(line)
            # The checkpoint will be deleted when newer ones are there.
            (checkpoint_dir() / f"metrics_{start:06}_saved.jsonl").write_bytes(line)
        for step in sorted(earlier):
            self._add(earlier[step])
        self._before = len(self.rows)

    @property
    def trained(self) -> list[Metrics]:
        """The rows of this run alone, without those before the checkpoint."""
        return self.rows[self._before :]

    @property
    def last_step(self) -> int:
        """The number of the last step; 0 before there is one."""
        return int(self.rows[-1]["step"]) if self.rows else 0

    @property
    def save_seconds(self) -> float:
        """How long the last checkpoint took; 0.0 before there is one."""
        saved = [row["timing_s/save_checkpoint"] for row in self.rows if "timing_s/save_checkpoint" in row]
        return saved[-1] if saved else 0.0

    @contextlib.contextmanager
    def following(self, steps: int, before: Evaluation | None = None) -> Iterator[None]:
        """While the block runs, report each of the `steps` as soon as verl has written it.

        What goes wrong in reporting (a damaged line, a tracker) is raised when the block ends. `before`, the evaluation
        of the base model, gives an example where a reward is 0 throughout.
        """
        self.file.parent.mkdir(parents=True, exist_ok=True)
        self.file.write_text("")
        zero = ZeroRewards(before)
        for row in self.rows:
            zero.add(row)
        ended = threading.Event()
        with ThreadPoolExecutor(1) as pool:
            follower = pool.submit(self._follow, ended, steps, zero)
            try:
                yield
            finally:
                ended.set()
            follower.result()  # raises what went wrong there

    def _follow(self, ended: threading.Event, steps: int, zero: ZeroRewards) -> None:
        read = 0
        while True:
            last = ended.wait(POLL_S)
            lines = self.file.read_bytes()[read:].splitlines(keepends=True)
            for line in lines:
                if line.endswith(b"\n"):
                    read += len(line)
                    row = self._add(json.loads(line))
                    _report(row, steps)
                    zero.add(row)
                    for warning in zero.warnings(row["step"]):
                        print_line(warning)
            if last:
                return

    def _add(self, written: WrittenStep) -> Metrics:
        row = {NAMES.get(name, name): value for name, value in written["data"].items()}
        row["step"] = written["step"]
        self.rows.append(row)
        output_data_dir().mkdir(parents=True, exist_ok=True)
        with open(output_data_dir() / HISTORY, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
        return row


def _report(row: Metrics, steps: int) -> None:
    line = metrics_line(row, row["step"], steps)
    if line:
        print_line(line)
    log_metrics(row, row["step"])
