"""The GPU image of 05_grpo_verl: its pins fit together and leave the base's torch alone, and no image is ever replaced.

The pins are resolved from the packages' metadata; no wheel is downloaded. To change a version, edit requirements.in and
run the command in the folder's README.
"""

import ast
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from harness import answer_of
from resolution import pins, resolve
from workshop.checks.images import Image, find_image

CONTAINER = Path(__file__).resolve().parents[1] / "05_grpo_verl" / "container"
PYTHON = "3.12"  # of the base image


def lock(requirements: str, folder: Path) -> subprocess.CompletedProcess:
    """Resolves requirements into requirements.txt; the versions of the lock file stay where they still fit."""
    shutil.copy(CONTAINER / "requirements.txt", folder / "requirements.txt")
    (folder / "requirements.in").write_text(requirements)
    return resolve(folder / "requirements.in", folder / "requirements.txt", python=PYTHON)


@pytest.mark.job
@pytest.mark.timeout(300)
def test_the_lock_file_is_what_the_requirements_resolve_to(tmp_path):
    done = lock((CONTAINER / "requirements.in").read_text(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert pins(tmp_path / "requirements.txt") == pins(CONTAINER / "requirements.txt")


@pytest.mark.job
@pytest.mark.timeout(300)
def test_pins_that_do_not_fit_are_noticed(tmp_path):
    done = lock((CONTAINER / "requirements.in").read_text() + "transformers==5.23.0\n", tmp_path)
    assert done.returncode != 0 and "transformers" in done.stderr


VERL_REQUIRES = """
import importlib.metadata, json
from packaging.requirements import Requirement
found, extras, seen = {}, ["", "vllm", "flash-attn-cu130torch211"], set()
while extras:
    extra = extras.pop()
    seen.add(extra)
    for line in importlib.metadata.requires("verl"):
        needed = Requirement(line)
        if needed.marker and not needed.marker.evaluate({"extra": extra}):
            continue
        if needed.name == "verl":  # an extra that is made of others
            extras += needed.extras - seen
        else:
            found.setdefault(needed.name.lower().replace("_", "-"), []).append(str(needed.specifier))
print("ANSWER " + json.dumps({"version": importlib.metadata.version("verl"), "requires": found}))
"""


@pytest.mark.job
@pytest.mark.timeout(900)  # the environment may have to be built first
def test_versions_are_those_that_verls_own_metadata_pins():
    from packaging.specifiers import SpecifierSet

    verl = answer_of(VERL_REQUIRES, scripts=CONTAINER.parent / "scripts")
    locked = pins(CONTAINER / "requirements.txt") | base_image().compiled
    assert locked["verl"] == verl["version"], "the job's verl is another one than the image's"
    requires = {name: SpecifierSet(",".join(filter(None, found))) for name, found in verl["requires"].items()}
    exact = {name for name, wanted in requires.items() if any(one.operator == "==" for one in wanted)}
    assert {"vllm", "torch", "transformers", "flash-attn"} <= exact
    assert [
        f"{name}{wanted}, not {locked.get(name)}"
        for name, wanted in requires.items()
        if locked.get(name) not in wanted
    ] == []


def base_image() -> Image:
    """What the Dockerfile begins with, as images.json knows it."""
    (name,) = re.findall(r"^FROM \$\{REGISTRY\}/(\S+)", (CONTAINER / "Dockerfile").read_text(), re.MULTILINE)
    image = find_image(f"registry/{name}")
    assert image, f"images.json does not have {name}"
    return image


def test_what_the_base_has_compiled_stays_usable():
    """pip leaves alone what is there in the version of the lock file, so torch stays, and nothing compiled is replaced."""
    image, locked = base_image(), pins(CONTAINER / "requirements.txt")
    held = {
        "torch": image.torch,
        "nvidia-cudnn-cu13": image.also["cuDNN"],
        "nvidia-nccl-cu13": image.also["NCCL"],
    }
    held |= {name: image.also[name] for name in ("torchvision", "torchaudio", "triton")}
    assert {name: locked[name] for name in held} == held
    assert image.compiled.keys() == {"flash-attn", "transformer-engine"}
    assert not [
        name for name in locked if name.startswith(("flash-attn", "transformer-engine", "megatron-bridge"))
    ]
    assert (image.python, image.device) == (PYTHON, "gpu")


def test_image_is_built_from_the_lock_file_alone():
    text = (CONTAINER / "Dockerfile").read_text()
    assert "git clone" not in text and ":latest" not in text
    (install,) = re.findall(r"pip install (.*)", text)
    assert "--no-deps" in install


def test_the_image_imports_what_recipes_import_before_it_is_pushed():
    (code,) = re.findall(r'python -c "\\\n(.*?)"\n', (CONTAINER / "Dockerfile").read_text(), re.DOTALL)
    tree = ast.parse(code.replace("\\\n", ""))  # as Docker joins the lines
    imported = {alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names}
    engines = {"vllm", "verl", "ray", "mbridge", "megatron.core"}
    # What model_engine and vanilla_mbridge of a recipe choose: verl imports these only when a job asks for them.
    engines |= {"verl.workers.engine.fsdp", "verl.workers.engine.megatron", "verl.models.mcore.mbridge"}
    assert imported == engines | {"torch", "flash_attn", "transformer_engine.pytorch"}


AWS = """#!/bin/sh
echo "aws $*" >> "$CALLS"
case "$*" in
  "sts get-caller-identity"*) echo 111122223333 ;;
  "ecr describe-images"*) test -n "$PUSHED" ;;
  "ecr describe-repositories"*) exit 254 ;;
  "ecr get-login-password"*) echo secret-password ;;
esac
"""
DOCKER = '#!/bin/sh\necho "docker $*" >> "$CALLS"\ncat > /dev/null\n'


@pytest.fixture
def run_script(tmp_path):
    """Runs build_and_push.sh with stand-ins for docker and aws, of which there is no account here."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for name, text in {"aws": AWS, "docker": DOCKER}.items():
        (tools / name).write_text(text)
        (tools / name).chmod(0o755)
    calls = tmp_path / "calls"

    def run(*arguments: str, path: str = f"{tools}:/usr/bin:/bin", pushed: str = "", **more: str):
        calls.write_text("")
        done = subprocess.run(
            ["/bin/bash", str(CONTAINER / "build_and_push.sh"), *arguments],
            env={"PATH": path, "CALLS": str(calls), "PUSHED": pushed, **more},
            capture_output=True, text=True, timeout=30, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        return done, calls.read_text()

    return run


def test_it_builds_pushes_and_prints_the_uri(run_script):
    done, calls = run_script("eu-west-1")
    assert done.returncode == 0, done.stderr
    uri = done.stdout.strip()
    own = r"111122223333\.dkr\.ecr\.eu-west-1\.amazonaws\.com"
    assert re.fullmatch(own + r"/rl-workshop-verl:verl-0\.9\.1-[0-9a-f]{12}", uri)
    order = [
        calls.index(part)
        for part in ("create-repository", "docker login", "docker build", f"docker push {uri}")
    ]
    assert order == sorted(order)
    assert "--image-tag-mutability IMMUTABLE" in calls and "REGISTRY=763104351884.dkr.ecr.eu-west-1" in calls
    assert "secret-password" not in calls + done.stdout + done.stderr


def test_elsewhere_aws_has_other_registries(run_script):
    base = "727897471807.dkr.ecr.cn-north-1.amazonaws.com.cn"
    done, calls = run_script("cn-north-1", BASE_REGISTRY=base)
    assert done.stdout.startswith("111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn/rl-workshop-verl:")
    assert f"REGISTRY={base} " in calls and calls.count("docker login") == 2


def test_an_image_that_is_there_is_not_built_again(run_script):
    done, calls = run_script("eu-west-1", pushed="yes")
    assert done.returncode == 0 and "verl-0.9.1-" in done.stdout
    assert "docker" not in calls and "create" not in calls


def test_wrong_calls_are_refused(run_script, tmp_path):
    done, calls = run_script()
    assert done.returncode != 0 and "usage: build_and_push.sh REGION" in done.stderr and not calls
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "dirname").symlink_to(shutil.which("dirname"))
    done, _ = run_script("eu-west-1", path=str(bare))
    assert done.returncode == 2 and "docker is not installed" in done.stderr
