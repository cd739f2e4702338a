"""The SageMaker SDK's MPI driver needs an SSH server in each container, and writes to the machine's /etc and /tmp.

Seen in: sagemaker 3.27.0 (sagemaker-train 1.27.0), container_drivers/distributed_drivers/mpi_utils.py.
Goes when: the driver lets a launch agent of one's own start the processes of the other hosts, and asks for no sshd.

On AWS each container has its own port 22, /etc/environment and /tmp. Here the hosts share the machine's: sshd would let its
other users in, variables of a job would stay in /etc/environment, and a job would find the files in /tmp that an earlier one
left. So mpi_launch.py takes the place of these functions, in the host's own copy of the drivers.
"""

from pathlib import Path

from local_sagemaker.compat import mpi_launch
from local_sagemaker.compat.driver_master import UnknownDrivers

# The first, below the channel sm_drivers, starts the second.
TRAIN_SCRIPT, DRIVER = "sm_train.sh", "mpi_driver.py"
UTILS = "distributed_drivers/mpi_utils.py"
REPLACED = """
    write_env_vars_to_file start_sshd_daemon bootstrap_worker_node bootstrap_master_node write_status_file_to_workers
""".split()
COMMAND = "get_mpirun_command"


def uses_mpi(drivers: Path) -> bool:
    """Whether the job is started by the SDK's MPI driver. `drivers` is a copy of the channel sm_drivers."""
    script = drivers / TRAIN_SCRIPT
    return script.is_file() and starts_mpi(script.read_text())


def starts_mpi(train_script: str) -> bool:
    """Whether the text of sm_train.sh runs the SDK's MPI driver."""
    return DRIVER in train_script


def launch_without_ssh(drivers: Path, sockets: Path) -> None:
    """Let the MPI driver start processes on the other hosts through sockets in the folder `sockets`.

    Other jobs are left alone. Raises UnknownDrivers if the driver is not as expected.
    """
    if not uses_mpi(drivers):
        return
    utils = drivers / UTILS
    text = utils.read_text() if utils.is_file() else ""
    missing = [name for name in [*REPLACED, COMMAND] if f"def {name}(" not in text]
    if missing:
        raise UnknownDrivers(
            f"{UTILS} of the SDK's drivers has no {missing[0]}: this endpoint is made for the drivers of sagemaker 3.27.0"
        )
    launcher = Path(mpi_launch.__file__).read_text()
    (utils.parent / "mpi_launch.py").write_text(
        launcher.replace('SOCKETS = ""', f"SOCKETS = {str(sockets)!r}")
    )
    imported = ", ".join(REPLACED)
    utils.write_text(
        f"{text}\n\nfrom distributed_drivers import mpi_launch  # noqa: E402\n"
        f"from distributed_drivers.mpi_launch import {imported}  # noqa: E402, F811\n"
        f"{COMMAND} = mpi_launch.with_agent({COMMAND})\n"
    )
