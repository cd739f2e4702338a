"""What stands inside the settings whose type says no more than text or mapping: lists in a text, and what a mapping's keys take.

Without this the library says so in the job, and of its own parts: of a JSON text that it could not read, or of a missing GPU.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from job.ranges import SAMPLING

# The only mapping that may be the name of a JSON file instead. (transformers takes one for accelerator_config and fsdp_config
# too; a recipe holds what would stand there.)
FILES = ("deepspeed",)
# transformers.training_args.FSDPOption; those of FSDP1 alone
_SHARDING = ("full_shard", "shard_grad_op", "offload", "auto_wrap")
_SHARDING_OF_1 = ("no_shard", "hybrid_shard", "hybrid_shard_zero2")
# accelerate.utils.constants: FSDP_AUTO_WRAP_POLICY, FSDP_BACKWARD_PREFETCH, FSDP2_STATE_DICT_TYPE, FSDP_STATE_DICT_TYPE
_FSDP_WORDS = {
    "version": ("1", "2"),
    "auto_wrap_policy": ("TRANSFORMER_BASED_WRAP", "SIZE_BASED_WRAP", "NO_WRAP"),
    "backward_prefetch": ("BACKWARD_PRE", "BACKWARD_POST", "NO_PREFETCH"),
}
_STATE_DICTS = {
    "1": ("FULL_STATE_DICT", "LOCAL_STATE_DICT", "SHARDED_STATE_DICT"),
    "2": ("SHARDED_STATE_DICT", "FULL_STATE_DICT"),
}
# transformers.training_args.str_to_bool
_YES_OR_NO = ("y", "yes", "t", "true", "on", "1", "n", "no", "f", "false", "off", "0")
_SWITCHES = ("activation_checkpointing", "cpu_ram_efficient_loading")


def read_json(text: str) -> Any:
    """What a JSON text holds. Raises ValueError: it is none, or is nested too deep."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("too many brackets") from error


def form_problems(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(setting, what is wrong inside it, as the end of a sentence), of settings whose kinds of value are right."""
    options = settings.get("optim_args")
    if isinstance(options, str) and options and not re.fullmatch(r"[^,=]+=[^,=]+(,[^,=]+=[^,=]+)*", options):
        yield "optim_args", f"must be written as name=value,name=value, not {_shown(options)}"
    for name, given in _mapping(settings, "generation_kwargs").items():
        if name in SAMPLING and isinstance(given, int | float):
            if problem := SAMPLING[name].problem([given]):
                yield "generation_kwargs", f": {name} {problem}"
    losses, weights = (_list(settings.get(key)) for key in ("loss_type", "loss_weights"))
    if losses == []:
        yield "loss_type", "names no loss: there would be nothing to learn from"
    elif losses and weights and len(weights) != len(losses):
        yield (
            "loss_weights",
            f"has {len(weights)} numbers, and loss_type has {len(losses)} losses: give each its own",
        )
    if _is_true(settings.get("sync_ref_model")) and _is_true(settings.get("precompute_ref_log_probs")):
        yield (
            "sync_ref_model",
            "moves the reference, whose log-probabilities precompute_ref_log_probs computes once: set that to false",
        )
    last = settings.get("max_steps")
    beyond = [step for step in _list(settings.get("record_steps")) or [] if _is_beyond(step, last)]
    if beyond:
        yield "record_steps", f"names step {beyond[0]}, and training ends at max_steps, {last}"
    sharded = settings.get("fsdp") not in (None, "", "null", "false", False)
    if sharded and settings.get("quantization") == "nf4" and _is_true(settings.get("use_vllm")):
        # peft.tuners.lora.bnb: 'DTensor' object has no attribute 'quant_state'; of a base that is not packed it works
        yield (
            "use_vllm",
            "needs the adapters merged into the base, which a base in 4 bits cannot take while it is sharded: set use_vllm to "
            "false, quantization to null or fsdp to null",
        )
    yield from _sharding_problems(settings)


def _sharding_problems(settings: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    config = _mapping(settings, "fsdp_config")
    version = str(config.get("version", 2))
    taken = _FSDP_WORDS | {"state_dict_type": _STATE_DICTS.get(version, _STATE_DICTS["2"])}
    for key, words in taken.items():
        if key in config and str(config[key]) not in words:
            yield "fsdp_config", f": {key} must be one of {', '.join(words)}, not {_shown(config[key])}"
    for key in _SWITCHES:
        if key in config and str(config[key]).lower() not in _YES_OR_NO:
            yield "fsdp_config", f": {key} must be true or false, not {_shown(config[key])}"
    names = config.get("transformer_layer_cls_to_wrap")
    if names is not None and not (
        isinstance(names, str) or (isinstance(names, list) and all(isinstance(name, str) for name in names))
    ):
        yield (
            "fsdp_config",
            f": transformer_layer_cls_to_wrap must be a list of classes, not {_shown(names)}",
        )
    given = settings.get("fsdp")
    for word in given.split() if isinstance(given, str) and given != "null" else ():
        known = _SHARDING + (_SHARDING_OF_1 if version == "1" else ())
        if word not in known:
            of_1 = " (which FSDP1 alone has)" if word in _SHARDING_OF_1 else ""
            yield "fsdp", f"must be of {', '.join(known)}, not {_shown(word)}{of_1}"


def _shown(value: Any) -> str:
    return json.dumps(value, default=str)


def _is_true(value: Any) -> bool:
    return str(value).lower() == "true"


def _is_beyond(step: Any, last: Any) -> bool:
    """Whether a step is after the last one, where both are numbers or spell one; max_steps -1 says nothing of the last."""
    try:
        return int(step) > int(last) > 0
    except (TypeError, ValueError):
        return False


def _list(value: Any) -> list[Any] | None:
    """The list that a value is, or that its JSON text holds; one text alone is a list of one; None is none."""
    try:
        found = read_json(value) if isinstance(value, str) and value[:1] == "[" else value
    except ValueError:
        return None  # said by settings.problem_with
    return found if found is None or isinstance(found, list) else [found]


def _mapping(settings: Mapping[str, Any], key: str) -> dict[str, Any]:
    """A setting that is a mapping, or a JSON text that holds one; else an empty one."""
    value = settings.get(key)
    try:
        found = read_json(value) if isinstance(value, str) else value
    except ValueError:
        return {}  # said by settings.problem_with
    return found if isinstance(found, dict) else {}
