"""What the scripts of this folder read from a recipe. Preflight reads this file too; it needs no torch.

One recipe serves the step that makes the pairs and the training on them, so that both speak of the same model.
"""

import dataclasses
from typing import ClassVar

from job.arguments import (
    BaseModelArguments,
    DecodingArguments,
    EvaluationArguments,
    LoraArguments,
    ModelArguments,
    PairArguments,
    QuantizationArguments,
    RunArguments,
    Script,
    TemplateArguments,
    argument,
)
from job.ranges import SEED, Range


@dataclasses.dataclass
class TrainArguments(
    RunArguments,
    ModelArguments,
    LoraArguments,
    QuantizationArguments,
    TemplateArguments,
    EvaluationArguments,
):
    """train.py, beside trl.DPOConfig."""


@dataclasses.dataclass
class SampledPairsArguments(
    ModelArguments, QuantizationArguments, TemplateArguments, PairArguments, DecodingArguments
):
    """pairs_sampled.py."""

    RANGES: ClassVar[dict[str, Range]] = {"seed": SEED}

    seed: int = argument(42, "Random seed of the sampled completions.")


@dataclasses.dataclass
class When2CallArguments(BaseModelArguments, TemplateArguments):
    """pairs_when2call.py."""

    LEAST: ClassVar[dict[str, float]] = {"pair_problems": 1}
    RANGES: ClassVar[dict[str, Range]] = {"seed": SEED}

    pair_problems: int | None = argument(None, "Take so many of the data set's pairs; empty: all.")
    seed: int = argument(42, "Random seed of the order that the pairs are taken in.")


_RECIPE = (TrainArguments, PairArguments, "trl.DPOConfig")
SCRIPTS = {
    "train.py": Script(TrainArguments, "trl.DPOConfig", shares_with=(PairArguments,)),
    "pairs_sampled.py": Script(SampledPairsArguments, shares_with=_RECIPE),
    "pairs_when2call.py": Script(When2CallArguments, shares_with=_RECIPE),
}
