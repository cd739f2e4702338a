"""Dependencies point one way: notebooks -> workshop -> SDK; train.py -> job -> rl, compat -> TRL.

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
NOTEBOOK_SIDE = {
    "workshop",
    "lesson",
    "launchers",
    "local_sagemaker",
    "sagemaker",
    "matplotlib",
    "IPython",
    "bench",
}
SHARED = {"rl", "job", "compat", "workshop", "lesson", "launchers", "bench"}

# part of the tree -> what nothing in it may import
FORBIDDEN = {
    "scripts/local_sagemaker/**/*.py": SHARED | TRAINING,
    "scripts/compat/**/*.py": NOTEBOOK_SIDE | {"rl", "job"},
    "scripts/rl/**/*.py": NOTEBOOK_SIDE | {"job", "compat"},
    "scripts/job/**/*.py": NOTEBOOK_SIDE,
    "scripts/launchers/*.py": SHARED - {"launchers"} | {"local_sagemaker"} | TRAINING,
    "scripts/launchers/drivers/*.py": SHARED | {"local_sagemaker", "sagemaker"},
    # Preflight reads tokenizers, which needs no torch; it loads the library when it is asked for (see below).
    "scripts/workshop/**/*.py": {"lesson", "compat", "bench"} | TRAINING - {"transformers"},
    "scripts/seeds/**/*.py": {"lesson", "compat", "bench"} | TRAINING,
    # It measures all of the others, and nothing imports it.
    "scripts/bench/**/*.py": {"lesson", "compat"},
    "[0-9][0-9]_*/lesson/*.py": {"launchers", "compat", "bench"} | TRAINING,
    "[0-9][0-9]_*/scripts/**/*.py": NOTEBOOK_SIDE,
    "[0-9][0-9]_*/*.ipynb": {"local_sagemaker", "compat", "bench"} | TRAINING,
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


def torch_free_modules() -> list[str]:
    """The modules of rl and job that notebooks import, which must do without torch; the others may load it."""
    trees = [ast.parse(python_source(path)) for path in sorted(ROOT.glob("[0-9][0-9]_*/*.ipynb"))]
    froms = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return sorted({node.module for node in froms if node.module.split(".")[0] in ("rl", "job")})


def wide_notebook_imports(root: Path) -> list[str]:
    """Notebooks that reach into workshop past its front door, or with more than one line behind check_versions."""
    found = []
    for path in sorted(root.glob("[0-9][0-9]_*/*.ipynb")):
        nodes = [
            node for node in ast.walk(ast.parse(python_source(path))) if isinstance(node, ast.ImportFrom)
        ]
        of_workshop = [
            node.module for node in nodes if node.module and node.module.split(".")[0] == "workshop"
        ]
        if of_workshop != ["workshop"] * 2:
            found.append(f"{path.name} imports {', '.join(of_workshop)}")
    return found


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


def test_a_notebook_imports_what_it_needs_from_workshop_in_one_line():
    assert wide_notebook_imports(ROOT) == []


def test_the_front_door_opens_what_is_asked_for_and_nothing_else():
    result = run_python(
        "import sys\n"
        "import workshop\n"
        "from workshop import check_versions\n"
        "print(sorted(name for name in sys.modules if name.startswith('workshop.')))\n"
        "assert not {'sagemaker', 'boto3', 'matplotlib', 'pandas'} & set(sys.modules)\n"
        "for name in dir(workshop):\n"
        "    assert getattr(workshop, name).__name__ == name if callable(getattr(workshop, name)) else True\n"
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "['workshop.errors', 'workshop.session', 'workshop.session.versions']"


def test_type_checkers_see_the_same_front_door():
    import workshop

    tree = ast.parse((SCRIPTS / "workshop" / "__init__.py").read_text())
    (seen,) = (node for node in tree.body if isinstance(node, ast.If))
    imported = {(node.module, alias.name) for node in seen.body for alias in node.names}
    assert imported == {(module, name) for name, module in workshop._MODULE_OF.items()}


def test_lessons_share_one_namespace():
    """`lesson` spans the folders of all modules in the tests, so that no two files in them have one name."""
    names = [path.name for path in ROOT.glob("[0-9][0-9]_*/lesson/*.py")]
    assert len(names) == len(set(names)) and "__init__.py" not in names


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
        *torch_free_modules(),
        *modules("workshop"),
        *modules("launchers"),
        *modules("local_sagemaker"),
        "run_notebooks",
    ]
    result = import_without(TRAINING | {"wandb"}, names)
    assert result.returncode == 0, result.stderr


def test_what_notebooks_read_of_rl_and_job_needs_no_sdk():
    assert {"rl.preferences", "job.recipe", "rl.rewards", "rl.tasks"} <= set(torch_free_modules())
    result = import_without(NOTEBOOK_SIDE, torch_free_modules())
    assert result.returncode == 0, result.stderr


def test_the_blockade_works():
    result = import_without(TRAINING, ["torch"])
    assert result.returncode == 1 and "No module named 'torch' here" in result.stderr


@pytest.mark.parametrize(
    "module",
    ["local_sagemaker.environments", "local_sagemaker.environments.image_build", "bench.phases"],
)
def test_what_runs_before_anything_is_installed_needs_the_standard_library_only(module):
    result = run_python(f"import sys; sys.path.insert(0, {str(SCRIPTS)!r}); import {module}", "-I", "-S")
    assert result.returncode == 0, result.stderr
