"""Set-up without a C compiler: every package comes built, or is plain Python; pycosat_from_sympy takes pycosat's place."""

import importlib.util
import itertools
import random
import sys
from importlib import metadata
from pathlib import Path

import pytest
from local_sagemaker.environments import job_environment

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def pycosat():
    path = ROOT / "scripts" / "pycosat_from_sympy" / "pycosat.py"
    spec = importlib.util.spec_from_file_location("pycosat_from_sympy", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def itersolve(pycosat):
    return pycosat.itersolve


def compiled_here(environment: Path) -> list[str]:
    """Packages with modules that this machine's compiler made: an index takes no wheel with so plain a tag (PEP 600).

    Ray's come built all the same; its makers change the tag in the file's name only.
    """
    wheels = environment.glob("lib/python*/site-packages/*.dist-info/WHEEL")
    plain = {path.parent.name for path in wheels if "-linux_" in path.read_text(encoding="utf-8")}
    return sorted(name for name in plain if not name.startswith("ray-"))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a wheel's tag does not tell where it was made")
def test_nothing_of_this_environment_was_compiled_here():
    assert compiled_here(Path(sys.prefix)) == []


@pytest.mark.job
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a wheel's tag does not tell where it was made")
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("module", ["03_grpo_trl_fsdp", "04_grpo_unsloth", "05_grpo_verl"])
def test_nothing_of_a_job_was_compiled_here(module):
    environment = job_environment(ROOT / module / "scripts" / "requirements.txt", log=print)
    assert compiled_here(environment) == []


def by_trying(clauses: list[list[int]]) -> list[list[int]]:
    """Every solution, found by trying all 2^n."""
    count = max(abs(literal) for clause in clauses for literal in clause)
    signs = itertools.product((1, -1), repeat=count)
    models = [[sign * number for number, sign in enumerate(row, start=1)] for row in signs]
    return sorted(model for model in models if all(set(model) & set(clause) for clause in clauses))


def test_the_solver_finds_every_solution_once(itersolve):
    draw = random.Random(0)
    some = 0
    for _ in range(60):
        count = draw.randint(1, 6)
        clauses = [
            [draw.choice((-1, 1)) * draw.randint(1, count) for _ in range(draw.randint(1, 3))]
            for _ in range(draw.randint(1, 12))
        ]
        found = sorted(itersolve(clauses))
        assert found == by_trying(clauses), clauses
        some += bool(found)
    assert 10 < some < 60  # solvable ones among them, and others
    assert list(itersolve([])) == [[]] and list(itersolve([[1], []])) == []


def test_sympy_finds_its_solver_behind_it(pycosat, monkeypatch):
    """Its `satisfiable` asks a pycosat that can be imported, and cfn-lint (tests/test_aws_template.py) asks that."""
    from sympy import symbols
    from sympy.logic.inference import satisfiable

    monkeypatch.setitem(sys.modules, "pycosat", pycosat)
    a, b = symbols("a b")
    assert satisfiable(a & ~b) == {a: True, b: False} and satisfiable(a & ~a) is False
    assert len(list(satisfiable(a | b, all_models=True))) == 3


def test_a_zebra_puzzle_has_the_one_answer_that_it_says(itersolve, monkeypatch):
    """What reasoning-gym has the solver for: a puzzle's clues are dropped as long as its solution stays the only one."""
    import reasoning_gym
    from reasoning_gym.logic.contrib.logic_puzzle import sat_utils

    monkeypatch.setattr(sat_utils.pycosat, "itersolve", itersolve)
    puzzles = reasoning_gym.create_dataset("zebra_puzzles", seed=1, size=2)
    assert [puzzle["answer"] for puzzle in puzzles] == ["bob", "carol"]  # as with pycosat 0.6.6


def test_reasoning_gym_still_asks_for_it():
    """When this fails, reasoning-gym does without this pycosat: remove pycosat_from_sympy, or take its new version."""
    assert "pycosat==0.6.6" in metadata.requires("reasoning-gym")
