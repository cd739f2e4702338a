"""The GPU image of 05_grpo_verl: its pins fit together, and the script that pushes it never replaces an image.

The pins are resolved from the packages' metadata; no wheel is downloaded. To change a version, edit requirements.in and
run the command of `resolve` below with `--upgrade`.
"""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from harness import answer_of

CONTAINER = Path(__file__).resolve().parents[1] / "05_grpo_verl" / "container"
NO_NETWORK = re.compile(r"failed to fetch|dns error|error sending request|timed out", re.IGNORECASE)


def resolve(requirements: str, folder: Path, *options: str) -> subprocess.CompletedProcess:
    """`uv pip compile` for Linux and Python 3.12, whatever this machine is."""
    # uv keeps the versions that it finds here, where they still fit.
    shutil.copy(CONTAINER / "requirements.txt", folder / "requirements.txt")
    (folder / "requirements.in").write_text(requirements)
    configured = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True
    )
    index = ["--index-url", configured.stdout.strip()] if configured.returncode == 0 else []
    done = subprocess.run(
        [sys.executable, "-m", "uv", "pip", "compile", "requirements.in", "-o", "requirements.txt", "-q",
         "--python-version", "3.12", "--python-platform", "x86_64-unknown-linux-gnu", "--no-header", "--no-annotate",
         *index, *options],
        cwd=folder, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    if done.returncode and NO_NETWORK.search(done.stderr):
        pytest.skip(f"the package index cannot be reached: {done.stderr.strip().splitlines()[-1]}")
    return done


def pins(path: Path) -> dict[str, str]:
    lines = [line.partition("#")[0].strip() for line in path.read_text().splitlines()]
    return dict(line.split("==") for line in lines if line)


@pytest.mark.job
@pytest.mark.timeout(300)
def test_the_lock_file_is_what_the_requirements_resolve_to(tmp_path):
    done = resolve((CONTAINER / "requirements.in").read_text(), tmp_path)
    assert done.returncode == 0, done.stderr
    assert pins(tmp_path / "requirements.txt") == pins(CONTAINER / "requirements.txt")


@pytest.mark.job
@pytest.mark.timeout(300)
def test_pins_that_do_not_fit_are_noticed(tmp_path):
    done = resolve((CONTAINER / "requirements.in").read_text() + "transformers==5.23.0\n", tmp_path)
    assert done.returncode != 0 and "transformers" in done.stderr


@pytest.mark.job
@pytest.mark.timeout(300)
def test_packages_to_compile_exist_and_are_pinned(tmp_path):
    built = CONTAINER / "requirements-built.txt"
    assert resolve(built.read_text(), tmp_path, "--no-deps").returncode == 0
    assert not pins(built).keys() & pins(CONTAINER / "requirements.txt").keys()


VERL_REQUIRES = """
import importlib.metadata, json
from packaging.requirements import Requirement
found, extras, seen = {}, ["", "vllm"], set()
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
    locked = {name.lower(): version for name, version in pins(CONTAINER / "requirements.txt").items()}
    assert locked["verl"] == verl["version"], "the job's verl is another one than the image's"
    requires = {name: SpecifierSet(",".join(filter(None, found))) for name, found in verl["requires"].items()}
    exact = {name for name, wanted in requires.items() if any(one.operator == "==" for one in wanted)}
    assert {"vllm", "torch", "transformers"} <= exact
    assert [
        f"{name}{wanted}, not {locked.get(name)}"
        for name, wanted in requires.items()
        if locked.get(name) not in wanted
    ] == []


def test_image_is_built_from_the_lock_files_alone():
    text = (CONTAINER / "Dockerfile").read_text()
    assert "git clone" not in text and ":latest" not in text
    installs = re.findall(r"pip install (.*)", text)
    assert len(installs) == 2 and all("--no-deps" in line for line in installs)


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

    def run(*arguments: str, path: str = f"{tools}:/usr/bin:/bin", pushed: str = ""):
        calls.write_text("")
        done = subprocess.run(
            ["/bin/bash", str(CONTAINER / "build_and_push.sh"), *arguments],
            env={"PATH": path, "CALLS": str(calls), "PUSHED": pushed},
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
