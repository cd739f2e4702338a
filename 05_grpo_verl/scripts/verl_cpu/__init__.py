"""verl on CPU processes, through verl's own extension points, so that it can be learned without a GPU.

verl has no CPU backend. It asks a *platform* for everything that depends on the device, and a *rollout* for
completions; both can be registered from outside (VERL_USE_EXTERNAL_MODULES). This package registers a platform for CPU
processes, a rollout on transformers' generate() in the place of vLLM, and an attention for packed sequences in the place of
flash attention. Trainer, advantage, loss, FSDP2, Ulysses, weight transfer and checkpoints are verl's own, and so is the
Megatron engine (`megatron`). A "GPU" is then a slot that Ray counts. On GPUs nothing of this is loaded.

Variables in every process: VERL_USE_EXTERNAL_MODULES=verl_cpu, VERL_PLATFORM=cpu, and VERL_ENGINE_DEVICE=cuda,
since the FSDP engine is registered for "cuda" and "npu" only, although it does nothing that a CPU cannot. With
VERL_CPU_ENGINE=megatron Megatron, which takes seconds to import, is loaded besides, and otherwise it is kept out.

tests/test_verl_cpu.py and test_verl_parallel.py fail as soon as verl no longer needs one of these things.
"""

import os
import sys

if os.environ.get("VERL_CPU_ENGINE") != "megatron":
    # verl imports what it finds, in every process. None refuses, as if it were not there.
    sys.modules["megatron"] = None

import verl  # noqa: F401  # which imports this package: whichever comes first, the other is there when it is needed

from verl_cpu import packed, platform, rollout

packed.register()
platform.register()
rollout.register()
if os.environ.get("VERL_CPU_ENGINE") == "megatron":
    from verl_cpu import megatron

    megatron.register()
