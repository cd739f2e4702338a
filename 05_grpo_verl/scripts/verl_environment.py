"""The environment that verl and its libraries read, in every process, when they are imported."""

from pathlib import Path

VARIABLES = {"PYTHONPATH": str(Path(__file__).resolve().parent), "TQDM_DISABLE": "1", "TQ_NUM_THREADS": "1"}
EXTERNAL = "VERL_USE_EXTERNAL_MODULES"
# Why the engines of a CPU have the name of a GPU: see verl_cpu.
ON_CPU = {EXTERNAL: "verl_hub,verl_cpu", "VERL_PLATFORM": "cpu", "VERL_ENGINE_DEVICE": "cuda"}
# Megatron compiles some small functions: on a CPU with a C++ compiler, for longer than a tiny job trains.
ON_CPU |= {"TORCH_COMPILE_DISABLE": "1"}


def environment(device: str, engine: str) -> dict[str, str]:
    """The variables of a job: `device` is that of its recipe (cpu or gpu), `engine` its model_engine (dp or megatron)."""
    if device == "cpu":
        return VARIABLES | ON_CPU | {"VERL_CPU_ENGINE": engine}
    return VARIABLES | {EXTERNAL: "verl_hub"}
