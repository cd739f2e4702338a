"""What would break with the newest releases: raise pins in a copy of the repository, and run the tests that notice.

    make drift ARGS=trl        (or: sagemaker, unsloth, verl; all of them without ARGS)

The copy is the last commit, and lies with its environments beside the others until the end. Each set's libraries go from
==x to >=x in every requirements file, so that the installer takes the newest that fit together; all else stays pinned.
Exit code 1: something failed, which is what a raised pin has to mend. Standard library only.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from local_sagemaker.environments.build import environments_folder

ROOT = Path(__file__).resolve().parents[1]
# What moves together, and the tests of the calls, the patches and the recipes that it may break.
LIBRARIES = {
    "trl": ("trl", "transformers", "peft", "accelerate", "datasets"),
    "sagemaker": ("sagemaker", "boto3", "sagemaker-mlflow", "mlflow", "mlflow-skinny"),
    "unsloth": ("unsloth", "unsloth_zoo", "transformers", "trl", "datasets", "bitsandbytes"),
    "verl": ("verl", "transformers", "ray", "tensordict", "TransferQueue"),
}
TESTS = {
    "trl": (
        "test_keywords.py",
        "test_compat.py",
        "test_compat_fsdp_adapters.py",
        "test_compat_fsdp_fused_head.py",
        "test_compat_fsdp_on_cpu.py",
        "test_script_arguments.py",
    ),
    "sagemaker": (
        "test_keywords.py",
        "test_compat.py",
        "test_local_sagemaker_compat.py",
        "test_local_sagemaker_calls.py",
    ),
    "unsloth": ("test_grpo_unsloth.py", "test_compat_bitsandbytes.py"),
    "verl": ("test_verl_cpu.py", "test_verl_recipes.py"),
}


def loosen(text: str, libraries: tuple[str, ...]) -> str:
    """A requirements file's text with `name==version` of these libraries as `name>=version`."""
    names = "|".join(re.escape(name) for name in libraries)
    return re.sub(rf"(?m)^((?:{names})(?:\[[^\]]*\])?)==", r"\1>=", text)


def drift(library: str) -> bool:
    """Raise the pins of the set in a copy, build its environments and run its tests; True if all passed."""
    cache = environments_folder()
    cache.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix=f"drift-{library}-", dir=cache))
    # uv's own cache is shared: what is there is linked, not downloaded again.
    variables = {**os.environ, "LOCAL_SAGEMAKER_CACHE": str(folder / "cache")}
    variables.setdefault("UV_CACHE_DIR", str(cache / "uv-cache"))
    variables.pop("PYTHONPATH", None)
    clone = folder / "clone"
    try:
        subprocess.run(["git", "clone", "--quiet", "--shared", str(ROOT), str(clone)], check=True)
        for path in clone.rglob("*requirements*.txt"):
            if "container" not in path.parts:  # of 05: a lock file
                path.write_text(
                    loosen(path.read_text(encoding="utf-8"), LIBRARIES[library]), encoding="utf-8"
                )
        built = subprocess.run(["make", f"PYTHON={sys.executable}", "setup-dev"], cwd=clone, env=variables)
        if built.returncode:
            print(f"{library}: the newest do not install together.")
            return False
        tests = [f"tests/{name}" for name in TESTS[library]]
        python = clone / ".venv-dev" / "bin" / "python"
        ended = subprocess.run([python, "-m", "pytest", "-q", "--tb=line", *tests], cwd=clone, env=variables)
        for environment in sorted((folder / "cache" / "environments").glob("*/environment.json")):
            print_versions(environment.parent, LIBRARIES[library])
        print(
            f"{library}: {'nothing drifted' if ended.returncode == 0 else 'drifted, see above'}", flush=True
        )
        return ended.returncode == 0
    finally:
        shutil.rmtree(folder)


def print_versions(environment: Path, libraries: tuple[str, ...]) -> None:
    """What an environment holds of the libraries, a line."""
    (packages,) = environment.glob("lib/python*/site-packages")
    wanted = {name.lower().replace("-", "_") for name in libraries}
    found = sorted(path.name.removesuffix(".dist-info") for path in packages.glob("*.dist-info"))
    versions = [name.replace("-", " ") for name in found if name.split("-")[0].lower() in wanted]
    if versions:
        print(f"{environment.name}: {', '.join(versions)}", flush=True)


def main(chosen: list[str]) -> int:
    unknown = [name for name in chosen if name not in LIBRARIES]
    if unknown:
        print(f"No set is named {unknown[0]}; there are {', '.join(LIBRARIES)}.", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # so that the copy is removed
    passed = [drift(library) for library in chosen or LIBRARIES]
    return 0 if all(passed) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
