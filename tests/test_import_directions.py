"""Dependencies point one way: notebooks -> workshop, rl, launchers -> SDK; train.py -> rl -> TRL.

Read from every import statement of the tree, those inside functions included; and shown once more by importing
the notebook side in a process where the training libraries do not exist.
"""

import ast
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = ROOT / "scripts"
TRAINING = {
    "torch",
    "verl",
    "ray",
    "transformers",
    "trl",
    "peft",
    "accelerate",
    "datasets",
    "unsloth",
    "bitsandbytes",
}
NOTEBOOK_SIDE = {"workshop", "launchers", "local_sagemaker", "sagemaker", "matplotlib", "IPython"}

# part of the tree -> what nothing in it may import
FORBIDDEN = {
    "scripts/local_sagemaker/**/*.py": {"rl", "workshop", "launchers"} | TRAINING,
    "scripts/rl/**/*.py": NOTEBOOK_SIDE,
    "scripts/launchers/*.py": {"rl", "workshop", "local_sagemaker"} | TRAINING,
    "scripts/launchers/drivers/*.py": {"rl", "workshop", "launchers", "local_sagemaker", "sagemaker"},
    "[0-9][0-9]_*/scripts/**/*.py": NOTEBOOK_SIDE,
    "[0-9][0-9]_*/*.ipynb": {"local_sagemaker"} | TRAINING,
}


def imported(source: str) -> set[str]:
    """Top-level names of everything that `source` imports, wherever the statement stands."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add(node.module.split(".")[0])
    return names


def python_source(path: Path) -> str:
    """A module's text, or that of a notebook's code cells without magics."""
    if path.suffix == ".py":
        return path.read_text(encoding="utf-8")
    cells = [cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    return "\n".join(
        line for cell in cells for line in cell.splitlines() if not line.lstrip().startswith(("%", "!"))
    )


def thin_rl() -> list[str]:
    """The modules of rl that notebooks import, which must do without torch; the rest of rl may load it."""
    trees = [ast.parse(python_source(path)) for path in sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))]
    froms = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return sorted({node.module for node in froms if node.module.split(".")[0] == "rl"})


def violations(root: Path) -> list[str]:
    return [
        f"{path.relative_to(root)} imports {name}"
        for pattern, forbidden in FORBIDDEN.items()
        for path in sorted(root.glob(pattern))
        for name in sorted(imported(python_source(path)) & forbidden)
    ]


def modules(package: str) -> list[str]:
    """All modules of a package under scripts, drivers that run inside a job left out."""
    paths = sorted((SCRIPTS / package).rglob("*.py"))
    names = [
        ".".join(path.relative_to(SCRIPTS).with_suffix("").parts)
        for path in paths
        if "drivers" not in path.parts
    ]
    return [name.removesuffix(".__init__") for name in names if not name.endswith("__main__")]


def run_python(code: str, *options: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, *options, "-c", code], capture_output=True, text=True, timeout=180, cwd=SCRIPTS
    )


def import_without(blocked: set[str], names: list[str]) -> subprocess.CompletedProcess:
    """Import `names` in a fresh process where the packages in `blocked` cannot be found."""
    return run_python(
        f"""
import importlib, sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}} here", name=name)
sys.meta_path.insert(0, Blocked())
sys.path.insert(0, {str(SCRIPTS)!r})
for name in {names!r}:
    importlib.import_module(name)
"""
    )


def test_every_part_of_the_tree_has_files():
    for pattern in FORBIDDEN:
        assert list(ROOT.glob(pattern)), f"nothing matches {pattern}: a rule that checks nothing"


def test_dependencies_point_one_way():
    assert violations(ROOT) == []


def test_an_import_against_the_arrows_is_found(tmp_path):
    (tmp_path / "scripts/rl").mkdir(parents=True)
    (tmp_path / "scripts/rl/bad.py").write_text(
        "def show():\n    from matplotlib.pyplot import plot\n    import sagemaker\n"
    )
    (tmp_path / "07_bad").mkdir()
    cell = nbformat.v4.new_code_cell("%matplotlib inline\nimport torch.nn as nn")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "07_bad/07_bad.ipynb")
    assert violations(tmp_path) == [
        "scripts/rl/bad.py imports matplotlib",
        "scripts/rl/bad.py imports sagemaker",
        "07_bad/07_bad.ipynb imports torch",
    ]


def test_the_notebook_side_imports_without_the_training_libraries():
    names = [
        *thin_rl(),
        *modules("workshop"),
        *modules("launchers"),
        *modules("local_sagemaker"),
        "run_notebooks",
    ]
    result = import_without(TRAINING | {"wandb"}, names)
    assert result.returncode == 0, result.stderr


def test_the_reading_side_of_rl_needs_no_sdk():
    assert {"rl.preferences", "rl.recipe", "rl.rewards", "rl.tasks"} <= set(thin_rl())
    result = import_without(NOTEBOOK_SIDE, thin_rl())
    assert result.returncode == 0, result.stderr


def test_the_blockade_works():
    result = import_without(TRAINING, ["torch"])
    assert result.returncode == 1 and "No module named 'torch' here" in result.stderr


@pytest.mark.parametrize("module", ["local_sagemaker.environments", "local_sagemaker.image_build"])
def test_what_runs_before_anything_is_installed_needs_the_standard_library_only(module):
    result = run_python(f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {module}", "-I", "-S")
    assert result.returncode == 0, result.stderr
