"""What the scripts of this folder read from a recipe. Preflight reads this file too; it needs no torch.

All of them take the recipe that train.py trains with, so that what is measured or saved is what was trained.
"""

import dataclasses
from collections.abc import Iterator

from job.arguments import (
    Arguments,
    BaseModelArguments,
    EvaluationArguments,
    GreedyEvaluationArguments,
    LoraArguments,
    ModelArguments,
    QuantizationArguments,
    RewardArguments,
    RunArguments,
    Script,
    TemplateArguments,
    WeightsArguments,
)


@dataclasses.dataclass
class AdapterArguments(ModelArguments, LoraArguments, QuantizationArguments):
    """A frozen base and its adapters: what train.load_policy reads, beside trl.GRPOConfig."""

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.lora_rank == 0:
            yield "lora_rank is 0, but adapters on a frozen base are what is trained here: set it to 8 or more."


@dataclasses.dataclass
class TrainArguments(RunArguments, AdapterArguments, RewardArguments, EvaluationArguments):
    """train.py."""


@dataclasses.dataclass
class MeasureArguments(BaseModelArguments, LoraArguments):
    """measure.py, beside trl.GRPOConfig. It goes through all precisions, so it reads none from the recipe."""


@dataclasses.dataclass
class ExportArguments(WeightsArguments, QuantizationArguments, TemplateArguments, GreedyEvaluationArguments):
    """export.py. Its base model is that of the result it is given."""


# Keys of the TRL and transformers of the other modules that those which unsloth 2026.10.9 allows (1.15, 5.17) lack.
LATER_KEYS = ("activation_checkpointing", "activation_checkpointing_kwargs")
_RECIPE = (TrainArguments, "trl.GRPOConfig")
SCRIPTS = {
    "train.py": Script(TrainArguments, "trl.GRPOConfig", lacks=LATER_KEYS, most_processes=1),
    "measure.py": Script(MeasureArguments, "trl.GRPOConfig", _RECIPE, lacks=LATER_KEYS, most_processes=1),
    "export.py": Script(ExportArguments, shares_with=_RECIPE, most_processes=1),
    "gradient_check.py": Script(Arguments, shares_with=_RECIPE, most_processes=1),
}
