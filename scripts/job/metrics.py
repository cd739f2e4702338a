"""The metrics of a training step: their names, and the line of the job's log that carries the ones a learner watches.

    [metrics] step=12/80 reward=0.5312 loss=0.0021 completions/mean_length=31.5 entropy=0.4 ...

A metric has one name everywhere, in the log line, in history.jsonl, in MLflow and in W&B: TRL's, where TRL has it. What
verl logs is renamed to it (05_grpo_verl/scripts/verl_history.py).
What writes the line and what reads it stand here together, and SageMaker's metric definitions read it too. No torch.
"""

import re
from typing import Any

STALLED = "[stall]"  # how a line of the log begins that says that steps do not come (job.stalls)
HISTORY = "history.jsonl"  # in the job's outputs: a JSON object for each logged step, with all its metrics and `step`
Metrics = dict[str, float]  # of one step; `step` itself is among them

# What the log line shows, in this order; the rest is in the history.
SHOWN = (
    "reward",
    "loss",
    "completions/mean_length",
    "entropy",
    "kl",
    "frac_reward_zero_std",
    "completions/clipped_ratio",
    "rewards/margins",
    "rewards/accuracies",
    "logps/chosen",
    "logps/rejected",
    "eval_pass_at_1",
    "eval_loss",
    "eval_rewards/margins",
    "eval_rewards/accuracies",
    "learning_rate",
    "grad_norm",
    "turns",
    "step_time",
    "training/rollout_actor_probs_pearson_corr",
)
_LINE = re.compile(r"\[metrics\] step=(\d+)(?:/(\d+))?\s*(.*)")
_METRIC = re.compile(r"([A-Za-z_][\w/.-]*)=([-+]?(?:\d[\d.]*(?:[eE][-+]?\d+)?|nan|inf))(?=\s|$)")


def metrics_line(logs: dict[str, Any], step: int, steps: int) -> str | None:
    """One step's line for the log: what of `logs` a learner watches, to 4 digits; None if there is nothing of it.

    Each reward's own mean (`rewards/<name>/mean`) is shown too. Text that is no number is left out.
    """
    of_rewards = [name for name in logs if name.startswith("rewards/") and name.endswith("/mean")]
    numbers = " ".join(
        f"{name}={logs[name]:.4g}"
        for name in (*SHOWN, *of_rewards)
        if isinstance(logs.get(name), int | float) and not isinstance(logs[name], bool)
    )
    return f"[metrics] step={step}/{steps} {numbers}" if numbers else None


def parse_metrics(line: str) -> Metrics | None:
    """The metrics in a line of the log, `step` first; None if it carries none. A prefix, such as a host, may stand
    before them."""
    found = _LINE.search(line)
    if not found:
        return None
    return {"step": int(found[1])} | {name: float(value) for name, value in _METRIC.findall(found[3])}


def last_step(line: str) -> int | None:
    """The number of steps that a line of the log counts up to: 80 in `step=12/80`."""
    found = _LINE.search(line)
    return int(found[2]) if found and found[2] else None


def metric_regex(name: str) -> str:
    """What SageMaker looks for in the log to record a metric: MetricDefinition(name=name, regex=metric_regex(name))."""
    return rf"\b{re.escape(name)}=([-+0-9.eE]+)"


def add_metrics(history: list[Metrics], metrics: Metrics) -> None:
    """Append one step. An evaluation's line joins that of its step; a job that resumed repeats steps: the later counts."""
    while history and history[-1]["step"] > metrics["step"]:
        history.pop()
    if history and history[-1]["step"] == metrics["step"]:
        history[-1].update(metrics)
    else:
        history.append(metrics)
