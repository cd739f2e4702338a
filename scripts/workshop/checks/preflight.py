"""Check a training job before it is created: every mistake that can be known now costs nothing now.

preflight(trainer, channels)    # shows a table, or raises PreflightError with all problems at once
trainer.train(input_data_config=channels, wait=False)
"""

import html
import traceback
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sagemaker.core.training.configs import InputData
from sagemaker.train import ModelTrainer

from workshop.checks import (
    accelerate_file,
    base_checks,
    cost,
    data_checks,
    duration,
    free_memory,
    image_checks,
    import_checks,
    machine_checks,
    memory_checks,
    model_checks,
    network_checks,
    recipe_checks,
    request_checks,
    reward_checks,
    tracking_checks,
)
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest, read_request
from workshop.checks.signatures import load_signature
from workshop.errors import WorkshopError
from workshop.text_colours import BAD, CAUTION, GOOD, QUIET

UNFORESEEN = "something in this job is as no check foresaw, and a job would stumble over it too:"
_MARKS = {
    OK: ("\u2713", GOOD),
    NOTE: ("\u2022", QUIET),
    WARNING: ("!", CAUTION),
    PROBLEM: ("\u2717", BAD),
}


@dataclass(frozen=True)
class Preflight:
    """What was checked and how it stands; a notebook shows it as a table."""

    checks: list[Check]

    @property
    def problems(self) -> list[Check]:
        """What keeps the job from being started."""
        return [check for check in self.checks if check.status == PROBLEM]

    def __str__(self) -> str:
        width = max(len(check.name) for check in self.checks)
        return "\n".join(f"{_MARKS[c.status][0]} {c.name:<{width}}  {c.detail}" for c in self.checks)

    __repr__ = __str__

    def _repr_html_(self) -> str:
        left = 'style="text-align:left"'
        rows = "".join(
            f'<tr><td style="color:{_MARKS[c.status][1]};font-weight:bold">{_MARKS[c.status][0]} {c.status}</td>'
            f"<td {left}>{html.escape(c.name)}</td><td {left}>{html.escape(c.detail)}</td></tr>"
            for c in self.checks
        )
        return f"<table><tbody>{rows}</tbody></table>"


class PreflightError(WorkshopError):
    """The job would fail, or waste money. `preflight` holds every check, the message every problem."""

    def __init__(self, preflight: Preflight) -> None:
        self.preflight = preflight
        problems = preflight.problems
        lines = "\n".join(
            f"{number}. {check.name}: {check.detail}" for number, check in enumerate(problems, start=1)
        )
        count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
        super().__init__(f"No job was created. {count} to mend first:\n{lines}")


# Reads the recipe of a request: its settings (hyperparameters included) under the names that TRL's recipes have, and
# what is wrong with them.
ReadRecipe = Callable[[JobRequest], tuple[dict[str, Any], list[Check]]]


def preflight(
    trainer: ModelTrainer, channels: list[InputData], *, recipe: ReadRecipe = recipe_checks.check_recipe
) -> Preflight:
    """Check what `trainer.train(input_data_config=channels)` would start.

    What the entry script reads is told by the file arguments.py beside it, in the source as it would be sent.

    Args:
        recipe: how to read and check the recipe, for trainers whose recipes have another form (05: verl's).

    Raises PreflightError, which lists all problems, each with what to do.
    """
    result = Preflight(run_checks(read_request(trainer, channels), recipe))
    if result.problems:
        raise PreflightError(result)
    return result


def run_checks(request: JobRequest, recipe: ReadRecipe = recipe_checks.check_recipe) -> list[Check]:
    """All checks, in the order in which a learner meets the things they are about."""
    try:
        settings, checks = recipe(request)
    except Exception as error:
        return [_unforeseen("check_recipe", error)]
    known = request.script.reads(load_signature) if request.script else {}
    numeric = {key for key, setting in known.items() if {"int", "float"} & set(setting.kinds)}
    checks += _findings(recipe_checks.check_script, request)
    checks += _findings(reward_checks.check_rewards, request, settings)
    checks += _findings(import_checks.check_imports, request, settings)
    checks += _findings(recipe_checks.check_batch, request, settings)
    checks += _findings(model_checks.check_model, request, settings)
    checks += _findings(request_checks.check_channels, request)
    checks += _findings(data_checks.check_data, request, settings)
    checks += _findings(base_checks.check_base_evaluation, request, settings)
    checks += _findings(request_checks.check_hyperparameters, request, numeric)
    checks += _findings(request_checks.check_secrets, request)
    checks += _findings(tracking_checks.check_tracking, request)
    checks += _findings(request_checks.check_source, request)
    checks += _findings(network_checks.check_network, request, settings)
    checks += _findings(request_checks.check_packages, request, settings)
    checks += _findings(image_checks.check_image, request, settings)
    checks += _findings(machine_checks.check_numbers, request)
    checks += _findings(machine_checks.check_machines, request, settings)
    checks += _findings(accelerate_file.check_launcher, request, settings)
    checks += _findings(memory_checks.check_memory, request, settings)
    checks += _findings(free_memory.check_free_memory, request, settings)
    checks += _findings(machine_checks.check_disk, request)
    checks += _findings(machine_checks.check_spot, request, settings)
    checks += _findings(machine_checks.check_time_limit, request)
    checks += _findings(duration.check_duration, request, settings)
    checks += _findings(machine_checks.check_quota, request)
    checks += _findings(cost.check_cost, request, settings)
    checks += _findings(cost.check_warm_pool, request)
    return checks


def _findings(check: Callable[..., Iterable[Check] | Check], *arguments: Any) -> list[Check]:
    """What a check finds. An input that it was not made for, so that it raises, is a problem like any other."""
    found: list[Check] = []
    try:
        result = check(*arguments)
        for finding in [result] if isinstance(result, Check) else result:
            found.append(finding)
    except Exception as error:
        found.append(_unforeseen(getattr(check, "__name__", str(check)), error))
    return found


def _unforeseen(check: str, error: Exception) -> Check:
    at = traceback.extract_tb(error.__traceback__)[-1]
    where = f"{'/'.join(Path(at.filename).parts[-2:])}:{at.lineno}"
    said = f"{type(error).__name__}: {str(error)[:300]}"
    return Check("preflight", PROBLEM, f"{UNFORESEEN} {check} came to {said} (at {where})")
