"""The CPU as a platform of verl: what verl asks of torch.cuda, answered for a CPU process."""

import functools
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import verl.utils.distributed
from verl.plugin.platform import PlatformBase, PlatformRegistry


def register() -> None:
    """Make `VERL_PLATFORM=cpu` known, and let its processes talk over gloo."""
    PlatformRegistry.register(platform="cpu")(CpuPlatform)
    # verl asks torch for the backends "cpu:gloo,<device>:<backend>". With a CPU as the device that names the CPU twice,
    # which torch refuses ("Duplicate device type cpu"), so the default becomes plain gloo.
    original = verl.utils.distributed.initialize_global_process_group_ray
    if not hasattr(original, "__wrapped__"):

        @functools.wraps(original)
        def over_gloo(timeout_second: int | None = None, backend: str | None = None) -> None:
            original(timeout_second=timeout_second, backend=backend or "gloo")

        verl.utils.distributed.initialize_global_process_group_ray = over_gloo


def _device_module() -> types.ModuleType:
    """torch.cpu, with the questions about memory and random state that torch.cuda answers besides."""
    module = types.ModuleType("verl_cpu.device")
    vars(module).update({name: value for name, value in vars(torch.cpu).items() if not name.startswith("__")})
    for name in ("memory_allocated", "memory_reserved", "max_memory_allocated", "max_memory_reserved"):
        setattr(module, name, lambda *args, **kwargs: 0)  # a process's memory is in summary.json instead
    for name in ("empty_cache", "ipc_collect", "reset_peak_memory_stats", "set_per_process_memory_fraction"):
        setattr(module, name, lambda *args, **kwargs: None)
    module.mem_get_info = lambda *args, **kwargs: (0, 0)
    module.get_rng_state = lambda *args, **kwargs: torch.get_rng_state()
    module.set_rng_state = lambda state, *args, **kwargs: torch.set_rng_state(state)
    module.get_device_name = lambda *args, **kwargs: "cpu"
    return module


class CpuPlatform(PlatformBase):
    """A CPU process as verl's device. Ray counts slots named GPU, as on a GPU host, so that placement is the same."""

    device_name = "cpu"
    vendor_name = "cpu"
    device_module = _device_module()

    def is_available(self) -> bool:
        return True

    def current_device(self) -> str:
        return "cpu"

    def device_count(self) -> int:
        return 1

    def set_device(self, device_index: int) -> None:
        pass

    def synchronize(self, device_index: int | None = None) -> None:
        pass

    def manual_seed(self, seed: int) -> None:
        torch.manual_seed(seed)

    def manual_seed_all(self, seed: int) -> None:
        torch.manual_seed(seed)

    def set_allocator_settings(self, settings: str) -> None:
        pass

    def empty_cache(self) -> None:
        pass

    def get_device_capability(self, device_index: int = 0) -> tuple[None, None]:
        return None, None

    def communication_backend_name(self) -> str:
        return "gloo"

    def visible_devices_envvar(self) -> str:
        return "CUDA_VISIBLE_DEVICES"

    @contextmanager
    def nvtx_range(self, msg: str) -> Iterator[None]:
        yield

    def profiler_start(self) -> None:
        pass

    def profiler_stop(self) -> None:
        pass

    def ray_resource_name(self) -> str:
        return "GPU"

    def ray_noset_envvars(self) -> list[str]:
        return ["RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES"]

    def is_ipc_supported(self) -> bool:
        return False

    def cudart(self) -> Any:
        return None
