"""The front door for notebooks: `from workshop import open_session, preflight, watch`.

A name is imported when it is asked for, and not before: `check_versions` runs on a kernel that lacks half of what the
others need, and says so. Runs on the notebook side, so nothing here needs torch, transformers or TRL.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from workshop.checks.cost import job_cost as job_cost
    from workshop.checks.images import image_address as image_address
    from workshop.checks.instances import gpu_bytes as gpu_bytes
    from workshop.checks.memory import GB as GB
    from workshop.checks.memory import SHAPES as SHAPES
    from workshop.checks.memory import estimate as estimate
    from workshop.checks.preflight import PreflightError as PreflightError
    from workshop.checks.preflight import preflight as preflight
    from workshop.jobs.live import watch as watch
    from workshop.jobs.outputs import JobOutput as JobOutput
    from workshop.jobs.outputs import fetch_output as fetch_output
    from workshop.jobs.status import LogReader as LogReader
    from workshop.jobs.status import training_job as training_job
    from workshop.session.conditions import only_if as only_if
    from workshop.session.connection import open_session as open_session
    from workshop.session.machines import read_machine as read_machine
    from workshop.session.staging import stage_source as stage_source
    from workshop.session.versions import check_versions as check_versions
    from workshop.views.comparisons import HEALTH as HEALTH
    from workshop.views.comparisons import plot_parts as plot_parts
    from workshop.views.comparisons import plot_runs as plot_runs
    from workshop.views.habits import habits_table as habits_table
    from workshop.views.habits import plot_habits as plot_habits
    from workshop.views.plots import Panel as Panel
    from workshop.views.plots import plot_training as plot_training
    from workshop.views.reports import (
        compare_completions as compare_completions,
    )
    from workshop.views.reports import (
        paired_comparison as paired_comparison,
    )
    from workshop.views.reports import (
        plot_pass_at_1 as plot_pass_at_1,
    )
    from workshop.views.request_view import show_request as show_request
    from workshop.views.results import append_result as append_result
    from workshop.views.results import results_table as results_table
    from workshop.views.seeds import plot_seeds as plot_seeds
    from workshop.views.seeds import read_recorded as read_recorded
    from workshop.views.seeds import seeds_table as seeds_table
    from workshop.views.tracked_runs import browse_runs as browse_runs
    from workshop.views.tracked_runs import tracked_runs as tracked_runs

_MODULES = {
    "session.versions": ("check_versions",),
    "session.conditions": ("only_if",),
    "session.connection": ("open_session",),
    "session.machines": ("read_machine",),
    "session.staging": ("stage_source",),
    "checks.preflight": ("preflight", "PreflightError"),
    "checks.cost": ("job_cost",),
    "checks.memory": ("GB", "SHAPES", "estimate"),
    "checks.images": ("image_address",),
    "checks.instances": ("gpu_bytes",),
    "jobs.live": ("watch",),
    "jobs.outputs": ("JobOutput", "fetch_output"),
    "jobs.status": ("LogReader", "training_job"),
    "views.comparisons": ("HEALTH", "plot_parts", "plot_runs"),
    "views.habits": ("habits_table", "plot_habits"),
    "views.plots": ("Panel", "plot_training"),
    "views.reports": ("compare_completions", "paired_comparison", "plot_pass_at_1"),
    "views.request_view": ("show_request",),
    "views.results": ("append_result", "results_table"),
    "views.seeds": ("plot_seeds", "read_recorded", "seeds_table"),
    "views.tracked_runs": ("browse_runs", "tracked_runs"),
}
_MODULE_OF = {name: f"workshop.{module}" for module, names in _MODULES.items() for name in names}

__all__ = sorted(_MODULE_OF)


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'workshop' has no attribute '{name}' (it has: {', '.join(__all__)})")
    return getattr(importlib.import_module(_MODULE_OF[name]), name)


def __dir__() -> list[str]:
    return __all__
