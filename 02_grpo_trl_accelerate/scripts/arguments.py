"""What the scripts of this folder read from a recipe. Preflight reads this file too; it needs no torch."""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from job.arguments import (
    Arguments,
    EvaluationArguments,
    LoraArguments,
    ModelArguments,
    RewardArguments,
    RewardModelArguments,
    RunArguments,
    Script,
    TemplateArguments,
    argument,
)
from job.ranges import SEED, Range


@dataclasses.dataclass
class RecordArguments(Arguments):
    """What is written down for a look at it afterwards."""

    record_steps: list[int] = argument(
        [], "Optimizer steps to write down in full, from 1, such as [1, 2, 3, 4]: see step_record.py."
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if any(step < 1 for step in self.record_steps):
            yield f"record_steps: the first step is 1, not {min(self.record_steps)}."


@dataclasses.dataclass
class TrainArguments(
    RunArguments,
    ModelArguments,
    LoraArguments,
    RewardArguments,
    RewardModelArguments,
    EvaluationArguments,
    RecordArguments,
):
    """train.py, beside trl.GRPOConfig."""


@dataclasses.dataclass
class TrainRewardModelArguments(RunArguments, ModelArguments, TemplateArguments, EvaluationArguments):
    """train_reward_model.py, beside trl.RewardConfig; the completions it makes pairs from are those of an evaluation."""


@dataclasses.dataclass
class TrainRlooArguments(RunArguments, ModelArguments, LoraArguments, RewardArguments, EvaluationArguments):
    """train_rloo.py, beside trl.RLOOConfig."""


@dataclasses.dataclass
class TrainDistilledArguments(RunArguments, ModelArguments, LoraArguments, EvaluationArguments):
    """train_distilled.py, beside trl.DistillationConfig."""

    teacher: str = argument(
        "channel:teacher", "Model whose distribution is learned; written as base_model is."
    )


@dataclasses.dataclass
class EvaluatePolicyArguments(RunArguments, ModelArguments, TemplateArguments, EvaluationArguments):
    """evaluate_policy.py."""

    RANGES: ClassVar[dict[str, Range]] = {"seed": SEED}

    prefill: str = argument("", "What every completion begins with; <think> makes the model think.")
    seed: int = argument(42, "Random seed of the sampled completions.")
    report_to: list[str] = argument([], "Trackers: mlflow, wandb.")
    run_name: str | None = argument(None, "Name of the run in the trackers.")


SCRIPTS = {
    "train.py": Script(TrainArguments, "trl.GRPOConfig"),
    "train_reward_model.py": Script(TrainRewardModelArguments, "trl.RewardConfig"),
    # These two read recipes of train.py: what it alone needs of them may stand there.
    "train_rloo.py": Script(
        TrainRlooArguments, "trl.RLOOConfig", shares_with=(TrainArguments, "trl.GRPOConfig")
    ),
    "evaluate_policy.py": Script(EvaluatePolicyArguments, shares_with=(TrainArguments, "trl.GRPOConfig")),
    "train_distilled.py": Script(TrainDistilledArguments, "trl.DistillationConfig"),
}
