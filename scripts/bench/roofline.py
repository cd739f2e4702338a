"""GRPO steps on paper: the full recipes on AWS's GPU instances, by published figures, and what a run costs there at least.

    list(recipe_lines())

The arithmetic is that of phases.py; peaks and prices are those of workshop/checks/instances.json, each with its source. The
recipe's batch on one GPU stays as it is, so that an instance with twice the GPUs trains on twice the completions a step.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from job.recipe import read_recipe
from workshop.checks.instances import Gpu, find_instance
from workshop.checks.memory import ModelShape, shape_of, whole_model_bytes
from workshop.folders import REPOSITORY

from bench.phases import Speeds, Step, Work, step_work

PROMPT_TOKENS = 128
INSTANCES = ("ml.g5.12xlarge", "ml.g6e.12xlarge", "ml.p4d.24xlarge", "ml.p5.48xlarge")
RECIPES = ("02_grpo_trl_accelerate", "03_grpo_trl_fsdp", "04_grpo_unsloth")


@dataclass(frozen=True)
class OnPaper:
    """A recipe's run on an instance, at least."""

    module: str
    instance: str
    gpu: Gpu
    gpus: int  # that the run uses
    work: dict[str, Work]
    steps: int
    price: float | None  # USD an hour, on demand

    @property
    def speeds(self) -> Speeds:
        return Speeds(self.gpu.flops, self.gpu.bandwidth, self.gpu.link)

    @property
    def hours(self) -> float:
        return self.steps * sum(work.seconds(self.speeds) for work in self.work.values()) / 3600

    @property
    def dollars(self) -> float | None:
        return None if self.price is None else self.price * self.hours


def step_of(recipe: dict[str, Any], shape: ModelShape, devices: int) -> Step:
    """A recipe's step as one of `devices` GPUs sees it.

    Raises:
        KeyError: the recipe says no per_device_train_batch_size or max_completion_length.
    """
    micro_batches = int(recipe.get("gradient_accumulation_steps") or 1)
    rank, fsdp = int(recipe.get("lora_rank") or 0), recipe.get("fsdp_config") or {}
    return Step(
        sequences=int(recipe["per_device_train_batch_size"]) * micro_batches,
        prompt=PROMPT_TOKENS,
        answer=int(recipe["max_completion_length"]),
        micro_batches=micro_batches,
        weight_bytes=whole_model_bytes(shape, "bfloat16", recipe.get("quantization")),
        trained=shape.adapter_parameters(rank) if rank else shape.parameters,
        trained_bytes=4,  # what is trained is kept in float32 under bf16
        checkpointing=bool(fsdp.get("activation_checkpointing") or recipe.get("gradient_checkpointing")),
        devices=devices if recipe.get("fsdp") else 1,
    )


def on_paper() -> Iterator[OnPaper]:
    """Every recipe on every instance."""
    for module in RECIPES:
        recipe = read_recipe(REPOSITORY / module / "scripts" / "recipes" / "full.yaml")
        shape = shape_of(str(recipe["base_model"]))
        if shape is None:
            raise ValueError(
                f"{module}: the shape of {recipe['base_model']} is not in workshop.checks.memory.SHAPES"
            )
        for name in INSTANCES:
            found = find_instance(name)
            if found is None or found.gpu is None:
                raise ValueError(f"{name} is not in instances.json, or has no GPU there")
            gpus = 1 if module == "04_grpo_unsloth" else found.gpus  # Unsloth trains on one
            work = step_work(shape, step_of(recipe, shape, gpus))
            yield OnPaper(module, name, found.gpu, gpus, work, int(recipe["max_steps"]), found.price)


def recipe_lines(spot_share: float) -> Iterator[list[str]]:
    """Table lines: module, machine, each phase's least seconds and what limits it, hours and dollars of a run at least.

    Args:
        spot_share: of the price on demand.
    """
    for run in on_paper():
        dollars = run.dollars
        yield [
            run.module,
            f"{run.instance}, {run.gpus} x {run.gpu.name}",
            *(f"{work.seconds(run.speeds):.1f} s, {work.limit(run.speeds)}" for work in run.work.values()),
            f"{run.hours:.1f} h",
            "not known" if dollars is None else f"${dollars:,.0f}",
            "not known" if dollars is None else f"${dollars * spot_share:,.0f}",
        ]
