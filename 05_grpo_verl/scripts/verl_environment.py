"""The environment that verl and its libraries read, in every process, when they are imported."""

from pathlib import Path

VARIABLES = {"PYTHONPATH": str(Path(__file__).resolve().parent), "TQDM_DISABLE": "1", "TQ_NUM_THREADS": "1"}
EXTERNAL = "VERL_USE_EXTERNAL_MODULES"
ON_CPU = {
    EXTERNAL: "verl_hub,verl_cpu",
    "VERL_PLATFORM": "cpu",
    "VERL_ENGINE_DEVICE": "cuda",  # why the engines of a CPU have the name of a GPU: see verl_cpu
    # Megatron would compile some small functions with a C++ compiler, for half a minute of the first step.
    "TORCH_COMPILE_DISABLE": "1",
}


def environment(device: str, engine: str) -> dict[str, str]:
    """The variables of a job: `device` is that of its recipe (cpu or gpu), `engine` its model_engine (dp or megatron)."""
    if device == "cpu":
        return VARIABLES | ON_CPU | {"VERL_CPU_ENGINE": engine}
    return VARIABLES | {EXTERNAL: "verl_hub"}
