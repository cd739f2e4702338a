"""Preflight of accelerate's configuration file: one that `accelerate launch` can read, made for the machines of the job."""

from collections.abc import Iterator
from typing import Any

from job.arguments import RecipeError
from job.recipe import read_recipe
from rl.spelling import unknown_name

from workshop.checks.request import PROBLEM, WARNING, Check, JobRequest

# The fields of accelerate.commands.config.config_args.ClusterConfig (accelerate 1.15), and two older names that it takes. It
# refuses a file with any other key.
KEYS = (
    *("compute_environment", "distributed_type", "mixed_precision", "use_cpu", "debug", "num_processes", "machine_rank"),
    *("num_machines", "gpu_ids", "main_process_ip", "main_process_port", "rdzv_backend", "same_network"),
    *("main_training_function", "enable_cpu_affinity", "fp8_config", "deepspeed_config", "fsdp_config", "parallelism_config"),
    *("megatron_lm_config", "mpirun_config", "downcast_bf16", "tpu_name", "tpu_zone", "tpu_use_cluster", "tpu_use_sudo"),
    *("command_file", "commands", "tpu_vm", "tpu_env", "dynamo_config", "fp16", "dynamo_backend"),
)  # fmt: skip
# accelerate.utils.DistributedType
TYPES = (
    *("NO", "MULTI_CPU", "MULTI_GPU", "MULTI_NPU", "MULTI_MLU", "MULTI_SDAA", "MULTI_MUSA", "MULTI_XPU", "DEEPSPEED"),
    *("FSDP", "XLA", "MEGATRON_LM", "MULTI_HPU", "MULTI_NEURON"),
)  # fmt: skip
PRECISIONS = ("no", "fp16", "bf16", "fp8")


def launcher_file(request: JobRequest) -> dict[str, Any]:
    """What accelerate's configuration file says; empty without one, or where it cannot be read (which check_launcher says)."""
    try:
        return _read(request)
    except RecipeError:
        return {}


def _read(request: JobRequest) -> dict[str, Any]:
    name = request.launcher.get("config_file")
    if request.source_dir is None or not name or not (request.source_dir / name).is_file():
        return {}  # one that is not there, check_source reports
    return read_recipe(request.source_dir / name)


def check_launcher(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """Accelerate's file can be read, and is made for the devices that there are and for as many processes as are started."""
    name = request.launcher.get("config_file")
    try:
        file = _read(request)
    except RecipeError as error:
        text = str(error).replace(f"{request.source_dir}/", "")
        yield Check("launcher", PROBLEM, f"accelerate could not read its file: {text}")
        return
    if not file:
        return
    if problems := list(_file_problems(file)):
        for problem in problems:
            yield Check("launcher", PROBLEM, f"{name}: {problem}")
        return
    processes = request.hosts * request.processes_per_host
    if not request.local and request.gpus is not None:
        for_cpu, use_cpu = file.get("use_cpu") is True, settings.get("use_cpu") is True
        if for_cpu and request.gpus and not use_cpu:
            text = f"{name} says use_cpu: true, so the {request.gpus} GPUs that you pay for stay idle and the recipe is for GPUs"
            yield Check("launcher", PROBLEM, f"{text}: choose a file for GPUs (accelerate_config)")
        elif not for_cpu and not request.gpus:
            text = (
                f"{name} is made for GPUs, and {request.instance_type} has none: choose accelerate/cpu.yaml"
            )
            yield Check("launcher", PROBLEM, text)
        if not for_cpu and file.get("distributed_type") == "NO" and processes > 1:
            yield Check(
                "launcher",
                PROBLEM,
                f'{name} says distributed_type: "NO", so that accelerate starts one process of the {processes} asked for: '
                "choose accelerate/multi_gpu.yaml, or set process_count_per_node=1 and instance_count=1",
            )
    for key, given in (("num_processes", processes), ("num_machines", request.hosts)):
        if file.get(key) not in (None, given):
            text = f"{name} says {key}: {file[key]}, and the job starts {given}, which is what counts: leave {key} out"
            yield Check("launcher", WARNING, text)


def _file_problems(file: dict[str, Any]) -> Iterator[str]:
    """For what accelerate refuses a file, or would start something else than this job."""
    for key in file:
        if key not in KEYS:
            yield unknown_name("key", key, KEYS)
    if "distributed_type" not in file:
        yield f"distributed_type is missing: it must be one of {', '.join(TYPES)}"
    for key, words in (("distributed_type", TYPES), ("mixed_precision", PRECISIONS)):
        value = file.get(key, words[0])
        if value not in words:
            why = (
                f'; YAML reads {words[0]} as false, so write "{words[0]}" in quotes' if value is False else ""
            )
            yield f"{key} is {value!r}: it must be one of {', '.join(words)}{why}"
    if file.get("compute_environment", "LOCAL_MACHINE") != "LOCAL_MACHINE":
        yield (
            f"compute_environment is {file['compute_environment']!r}: write LOCAL_MACHINE, for accelerate runs inside the job "
            "and is to start no other"
        )
