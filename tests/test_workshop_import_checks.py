"""What own rewards and verdicts import must be among the job's packages, not only among those of the notebook."""

from importlib import metadata
from pathlib import Path

import pytest
from job_requests import job_request
from resolution import pins, resolve
from workshop.checks import import_checks
from workshop.checks.import_checks import check_imports, job_packages

ROOT = Path(__file__).resolve().parents[1]
SCORE = "\n\ndef score(completions, **kwargs):\n    return [1.0] * len(completions)\n"
HERE_ALONE = "import matplotlib.pyplot as plt"


def found(folder: Path, text: str, requirements: str | None = "requirements.txt", **settings) -> list[str]:
    (folder / "mine.py").write_text(text)
    request = job_request(source_dir=folder, requirements=requirements)
    return [check.detail for check in check_imports(request, settings or {"rewards": ["mine.score"]})]


@pytest.fixture
def folder(tmp_path) -> Path:
    (tmp_path / "requirements.txt").write_text("math-verify==0.9.0\ntrl==1.16.0\n")
    return tmp_path


IN_THE_FUNCTION = f"def score(completions, **kwargs):\n    {HERE_ALONE}\n    return [1.0]\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (f"import math\n{HERE_ALONE}{SCORE}", 2),
        (f"from matplotlib import pyplot{SCORE}", 1),
        (IN_THE_FUNCTION, 2),
    ],
)
@pytest.mark.parametrize(
    "settings", [{"rewards": '["mine.score"]'}, {"rewards": ["accuracy"], "verifier": "mine.score"}]
)
def test_what_only_the_notebook_has_is_named_with_what_to_add(folder, text, line, settings):
    (detail,) = found(folder, text, **settings)
    assert detail.startswith(f"mine.py, line {line}, imports matplotlib, which is installed here")
    assert detail.endswith(f"Add matplotlib=={metadata.version('matplotlib')} to requirements.txt")
    (folder / "requirements.txt").write_text("--no-cache-dir\nMatplotlib==3.11.2 --hash=sha256:0\n")
    assert found(folder, text, **settings) == []


@pytest.mark.parametrize(
    "statement",
    [
        "import json, os.path",
        "import rl.answers, job.container",
        "import numpy, torch, sympy, yaml",  # torch's, or every image's
        "import latex2sympy2_extended",  # math-verify's
        "import no_such_package_at_all",  # the trial says it
        f"try:\n    {HERE_ALONE}\nexcept ImportError:\n    plt = None",
        f"def draw():\n    {HERE_ALONE}",
        f"from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    {HERE_ALONE}",
        "from . import beside",
        "import accelerate_files, helper",
        "def (",
    ],
)
def test_what_the_job_has_or_may_do_without_is_fine(folder, statement):
    (folder / "helper.py").write_text("import mine, helper\n")
    (folder / "requirements.txt").write_text("math-verify==0.9.0\ntransformers==5.23.0\n")
    assert found(folder, statement + SCORE) == []


def test_files_beside_it_count_too(folder):
    (folder / "tools").mkdir()
    (folder / "tools" / "tables.py").write_text(f"import re\n\n{HERE_ALONE}\n")
    (detail,) = found(folder, "from tools.tables import read" + SCORE)
    assert detail.startswith("tools/tables.py, line 3, imports matplotlib")


@pytest.mark.parametrize("lines", ["git+https://host/own.git", "./own", "-r absent.txt"])
def test_where_it_is_not_known_what_a_job_has_nothing_is_said(folder, lines):
    assert found(folder, HERE_ALONE + SCORE, requirements=None) == []
    (folder / "requirements.txt").write_text(f"{lines}\n")
    assert found(folder, HERE_ALONE + SCORE) == []


FILES = (
    "01_dpo_trl/scripts/requirements-qlora.txt",
    "02_grpo_trl_accelerate/scripts/requirements-gpu.txt",
    "04_grpo_unsloth/scripts/requirements-gpu.txt",
    "05_grpo_verl/scripts/requirements.txt",
)
NOT_IN_NOTEBOOKS = set(pins(ROOT / "requirements-dev.txt")) | {"torch"}


@pytest.mark.job
@pytest.mark.parametrize("file", FILES)
def test_what_the_requirements_bring_is_known_without_them(file, tmp_path, monkeypatch):
    """Of this kernel's packages each that the index would install; the training libraries are not in a notebook's."""
    whole = metadata.requires

    def requires(name: str) -> list[str] | None:
        if name in NOT_IN_NOTEBOOKS:
            raise metadata.PackageNotFoundError(name)
        return whole(name)

    monkeypatch.setattr(import_checks.metadata, "requires", requires)
    path = ROOT / file
    done = resolve(path, tmp_path / "out.txt", python="3.12")
    assert done.returncode == 0, done.stderr
    here = {import_checks.canonicalize_name(one.name) for one in metadata.distributions()}
    request = job_request(source_dir=path.parent, requirements=path.name)
    missed = (set(pins(tmp_path / "out.txt")) & here) - job_packages(request)
    assert not missed, "add them to _BRINGS"
