"""The READMEs are a map: each package's lists every file in it, and every link leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
READMES = sorted(
    path
    for path in ROOT.rglob("*.md")
    if not any(part.startswith(".") or part in ("build", "assets") for part in path.relative_to(ROOT).parts)
)
PACKAGES = [
    ROOT / "scripts" / name for name in ("rl", "job", "compat", "launchers", "workshop", "local_sagemaker")
]
MODULES = sorted(ROOT.glob("[0-9][0-9]_*"))


def named(path: Path) -> str:
    return path.read_text(encoding="utf-8").replace("\\_", "_")


@pytest.mark.parametrize("folder", [*PACKAGES, *MODULES], ids=lambda folder: folder.name)
def test_every_file_is_listed(folder):
    listed = named(folder / "README.md")
    files = [
        path
        for path in folder.rglob("*.py")
        if "__pycache__" not in path.parts
        and not path.name.startswith("my_")  # a learner's own
        and (path.name != "__init__.py" or path.parent == folder)
    ]
    # An __init__.py that says only what its folder is for needs no line of its own.
    code = re.compile(r"^(from|import) ", re.MULTILINE)
    files = [path for path in files if path.name != "__init__.py" or code.search(path.read_text())]
    in_plugins = [path for path in files if path.parent.name == "verl_cpu"]  # listed as one
    missing = [path.name for path in files if path.name not in listed and path not in in_plugins]
    assert missing == []


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(readme):
    for target in re.findall(r"\]\(([^)#\s]+)", readme.read_text(encoding="utf-8")):
        if "://" not in target:
            assert (readme.parent / target).exists(), target


def test_the_top_map_leads_to_every_package_and_module():
    top = (ROOT / "README.md").read_text(encoding="utf-8")
    for folder in [*PACKAGES, *MODULES]:
        assert f"]({folder.relative_to(ROOT)})" in top
        assert (folder / "README.md").is_file()


def test_the_memory_calculator_in_03s_readme_runs():
    text = (ROOT / "03_grpo_trl_fsdp" / "README.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'python -c "\n(.*?)"\n```', text, flags=re.DOTALL)
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "03_grpo_trl_fsdp",
        env={"PYTHONPATH": "../scripts", "PATH": ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert "Qwen3-4B on 4 GPUs" in result.stdout, result.stderr
