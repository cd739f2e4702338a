"""Cells that compare with what was recorded, or need right answers, where a learner has chosen another task."""

import builtins
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import nbformat
import pytest
from workshop import only_if

ROOT = Path(__file__).resolve().parents[1]


class Names(dict):
    """A kernel's names; what a cell asks for besides is made up."""

    def __missing__(self, name: str) -> Any:
        if hasattr(builtins, name):
            raise KeyError(name)
        return MagicMock(name=name)


def cells(module: str, having: str) -> list[str]:
    notebook = nbformat.read(next(ROOT.glob(f"{module}_*/*.ipynb")), as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code" and having in cell.source]


@pytest.mark.parametrize("module", ["01", "02", "03", "04", "05"])
@pytest.mark.parametrize("task", ["chain_sum", "gsm_symbolic"])
def test_a_run_is_drawn_over_recorded_ones_of_the_same_task_only(module, task):
    drawn: list[Any] = []

    def plot_seeds(data: Any, panels: Any, live: Any = None, **_: Any) -> None:
        drawn.append(live)

    known = {
        "recipe": "tiny",
        "tiny": True,
        "machine": SimpleNamespace(task=task),
        "sick_steps": 30,
        "same_rate": ["a", "b"],
    }
    names = Names(known, plot_seeds=plot_seeds, losses_apply=only_if(True, ""))
    # 02's letters are a task of their own, whichever the notebook has.
    comparing = [
        source for source in cells(module, "plot_seeds(") if "live" in source and "letter" not in source
    ]
    for source in comparing:
        exec(source, {}, names)
    assert drawn and all(bool(live) == (task == "chain_sum") for live in drawn)


@pytest.mark.parametrize(
    ("base", "right", "come"),
    [
        ("asset:tiny", 0.385, True),
        ("asset:tiny", 0.0, False),
        ("pypi:smollm2", 1.0, False),
        ("hub:Qwen/Qwen3-1.7B", 0.5, True),
    ],
)
def test_a_reward_is_learned_where_the_base_gives_right_answers(base, right, come):
    (source,) = cells("02", "pairs_come = only_if(")
    names = Names(
        settings={"base_model": base},
        measured={"free": SimpleNamespace(sampled=SimpleNamespace(value=right))},
        only_if=only_if,
    )
    exec(source, {}, names)
    assert bool(names["pairs_come"]) is come
