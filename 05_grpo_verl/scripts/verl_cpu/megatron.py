"""verl's Megatron engine on CPU processes over gloo. Loaded only for recipes with model_engine: megatron.

The engine, the cut of tensors and layers, the schedule of the pipeline, optimizer, checkpoints and export are verl's,
Megatron's and mbridge's own. What they ask of CUDA alone is answered here for a CPU (REPLACED), and their layers are
Megatron's torch layers (megatron_layers). tests/test_verl_parallel.py leaves out each replacement in turn, and fails when
that is no longer missed.
"""

import functools
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.overrides import TorchFunctionMode


@dataclass(frozen=True)
class Replacement:
    """One name that means something else on a CPU."""

    where: str  # module, or module.Class
    name: str
    value: Any
    why: str


def _nothing(*args: Any, **kwargs: Any) -> None:
    pass


def _get_state(*args: Any, **kwargs: Any) -> torch.Tensor:
    return torch.get_rng_state()


ENGINE = "verl.workers.engine.megatron.transformer_impl"
REPLACED = (
    Replacement("torch.cuda", "current_device", lambda: torch.device("cpu"), "where Megatron makes its buffers"),
    Replacement("torch.cuda", "get_rng_state", _get_state, "a process's random state is that of its CPU"),
    Replacement("torch.cuda", "synchronize", _nothing, "a pipeline waits for its sends; gloo's have been waited for"),
    Replacement(ENGINE, "load_megatron_model_to_gpu", _nothing, "the weights are where they are needed"),
)  # fmt: skip
# Methods of the engine within which "cuda" means the CPU. A mode holds for one thread, and Ray runs methods in several.
ON_CPU = ("initialize", "forward_backward_batch", "optimizer_step")


class CudaMeansCpu(TorchFunctionMode):
    """Makes tensors on the CPU where code names "cuda" as their device."""

    def __torch_function__(self, function: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if function is torch.Tensor.cuda:
            return args[0]
        if function is torch.Tensor.type and len(args) == 1 and not kwargs:
            # Megatron's optimizer takes parameters of type torch.cuda.FloatTensor and its like, and no others.
            return function(*args).replace("torch.", "torch.cuda.")
        if "device" in kwargs:
            kwargs["device"] = _on_cpu(kwargs["device"])
        if function is torch.Tensor.to:
            args = (args[0], *(_on_cpu(value) for value in args[1:]))
        return function(*args, **kwargs)


def _on_cpu(device: Any) -> Any:
    """The CPU for a name or number of a GPU; anything else, such as a dtype, as it is."""
    named = isinstance(device, (str, torch.device)) and str(device).partition(":")[0] == "cuda"
    numbered = isinstance(device, int) and not isinstance(device, bool)
    return torch.device("cpu") if named or numbered else device


def register() -> None:
    """Make the engine `megatron` known to verl on a CPU."""
    for replacement in REPLACED:
        setattr(importlib.import_module(replacement.where), replacement.name, replacement.value)
    from verl.workers.engine.base import EngineRegistry
    from verl.workers.engine.megatron.transformer_impl import MegatronEngineWithLMHead

    import verl_cpu.megatron_layers  # noqa: F401  # after mbridge's own layers, in whose place they step

    class CpuMegatronEngine(MegatronEngineWithLMHead):
        """verl's own, in float32, which its configuration does not offer."""

        def __init__(self, model_config: Any, engine_config: Any, *args: Any, **kwargs: Any) -> None:
            object.__setattr__(engine_config, "dtype", "fp32")
            super().__init__(model_config, engine_config, *args, **kwargs)

    for name in ON_CPU:
        setattr(CpuMegatronEngine, name, _within_mode(getattr(CpuMegatronEngine, name)))
    EngineRegistry.register("language_model", "megatron", device="cuda", vendor="cpu")(CpuMegatronEngine)


def _within_mode(method: Callable) -> Callable:
    @functools.wraps(method)
    def run(*args: Any, **kwargs: Any) -> Any:
        with CudaMeansCpu():
            return method(*args, **kwargs)

    return run
