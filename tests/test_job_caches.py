"""In a training job, what libraries download and compile goes below the folder of temporary files, on the large disk."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from harness import ROOT
from job.caches import FOLDERS, use_large_disk
from job_variables import job_variables

SCRIPTS = [
    "01_dpo_trl/pairs_sampled",
    "01_dpo_trl/train",
    "02_grpo_trl_accelerate/train",
    "02_grpo_trl_accelerate/train_reward_model",
    "03_grpo_trl_fsdp/train",
]
LIBRARIES = {
    "torch",
    "transformers",
    "datasets",
    "huggingface_hub",
    "peft",
    "trl",
    "mlflow",
    "wandb",
    "matplotlib",
}


def test_only_in_a_job_and_only_what_nobody_has_set(monkeypatch, tmp_path):
    for name in (*FOLDERS, "TRAINING_JOB_NAME"):
        monkeypatch.setenv(name, "")  # or what is set below would stay
        monkeypatch.delenv(name)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = dict(os.environ)
    use_large_disk()
    assert dict(os.environ) == before
    monkeypatch.setenv("TRAINING_JOB_NAME", "grpo-1")
    monkeypatch.setenv("TRITON_HOME", "/elsewhere")
    use_large_disk()
    assert os.environ["XDG_CACHE_HOME"] == f"{tmp_path}/cache"
    assert os.environ["TRITON_HOME"] == "/elsewhere"
    assert not (tmp_path / "cache").exists(), "nothing is made before it is needed"


# Ends the process where the first library is about to be imported.
FIRST_LIBRARY = f"""
import os, sys
class Finder:
    def find_spec(name, *_):
        if name in {LIBRARIES}:
            print("CACHE", os.environ.get("XDG_CACHE_HOME"), flush=True)
            os._exit(0)
sys.meta_path.insert(0, Finder)
"""


def run_import(script: str, before: str, after: str, folder: Path) -> str:
    """What a process of a job prints that imports the script."""
    module, _, name = script.partition("/")
    environment = job_variables(
        ROOT / module / "scripts", TRAINING_JOB_NAME="job", TMPDIR=str(folder), HOME=str(folder / "home")
    )
    for variable in ("HF_HOME", "XDG_CACHE_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE"):
        environment.pop(variable, None)
    done = subprocess.run(
        [sys.executable, "-c", f"{before}\nimport {name}\n{after}"],
        env=environment,
        capture_output=True,
        text=True,
        timeout=250,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS)
def test_each_script_names_the_folder_before_a_library_looks(script, tmp_path):
    assert run_import(script, FIRST_LIBRARY, "", tmp_path) == f"CACHE {tmp_path}/cache\n"


@pytest.mark.job
@pytest.mark.timeout(300)
def test_the_hub_takes_the_folder(tmp_path):
    shown = "from huggingface_hub import constants\nprint('CACHE', constants.HF_HUB_CACHE)"
    assert f"CACHE {tmp_path}/cache/huggingface/hub" in run_import(SCRIPTS[1], "", shown, tmp_path)
    assert not (tmp_path / "home" / ".cache" / "huggingface").exists()
