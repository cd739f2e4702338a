"""Every keyword that notebooks and scripts pass to the SDK, TRL, transformers, peft and others exists there.

Libraries rename their parameters, and a notebook finds out only in the middle of a run. So each call in the tree
is compared, without running it, with the signature in the installed version: calls of imported classes and
functions, their class methods, and methods of variables that were made by calling an imported class.
"""

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
LIBRARIES = {
    "sagemaker",
    "trl",
    "transformers",
    "peft",
    "accelerate",
    "datasets",
    "mlflow",
    "pandas",
    "torch",
}
# A notebook must not lag behind them either.
OWN = {
    "workshop",
    "lesson",
    "rl",
    "job",
    "compat",
    "launchers",
    "local_sagemaker",
}
FILES = sorted(
    path
    for pattern in ("scripts/**/*.py", "[0-9][0-9]_*/**/*.py", "[0-9][0-9]_*/*.ipynb")
    for path in ROOT.glob(pattern)
)


@dataclass
class Call:
    """One call of something importable: what, with which keywords, and where."""

    target: Callable
    name: str
    keywords: list[str]
    line: int


def python_source(path: Path) -> str:
    """A module's text, or that of a notebook's code cells; magics become empty lines."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return re.sub(r"(?m)^\s*[%!].*$", "", "\n".join(cells))


def find_calls(source: str) -> list[Call]:
    """All calls in `source` whose target can be resolved to something of LIBRARIES or OWN."""
    tree = ast.parse(source)
    known = _imports(tree)
    made = _variables(tree, known)
    calls = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            target = _resolve(node.func, {**known, **made})
            if callable(target):
                names = [keyword.arg for keyword in node.keywords if keyword.arg]
                calls.append(Call(target, ast.unparse(node.func), names, node.lineno))
    return calls


def _imports(tree: ast.AST) -> dict[str, object]:
    """Names in the source -> the objects that they stand for."""
    known = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level == 0 and _is_checked(node.module):
            module = importlib.import_module(node.module)
            for alias in node.names:
                if not hasattr(module, alias.name):
                    # ImportError if it is no submodule either.
                    importlib.import_module(f"{node.module}.{alias.name}")
                known[alias.asname or alias.name] = getattr(module, alias.name)
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if _is_checked(alias.name):
                    module = importlib.import_module(alias.name)
                    top = importlib.import_module(alias.name.split(".")[0])
                    known[alias.asname or alias.name.split(".")[0]] = module if alias.asname else top
    return known


def _is_checked(module: str) -> bool:
    return module.split(".")[0] in LIBRARIES | OWN


def _variables(tree: ast.AST, known: dict[str, object]) -> dict[str, object]:
    """Variables that hold an instance of a known class: `trainer = ModelTrainer(...)` -> ModelTrainer.

    A name that is also given anything else anywhere in the source is left out.
    """
    made, other = {}, set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Name):
                    value = _resolve(node.value.func, known) if isinstance(node.value, ast.Call) else None
                    if inspect.isclass(value) and made.get(target.id, value) is value:
                        made[target.id] = value
                    else:
                        other.add(target.id)
    return {name: value for name, value in made.items() if name not in other | known.keys()}


def _resolve(node: ast.expr, known: dict[str, object]) -> object | None:
    if isinstance(node, ast.Name):
        return known.get(node.id)
    if isinstance(node, ast.Attribute):
        owner = _resolve(node.value, known)
        return getattr(owner, node.attr, None) if owner is not None else None
    return None


def accepted_keywords(target: Callable) -> set[str] | None:
    """The keywords that `target` takes; None if it takes any, or cannot be read."""
    fields = getattr(target, "model_fields", None)
    if inspect.isclass(target) and isinstance(fields, dict):
        return set(fields) | {field.alias for field in fields.values() if field.alias}
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return {parameter.name for parameter in parameters if parameter.kind is not parameter.POSITIONAL_ONLY}


def unknown_keywords(source: str) -> list[str]:
    problems = []
    for call in find_calls(source):
        accepted = accepted_keywords(call.target)
        for name in call.keywords if accepted is not None else ():
            if name not in accepted:
                problems.append(f"line {call.line}: {call.name}() has no parameter {name}")
    return problems


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_keywords_exist_in_the_installed_versions(path):
    assert unknown_keywords(python_source(path)) == []


def test_the_calls_that_matter_are_found():
    names = {call.name for path in FILES for call in find_calls(python_source(path)) if call.keywords}
    assert {"ModelTrainer", "InputData", "Compute", "GRPOTrainer", "make_splits", "pd.DataFrame"} <= names


@pytest.mark.parametrize(
    "source, problem",
    [
        (
            "from trl import GRPOConfig\nGRPOConfig(num_generation=8)",
            "GRPOConfig() has no parameter num_generation",
        ),
        ("import trl\ntrl.GRPOConfig(max_prompt_len=8)", "trl.GRPOConfig() has no parameter max_prompt_len"),
        ("from peft import LoraConfig as L\nL(r=8, rank=8)", "L() has no parameter rank"),
        (
            "from sagemaker.core.training.configs import Compute\nCompute(instance_types='ml.c5.large')",
            "Compute() has no parameter instance_types",
        ),
        (
            "from sagemaker.train import ModelTrainer\nt = ModelTrainer(training_image='x')\nt.train(inputs=[])",
            "t.train() has no parameter inputs",
        ),
        (
            "def f():\n    from workshop.jobs.live import watch\n    watch(1, refresh_seconds=2)",
            "watch() has no parameter refresh_seconds",
        ),
    ],
)
def test_a_keyword_that_does_not_exist_is_found(source, problem):
    assert [text.split(": ", 1)[1] for text in unknown_keywords(source)] == [problem]


def test_right_keywords_and_calls_that_take_any_pass():
    source = """
import torch
from trl import GRPOConfig
from transformers import AutoModelForCausalLM
from sagemaker.train import ModelTrainer
GRPOConfig(num_generations=8, learning_rate=1e-5)
AutoModelForCausalLM.from_pretrained("x", anything=1)
trainer = ModelTrainer(training_image="x", base_job_name="y")
trainer.train(input_data_config=[], wait=False)
trainer = something_else()
"""
    assert unknown_keywords(source) == []


def test_a_name_that_no_longer_exists_is_found():
    with pytest.raises(ImportError):
        unknown_keywords("from trl import NoSuchTrainer")
