"""verl on CPU processes, through verl's own extension points, so that it can be learned without a GPU.

verl has no CPU backend. It asks a *platform* for everything that depends on the device, and a *rollout* for
completions; both can be registered from outside (VERL_USE_EXTERNAL_MODULES). This package registers a platform for CPU
processes and a rollout on transformers' generate(), in the place of vLLM. Trainer, advantage, loss, FSDP2, weight
transfer and checkpoints are verl's own. A "GPU" is then a slot that Ray counts. On GPUs nothing of this is loaded.

Three variables in every process: VERL_USE_EXTERNAL_MODULES=verl_cpu, VERL_PLATFORM=cpu, and VERL_ENGINE_DEVICE=cuda,
since the FSDP engine is registered for "cuda" and "npu" only, although it does nothing that a CPU cannot.

tests/test_verl_cpu.py fails as soon as verl no longer needs one of these things.
"""

from verl_cpu import platform, rollout

platform.register()
rollout.register()
