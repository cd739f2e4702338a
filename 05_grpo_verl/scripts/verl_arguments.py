"""What a recipe says in its section `job`: the workshop's own settings, beside those of verl.

The other modules have a file arguments.py with SCRIPTS, which says what each script reads from a flat recipe. A recipe
for verl is nested and nearly all of it belongs to Hydra, so it has a reader and checks of its own (verl_recipe), and
this file holds the one dataclass that both need. Needs neither torch nor verl, so that preflight reads it too.
"""

import dataclasses
from collections.abc import Iterator
from typing import ClassVar

from job.arguments import BaseModelArguments, EvaluationArguments, RewardArguments, RunArguments, argument
from job.ranges import WEIGHTS, Range
from job.settings import describe_config


@dataclasses.dataclass
class VerlJob(RunArguments, BaseModelArguments, RewardArguments, EvaluationArguments):
    """The section `job` of a recipe."""

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {"device": ("cpu", "gpu")}
    RANGES: ClassVar[dict[str, Range]] = {"reward_weights": WEIGHTS}

    device: str = argument("gpu", "gpu, or cpu: train on CPU processes with the package verl_cpu.")
    reward_weights: list[float] | None = argument(
        None, "One weight for each reward, whose weighted sum is trained on; empty: 1.0 each."
    )
    report_to: list[str] = argument([], "Trackers that get the metrics: mlflow, wandb.")
    run_name: str | None = argument(None, "Name of the run in the trackers; empty: they choose one.")

    def problems(self) -> Iterator[str]:
        """What is wrong with the values, each key named as the recipe has it, such as job.eval_samples."""
        for problem in super().problems():
            yield f"job.{problem}"
        yield from self._kind_problems()
        if not isinstance(self.rewards, list) or not isinstance(self.reward_weights, list):
            return
        if len(self.reward_weights) != len(self.rewards):
            yield f"job.reward_weights has {len(self.reward_weights)} numbers for {len(self.rewards)} rewards."

    def _kind_problems(self) -> Iterator[str]:
        """Other groups of arguments come from a command line, whose text is converted to numbers and lists. These come
        from YAML, which has made them already, so that a text where a number belongs stays one."""
        for name, setting in describe_config(type(self)).items():
            value = getattr(self, name)
            takes_list = any(kind.startswith("list") for kind in setting.kinds)
            if takes_list and value is not None and not isinstance(value, list):
                yield f"job.{name} is {value!r}: write a list, such as [{value}]."
            elif "str" in setting.kinds and not isinstance(value, str | None):
                yield f"job.{name} is {value!r}: write a text."
            elif not {"str", "list[str]"} & set(setting.kinds):
                for text in value if isinstance(value, list) else [value]:
                    if isinstance(text, str):
                        yield f"job.{name} holds the text {text!r}: write a number."
