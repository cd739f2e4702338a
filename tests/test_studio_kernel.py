"""`make studio` in a home that has nothing, as an attendee's first terminal in SageMaker Studio: docs/studio.md.

What stands for Studio is a clone of this tree, a fresh HOME, and a PATH with make, git, python3, bash and coreutils (and a C
compiler, which one package needs; Debian's build-essential, which the image has, brings it with make). The environment comes
out of this machine's cache if it is there; from nothing it takes minutes.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
from local_sagemaker.environments.build import environments_folder

ROOT = Path(__file__).resolve().parents[1]
COREUTILS = "basename cat cp dirname echo ls mkdir mv readlink rm sed sh touch uname".split()
COMPILER = "gcc cc as ld".split()
# What a JupyterLab of another environment does with a notebook's kernel: find it in the user's folder, start it.
START_KERNEL = """
import json, sys
from jupyter_client.manager import start_new_kernel
manager, client = start_new_kernel(kernel_name="rl-workshop", cwd=sys.argv[1])
said = []
try:
    for source in json.loads(sys.stdin.read()):
        reply = client.execute_interactive(
            source, output_hook=lambda message: said.append(message["content"].get("text", "")), timeout=120
        )
        assert reply["content"]["status"] == "ok", reply["content"]
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
print("".join(said))
"""


def interpreter() -> Path:
    """The Python behind the environment that runs the tests."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def first_cells(notebook: Path) -> list[str]:
    """A notebook's code up to and with the cell that checks the versions."""
    sources = []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "code":
            sources.append(cell.source)
            if "check_versions(" in cell.source:
                return sources
    raise AssertionError(f"{notebook} does not check versions")


def clone_of_the_tree(folder: Path) -> Path:
    """A clone with the changes that are not committed."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    listed = ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"]
    for name in filter(
        None, subprocess.run(listed, cwd=ROOT, capture_output=True, text=True).stdout.split("\0")
    ):
        (folder / name).unlink(missing_ok=True)
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def space(tmp_path_factory):
    """The folder of a space after `make studio`: its home (with the clone in it), and the environment of its shell."""
    folder = tmp_path_factory.mktemp("space")
    tools, home = folder / "bin", folder / "home"
    tools.mkdir()
    home.mkdir()
    for name in ("make", "git", "bash", *COREUTILS, *COMPILER):
        if path := shutil.which(name):
            (tools / name).symlink_to(path)
    # Not a link: an environment's python would lead to it.
    (tools / "python3").write_text(f'#!/bin/sh\nexec {interpreter()} "$@"\n')
    (tools / "python3").chmod(0o755)
    variables = {
        "HOME": str(home),
        "PATH": str(tools),
        "LOCAL_SAGEMAKER_CACHE": str(environments_folder().parent),
    }
    variables |= {
        name: value for name, value in os.environ.items() if name.startswith("PIP_")
    }  # where packages are
    clone = clone_of_the_tree(home / "workshop")
    made = subprocess.run(
        ["make", "studio"],
        cwd=clone,
        env=variables,
        capture_output=True,
        text=True,
        timeout=800,
        executable=tools / "make",
    )
    assert made.returncode == 0, made.stdout + made.stderr
    assert 'The kernel "RL workshop" is there.' in made.stdout
    return home, clone, variables


pytestmark = pytest.mark.job


def test_the_kernel_is_the_users_own_and_names_the_environment(space):
    home, clone, variables = space
    folder = home / ".local" / "share" / "jupyter" / "kernels" / "rl-workshop"
    specification = json.loads((folder / "kernel.json").read_text())
    assert specification["display_name"] == "RL workshop" and specification["language"] == "python"
    python = Path(specification["argv"][0])
    # The environment's own path: it stays right when the clone is moved or made anew.
    assert python == (clone / ".venv").resolve() / "bin" / "python" and python.is_file()
    listed = subprocess.run(
        [clone / ".venv" / "bin" / "jupyter", "kernelspec", "list", "--json"],
        env=variables,
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
    )
    specifications = json.loads(listed.stdout)["kernelspecs"]
    assert specifications["rl-workshop"]["spec"]["argv"][0] == str(python)
    assert (
        str(home) not in specifications["python3"]["resource_dir"]
    )  # JupyterLab's own kernel stays what it is


def test_nothing_else_is_left_in_the_home(space):
    home, clone, _ = space
    beside = {path.name for path in home.iterdir()} - {"workshop", ".local"}
    assert not beside & {".cache", ".conda", ".pip"}, beside
    assert [path.name for path in (home / ".local" / "share" / "jupyter" / "kernels").iterdir()] == [
        "rl-workshop"
    ]
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=clone, capture_output=True, text=True, check=True
    ).stdout
    expected = subprocess.run(
        ["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert set(changed.splitlines()) <= set(expected.splitlines())


@pytest.mark.parametrize("module", sorted(path.name for path in ROOT.glob("[0-9][0-9]_*")))
def test_a_notebooks_first_cells_run_in_it(space, module):
    _, clone, variables = space
    (notebook,) = (clone / module).glob("*.ipynb")
    started = subprocess.run(
        [sys.executable, "-c", START_KERNEL, clone / module],
        input=json.dumps(first_cells(notebook)),
        env=variables,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert started.returncode == 0, started.stderr
    assert "packages as tested" in started.stdout


@pytest.mark.parametrize("studio", [True, False])
def test_another_kernel_is_told_what_to_do(studio):
    code = "import sys; sys.path.insert(0, 'scripts')\nfrom workshop import check_versions\ncheck_versions('requirements.txt')"
    refused = subprocess.run(
        [interpreter(), "-I", "-S", "-c", code],  # without any site-packages
        cwd=ROOT,
        env={"PATH": ""} | ({"SAGEMAKER_APP_TYPE": "JupyterLab"} if studio else {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert refused.returncode != 0 and "sagemaker: missing" in refused.stderr
    assert (
        'run `make studio` in the workshop\'s folder, and choose the kernel "RL workshop"' in refused.stderr
    ) is studio
    here = f'!cd "{ROOT}" && "{interpreter()}" -m pip install -r requirements.txt'
    assert (here in refused.stderr) is not studio


def test_the_notebooks_ask_for_it_and_git_sees_no_change(space):
    _, clone, variables = space
    notebooks = sorted(clone.glob("[0-9][0-9]_*/*.ipynb"))
    assert len(notebooks) == 5
    for notebook in notebooks:
        specification = nbformat.read(notebook, as_version=4).metadata["kernelspec"]
        assert (specification["name"], specification["display_name"]) == ("rl-workshop", "RL workshop")

    def changed(folder: Path) -> str:
        listed = ["git", "diff", "--name-only", "--", "*.ipynb"]
        return subprocess.run(
            listed, cwd=folder, env=variables, capture_output=True, text=True, check=True
        ).stdout

    assert changed(clone) == changed(ROOT)
    committed = subprocess.run(
        ["git", "show", f"HEAD:{notebooks[0].relative_to(clone)}"],
        cwd=clone,
        env=variables,
        capture_output=True,
        text=True,
    ).stdout
    assert '"name": "python3"' in committed
