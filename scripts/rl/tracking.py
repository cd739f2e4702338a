"""Where a run's numbers go: the job's log, history.jsonl, MLflow and Weights & Biases.

The recipe's `report_to` names the trackers; transformers' own callbacks send them the training metrics. This module
opens the runs before that, adds what was trained on what, and logs the evaluations. From the environment:

| variable | meaning, and what holds without it |
|---|---|
| MLFLOW_TRACKING_URI | a store or server; without it an sqlite file among the job's outputs |
| MLFLOW_EXPERIMENT_NAME, WANDB_PROJECT | else the recipe's `experiment` |
| WANDB_MODE | else online with a key and offline without |
| WANDB_SECRET_NAME | name of a secret in AWS Secrets Manager that holds the W&B key |
| WANDB_DIR | else the job's outputs |
| WORKSHOP_GIT_REVISION | revision of the workshop that the job was started from |
"""

import atexit
import dataclasses
import fcntl
import importlib.util
import json
import logging
import os
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from rl.container import is_main_process, output_data_dir, print_line
from rl.evaluation import Evaluation
from rl.recipe import JobArguments

HISTORY = "history.jsonl"
SYSTEM_METRICS_SECONDS = 5  # between two samples of CPU, memory and GPUs
# Names in the log line, in order: short ones for what a learner watches. The rest is in the history.
SHOWN = {
    "reward": "reward",
    "loss": "loss",
    "completions/mean_length": "completion_length",
    "entropy": "entropy",
    "kl": "kl",
    "frac_reward_zero_std": "frac_reward_zero_std",
    "completions/clipped_ratio": "clipped_ratio",
    "rewards/margins": "margin",
    "rewards/accuracies": "preference_accuracy",
    "logps/chosen": "chosen_logp",
    "logps/rejected": "rejected_logp",
    "eval_pass_at_1": "pass_at_1",
    "eval_loss": "eval_loss",
    "eval_rewards/margins": "eval_margin",
    "eval_rewards/accuracies": "eval_preference_accuracy",
    "learning_rate": "learning_rate",
    "grad_norm": "grad_norm",
    "turns": "turns",
    "step_time": "step_seconds",
    "training/rollout_actor_probs_pearson_corr": "rollout_correlation",
}
COLUMNS = (
    "index",
    "question",
    "answer",
    "decoding",
    "sample",
    "completion",
    "extracted",
    "correct",
    "formatted",
)


class TrackingError(Exception):
    """A tracker that the recipe asks for cannot be used; the message says what to change."""


def start_tracking(job: JobArguments, config: TrainingArguments, *, data_fingerprint: str) -> None:
    """Opens a run in each tracker that `config.report_to` names. Call it before the trainer is made.

    Raises:
        TrackingError: a tracker is not installed, or the secret with its key cannot be read.
    """
    if not is_main_process():
        return
    facts = {
        "data_sha256": data_fingerprint,
        "git_revision": os.environ.get("WORKSHOP_GIT_REVISION", "unknown"),
        "job_name": os.environ.get("TRAINING_JOB_NAME", "none"),
    }
    for name, start in (("mlflow", _start_mlflow), ("wandb", _start_wandb)):
        if name in config.report_to:
            if importlib.util.find_spec(name) is None:
                raise TrackingError(
                    f"report_to names {name}, which is not installed: add it to requirements.txt."
                )
            start(job, config.run_name, facts)
    # Whatever way the script ends before finish_tracking, its runs do not look finished.
    atexit.register(_end_runs, succeeded=False)


