"""The READMEs are a map: each package's lists every file in it, and every link leads somewhere."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from job.recipe import read_recipe
from workshop.session.machines import Machine, read_machine, read_machines

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
        and not path.name.startswith(("my_", "lesson_"))  # a learner's own, and what notebooks write
        and (path.name != "__init__.py" or path.parent == folder)
    ]
    # An __init__.py that says only what its folder is for needs no line of its own.
    code = re.compile(r"^(from|import) ", re.MULTILINE)
    files = [path for path in files if path.name != "__init__.py" or code.search(path.read_text())]
    in_plugins = [path for path in files if path.parent.name == "verl_cpu"]  # listed as one
    missing = [path.name for path in files if path.name not in listed and path not in in_plugins]
    assert missing == []


def test_every_command_and_package_of_scripts_is_listed():
    listed = named(ROOT / "scripts" / "README.md")
    commands = [path.name for path in (ROOT / "scripts").glob("*.py")]
    packages = [path.parent.name for path in (ROOT / "scripts").glob("*/*") if path.suffix == ".py"]
    assert [name for name in {*commands, *packages} if f"]({name}" not in listed] == []


@pytest.mark.parametrize("readme", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_link_leads_somewhere(readme):
    for target in re.findall(r"\]\(([^)#\s]+)", readme.read_text(encoding="utf-8")):
        # On GitHub, ../../actions in the top README is a page of the repository itself.
        if "://" not in target and not (readme.parent == ROOT and target.startswith("../../actions/")):
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


def machine_table(module: Path) -> str:
    """The README's table of what each recipe runs on, as machines.yaml and the recipes have it."""
    machines = {
        name: read_machine(module / "machines.yaml", name) for name in read_machines(module / "machines.yaml")
    }
    extra = {"accelerate_config": "launcher file", "pair_source": "pairs"}
    extra = {key: title for key, title in extra.items() if getattr(machines["tiny"], key)}
    titles = [
        "recipe",
        "instances",
        "processes on each",
        *extra.values(),
        "requirements",
        "image",
        "problems",
    ]
    lines = [[*titles, "at most"], ["---"] * (len(titles) + 1)]
    for name, machine in machines.items():
        image = (
            "`container/`"
            if machine.own_image
            else f"`{machine.image}`"
            if machine.image
            else "PyTorch 2.10.0"
        )
        cells = [
            f"`{name}`",
            f"{machine.instance_count} x `{machine.instance_type}`",
            f"{machine.process_count}",
        ]
        cells += [f"`{getattr(machine, key)}`" for key in extra]
        cells += [f"`{machine.requirements}`" if machine.requirements else "none", image, f"`{machine.task}`"]
        lines.append([*cells, time_of(module, name, machine)])
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def time_of(module: Path, name: str, machine: Machine) -> str:
    """The cap of a job, and what it leaves for a step if nothing else took time."""
    recipe = read_recipe(module / "scripts" / "recipes" / f"{name}.yaml")
    steps = recipe.get("max_steps") or recipe.get("trainer", {}).get("total_training_steps")
    return f"{machine.max_hours} h" + (
        f", {machine.max_seconds // steps} s a step" if steps and steps >= 100 else ""
    )


@pytest.mark.parametrize("module", MODULES, ids=lambda folder: folder.name)
def test_the_readme_names_the_machines_of_machines_yaml(module):
    """When this fails, put the table that it shows into the README."""
    assert machine_table(module) in (module / "README.md").read_text(encoding="utf-8"), machine_table(module)


@pytest.mark.parametrize("module", MODULES, ids=lambda folder: folder.name)
def test_the_readme_says_what_to_run_first_on_aws(module):
    text = (module / "README.md").read_text(encoding="utf-8")
    runs = re.findall(rf"run_notebooks.py {module.name[:2]} -p mode=sagemaker -p recipe=(\w+)", text)
    assert runs[:2] == ["smoke", "smoke_gpu"]
    assert set(runs) <= set(read_machines(module / "machines.yaml"))
    assert "We have run none of them on AWS." in text


@pytest.mark.parametrize("module", MODULES, ids=lambda folder: folder.name)
def test_every_recipe_is_in_the_readmes_first_table(module):
    text = (module / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## Which recipe on what") :]
    first = section[: section.index(machine_table(module))]
    missing = [name for name in read_machines(module / "machines.yaml") if f"| `{name}` |" not in first]
    assert missing == []
