"""What the scripts of this folder read from a recipe. Preflight reads this file too; it needs no torch."""

import dataclasses

from job.arguments import (
    EvaluationArguments,
    LoraArguments,
    ModelArguments,
    RewardArguments,
    RewardModelArguments,
    RunArguments,
    Script,
    TemplateArguments,
)


@dataclasses.dataclass
class TrainArguments(
    RunArguments, ModelArguments, LoraArguments, RewardArguments, RewardModelArguments, EvaluationArguments
):
    """train.py, beside trl.GRPOConfig."""


@dataclasses.dataclass
class TrainRewardModelArguments(RunArguments, ModelArguments, TemplateArguments, EvaluationArguments):
    """train_reward_model.py, beside trl.RewardConfig; the completions it makes pairs from are those of an evaluation."""


SCRIPTS = {
    "train.py": Script(TrainArguments, "trl.GRPOConfig"),
    "train_reward_model.py": Script(TrainRewardModelArguments, "trl.RewardConfig"),
}
