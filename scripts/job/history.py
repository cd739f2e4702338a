"""Each logged step of a transformers Trainer: as a line of the job's log and as a line of history.jsonl."""

import json
from typing import IO, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from job.container import output_data_dir, print_line
from job.metrics import HISTORY, metrics_line


class MetricLines(TrainerCallback):
    """Prints one line for each log (job.metrics), and keeps all of it in the job's outputs as history.jsonl.

    After a resume the history holds each step once: what a checkpoint remembers is written again, what came after it
    is trained again.
    """

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.is_world_process_zero:
            output_data_dir().mkdir(parents=True, exist_ok=True)
            with open(output_data_dir() / HISTORY, "w", encoding="utf-8") as file:
                for logs in state.log_history:
                    _append(file, logs, logs["step"])

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        # The last log sums up, with no step of its own.
        if not state.is_world_process_zero or "train_runtime" in logs:
            return
        with open(output_data_dir() / HISTORY, "a", encoding="utf-8") as file:
            _append(file, logs, state.global_step)
        line = metrics_line(logs, state.global_step, state.max_steps)
        if line:
            print_line(line)


def _append(file: IO[str], logs: dict[str, Any], step: int) -> None:
    if "train_runtime" not in logs:
        file.write(json.dumps({**logs, "step": step}, default=float) + "\n")
