"""Runs inside a job, on every host: starts the entry script with `accelerate launch`.

The SDK's own drivers (`torchrun_driver.py` beside this file in a job) are the model: same environment
variables, hyperparameters as `--name value`, same exit code, and a failure file only where the script left none.
"""

import json
import os
import sys
from pathlib import Path

import yaml

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent)]  # script_run, the SDK's `common`
from script_run import run, set_gpu_network, write_failure  # noqa: E402


class ConfigError(Exception):
    """Accelerate's file cannot be used; the message says which file and why."""


def read_config(path: Path) -> dict:
    """What accelerate's configuration file says.

    Raises:
        ConfigError: there is no such file, it cannot be read, or it is no mapping of keys to values.
    """
    if not path.is_file():
        raise ConfigError(f"{path} is not in source_dir: correct AccelerateLaunch(config_file=...)")
    try:
        config = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ConfigError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise ConfigError(f"{path} must hold lines of the form 'key: value'.")
    return config


def accelerate_command(
    entry_script: str,
    script_arguments: list[str],
    *,
    config_file: str,
    use_cpu: bool,
    processes_per_host: int,
    hosts: int,
    host_rank: int,
    main_address: str,
    main_port: int,
) -> list[str]:
    """The `accelerate launch` command of one host. Processes in all: `hosts` x `processes_per_host`."""
    processes = hosts * processes_per_host
    command = ["accelerate", "launch", "--config_file", config_file, "--num_processes", str(processes)]
    command += ["--num_machines", str(hosts), "--machine_rank", str(host_rank)]
    if hosts > 1:
        command += [
            "--main_process_ip",
            main_address,
            "--main_process_port",
            str(main_port),
            "--same_network",
        ]
    else:
        command += ["--main_process_port", "0"]  # any free port: jobs that share a machine must not collide
    if use_cpu and processes > 1:
        # Without mpirun, accelerate starts several CPU processes only through its torchrun launcher, which this
        # flag selects; ACCELERATE_USE_CPU (see main) keeps the script itself on the CPU.
        command += ["--multi_gpu"]
    return [*command, entry_script, *script_arguments]


def set_network_environment(config: dict) -> None:
    """Tell the communication libraries which network interface joins the hosts."""
    if config.get("use_cpu"):
        os.environ["ACCELERATE_USE_CPU"] = "true"
        os.environ.setdefault("GLOO_SOCKET_IFNAME", os.environ["SM_NETWORK_INTERFACE_NAME"])
    else:
        set_gpu_network()


def main() -> int:
    """Start the script of this job; the return value is the exit code."""
    from common.utils import get_process_count, hyperparameters_to_cli_args

    launcher = json.loads(os.environ["SM_DISTRIBUTED_CONFIG"])
    config_file = Path(launcher["config_file"])
    try:
        config = read_config(config_file)
    except ConfigError as error:
        write_failure(1, ["accelerate", "launch"], [f"ConfigError: {error}"])
        print(error, flush=True)
        return 1
    set_network_environment(config)
    command = accelerate_command(
        os.environ["SM_ENTRY_SCRIPT"],
        hyperparameters_to_cli_args(json.loads(os.environ["SM_HPS"])),
        config_file=str(config_file),
        use_cpu=bool(config.get("use_cpu")),
        processes_per_host=get_process_count(launcher["process_count_per_node"]),
        hosts=int(os.environ["SM_HOST_COUNT"]),
        host_rank=int(os.environ["SM_CURRENT_HOST_RANK"]),
        main_address=os.environ["SM_MASTER_ADDR"],
        main_port=int(os.environ["SM_MASTER_PORT"]),
    )
    print(f"Executing command: {' '.join(command)}", flush=True)
    try:
        code, lines = run(command)
    except FileNotFoundError:
        code, lines = (
            127,
            ["FileNotFoundError: the image has no `accelerate`: name it in the job's requirements."],
        )
        print(lines[0], flush=True)
    if code != 0:
        write_failure(code, command, lines)
    return code


if __name__ == "__main__":
    sys.exit(main())
