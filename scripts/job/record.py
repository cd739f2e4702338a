"""The form of summary.json, for what writes it in a job and what reads it in a notebook. No torch."""

from typing import Any, NotRequired, TypedDict

SUMMARY, EVALUATION_BEFORE = "summary.json", "evaluation_before.json"  # in the job's outputs
BASE_CHANNEL = "base"  # may bring the latter to another job (job.base_evaluation)


class NotTracked(TypedDict):
    """What a tracker (mlflow, wandb) did not get of a run, or got in another place."""

    reason: str
    from_step: int  # the first step that may be missing there; 0: from the start
    kept_in: NotRequired[str]  # where among the job's outputs the run is instead


class Record(TypedDict):
    """summary.json: what was trained, how good it was before and after, and what that took."""

    module: str
    recipe: str
    trainer: str  # such as trl.GRPOTrainer
    base_model: str
    hosts: int
    processes: int
    seed: int
    steps: int
    steps_asked: NotRequired[int]  # where the time cap ended the training before; then
    stopped_by: NotRequired[str]  # "time cap"
    base: dict[str, dict[str, Any]]  # pass@1 by decoding, as rl.evaluation.PassAtOne has it
    trained: NotRequired[
        dict[str, dict[str, Any]]
    ]  # not where the cap left no time for the evaluation after training
    completion_length: dict[str, float]  # base and trained: tokens, sampled
    cut_off: NotRequired[dict[str, dict[str, float]]]  # base and trained: share of completions by decoding
    train_seconds: float  # since the script was last started
    phases_seconds: dict[str, float]
    peak_rss_mb: float  # of one process, MB of 2**20 bytes
    tokens_per_second: float  # prompts and completions, all processes; 0 where a checkpoint held all steps
    versions: dict[str, str]
    not_tracked: NotRequired[dict[str, NotTracked]]  # by tracker; only where there was trouble
