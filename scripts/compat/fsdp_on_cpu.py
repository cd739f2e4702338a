"""FSDP2 on CPU processes, so that sharding can be learned, and tested, without a GPU.

torch shards a model over CPU processes as it does over GPUs (gloo takes the place of NCCL), but accelerate up to 1.15
chooses FSDP only where it finds an accelerator: in `AcceleratorState.__init__` the type MULTI_CPU has no branch that
looks at the FSDP plugin, which is dropped without a word. `enable_fsdp_on_cpu` adds that branch. On GPUs it changes
nothing. A test fails as soon as accelerate no longer needs it.
"""

import functools
from typing import Any

from accelerate.state import AcceleratorState, PartialState
from accelerate.utils import DistributedType


def enable_fsdp_on_cpu() -> None:
    """Lets accelerate use FSDP in CPU processes too. Call it before the trainer is made; calling it twice is fine.

    The training arguments ask for FSDP as usual: `fsdp: true` and `fsdp_config` with version 2.
    """
    if not hasattr(AcceleratorState.__init__, "__wrapped__"):
        AcceleratorState.__init__ = _with_fsdp_on_cpu(AcceleratorState.__init__)


def _with_fsdp_on_cpu(original: Any) -> Any:
    @functools.wraps(original)
    def initialise(self: AcceleratorState, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
        original(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
        if fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            # What the branch for GPUs does, after which both singletons agree.
            if self._mixed_precision != "no":
                fsdp_plugin.set_mixed_precision(self._mixed_precision)
            self.fsdp_plugin = fsdp_plugin
            self.distributed_type = DistributedType.FSDP
            PartialState._shared_state["distributed_type"] = DistributedType.FSDP

    return initialise