def _start_mlflow(job: JobArguments, run_name: str | None, facts: dict[str, str]) -> None:
    import mlflow

    uri = os.environ.setdefault("MLFLOW_TRACKING_URI", f"sqlite:///{output_data_dir() / 'mlflow.db'}")
    mlflow.set_tracking_uri(uri)
    experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", job.experiment)
    if uri.startswith("sqlite:///"):
        store = Path(uri.removeprefix("sqlite:///")).absolute()
        store.parent.mkdir(parents=True, exist_ok=True)
        # Jobs share a store. MLflow's own lock lies among temporary files, of which each job has its own, so that two
        # jobs which make the tables at once would both fail.
        with open(store.with_name(f"{store.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if mlflow.get_experiment_by_name(experiment) is None:
                # Without a location of its own it would put artifacts in the current folder, which a job loses.
                location = (store.parent / "artifacts" / experiment).as_uri()
                mlflow.create_experiment(experiment, artifact_location=location)
    mlflow.set_experiment(experiment)
    logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)
    mlflow.set_system_metrics_sampling_interval(SYSTEM_METRICS_SECONDS)
    mlflow.start_run(
        run_name=run_name, tags={"mlflow.source.git.commit": facts["git_revision"]}, log_system_metrics=True
    )
    mlflow.log_params({**facts, **{f"job.{key}": value for key, value in dataclasses.asdict(job).items()}})


def _start_wandb(job: JobArguments, run_name: str | None, facts: dict[str, str]) -> None:
    import wandb

    secret = os.environ.get("WANDB_SECRET_NAME")
    if secret:
        os.environ["WANDB_API_KEY"] = read_secret(secret, "WANDB_API_KEY")
    folder = Path(os.environ.get("WANDB_DIR") or output_data_dir())
    folder.mkdir(parents=True, exist_ok=True)
    wandb.init(
        project=os.environ.get("WANDB_PROJECT", job.experiment),
        name=run_name,
        config={**facts, "job": dataclasses.asdict(job)},
        dir=folder,
        mode=os.environ.get("WANDB_MODE") or ("online" if os.environ.get("WANDB_API_KEY") else "offline"),
        # The job's log has its own place; source code and git state come from the workshop's revision.
        settings=wandb.Settings(console="off", disable_code=True, disable_git=True, silent=True),
    )


def read_secret(name: str, key: str) -> str:
    """Value of a secret in AWS Secrets Manager: its text, or one key of it where it is a JSON object.

    Raises:
        TrackingError: it does not exist, may not be read, or lacks the key. The value is never part of a message.
    """
    import boto3
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        text = boto3.client("secretsmanager").get_secret_value(SecretId=name)["SecretString"]
    except (BotoCoreError, ClientError, KeyError) as error:
        raise TrackingError(
            f"The secret '{name}' could not be read ({type(error).__name__}: {error}). Does it exist in this region, "
            "and may the job's role call secretsmanager:GetSecretValue on it?"
        ) from error
    try:
        content = json.loads(text)
    except ValueError:
        return text.strip()
    if not isinstance(content, dict):
        return text.strip()
    if key not in content:
        raise TrackingError(f"The secret '{name}' is a JSON object without the key {key}.")
    return str(content[key])


def log_evaluation(name: str, evaluation: Evaluation) -> None:
    """Prints an evaluation's figures and sends them, and the table of its completions, to the open runs.

    Args:
        name: "before" or "after"; it prefixes the metrics and names the table.
    """
    if not is_main_process():
        return
    print_line(f"[evaluation] {name}: pass@1 {evaluation.greedy}; {evaluation.sampled}")
    metrics = {}
    for rate in (evaluation.greedy, evaluation.sampled):
        metrics |= {
            f"{name}/pass_at_1_{rate.decoding}": rate.value,
            f"{name}/pass_at_1_{rate.decoding}_low": rate.low,
            f"{name}/pass_at_1_{rate.decoding}_high": rate.high,
            f"{name}/format_rate_{rate.decoding}": evaluation.format_rate[rate.decoding],
            f"{name}/completion_length_{rate.decoding}": evaluation.mean_completion_length[rate.decoding],
        }
    if mlflow := _open_run("mlflow"):
        mlflow.log_metrics(metrics)
        table = {column: [item[column] for item in evaluation.completions] for column in COLUMNS}
        mlflow.log_table(table, artifact_file=f"evaluation_{name}.json")
    if wandb := _open_run("wandb"):
        rows = [[item[column] for column in COLUMNS] for item in evaluation.completions]
        wandb.log({**metrics, f"{name}/completions": wandb.Table(columns=list(COLUMNS), data=rows)})


def finish_tracking() -> None:
    """Closes the runs as successful."""
    _end_runs(succeeded=True)


def _open_run(name: str) -> Any:
    """The tracker's module if it has a run open in this process, else None; imports nothing."""
    module = sys.modules.get(name)
    if module is None:
        return None
    return module if (module.active_run() if name == "mlflow" else module.run) else None


def _end_runs(succeeded: bool) -> None:
    if mlflow := _open_run("mlflow"):
        mlflow.end_run("FINISHED" if succeeded else "FAILED")
    if wandb := _open_run("wandb"):
        wandb.finish(exit_code=0 if succeeded else 1)


class MetricLines(TrainerCallback):
    """Prints one line for each log, and keeps all of it in the job's outputs as history.jsonl.

        [metrics] step=12/80 reward=0.5312 loss=0.0021 completion_length=31.5 entropy=0.4 ...

    SageMaker's metric definitions read these lines. After a resume the history holds each step once: what a checkpoint
    remembers is written again, what came after it is trained again.
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
        if (
            not state.is_world_process_zero or "train_runtime" in logs
        ):  # the last log sums up, with no step of its own
            return
        with open(output_data_dir() / HISTORY, "a", encoding="utf-8") as file:
            _append(file, logs, state.global_step)
        line = metrics_line(logs, state.global_step, state.max_steps)
        if line:
            print_line(line)


def metrics_line(logs: dict[str, Any], step: int, steps: int) -> str | None:
    """One step's line for the log: what of `logs` a learner watches; None if there is nothing of it."""
    shown = {short: logs[name] for name, short in SHOWN.items() if name in logs}
    for name in logs:
        if name.startswith("rewards/") and name.endswith("/mean"):
            shown[f"reward_{name.split('/')[1]}"] = logs[name]
    numbers = " ".join(
        f"{name}={value:.4g}" for name, value in shown.items() if isinstance(value, int | float)
    )
    return f"[metrics] step={step}/{steps} {numbers}" if numbers else None


def log_metrics(metrics: dict[str, Any], step: int) -> None:
    """Sends a step's numbers to the open runs, for trainers that do not do it themselves."""
    numbers = {name: float(value) for name, value in metrics.items() if isinstance(value, int | float)}
    if mlflow := _open_run("mlflow"):
        mlflow.log_metrics(numbers, step=step)
    if wandb := _open_run("wandb"):
        wandb.log(numbers, step=step)


def _append(file: Any, logs: dict[str, Any], step: int) -> None:
    if "train_runtime" not in logs:
        file.write(json.dumps({**logs, "step": step}, default=float) + "\n")
