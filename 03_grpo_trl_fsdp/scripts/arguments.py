"""What train.py reads from a recipe. Preflight reads this file too; it needs no torch."""

import dataclasses

from job.arguments import (
    EvaluationArguments,
    LoraArguments,
    ModelArguments,
    QuantizationArguments,
    RewardArguments,
    RunArguments,
    Script,
)


@dataclasses.dataclass
class TrainArguments(
    RunArguments, ModelArguments, LoraArguments, QuantizationArguments, RewardArguments, EvaluationArguments
):
    """train.py, beside trl.GRPOConfig."""


SCRIPTS = {"train.py": Script(TrainArguments, "trl.GRPOConfig")}
