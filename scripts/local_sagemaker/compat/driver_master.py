"""The SageMaker SDK's in-container drivers fix the port and the name under which a job's hosts meet.

Seen in: sagemaker 3.27.0 (sagemaker-train 1.27.0), container_drivers/scripts/environment.py and common/utils.py.
Goes when: the drivers take SM_MASTER_PORT and SM_MASTER_ADDR from the environment.

The port: on AWS each container has an address of its own. Here the hosts of all jobs share the machine's ports,
and two jobs at once, or any program that listens on 7777, would collide.
The name: without namespaces (isolation "rewrite") "algo-1" does not resolve, so the address is put in its place.
The drivers' `is_master_node` compares the host's name with that address, and would then find no master.
"""

from pathlib import Path

ENVIRONMENT, UTILS = "scripts/environment.py", "common/utils.py"  # below the channel sm_drivers
PORT, ADDRESS = "SM_MASTER_PORT = 7777", 'SM_MASTER_ADDR = "algo-1"'
MASTER_CHECK = 'os.environ.get("SM_MASTER_ADDR")'


class UnknownDrivers(RuntimeError):
    """The drivers of this job are not those of the SDK version that the patch is for."""


def set_master_port(drivers: Path, port: int) -> None:
    """Let the hosts meet on `port`. `drivers` is a host's own copy of the channel sm_drivers.

    A job without the SDK's drivers is left alone. Raises UnknownDrivers if they are not as expected.
    """
    _replace(drivers / ENVIRONMENT, PORT, f"SM_MASTER_PORT = {port}")


def set_master_address(drivers: Path, address: str) -> None:
    """Let the hosts meet at `address` (an IP address); the host named algo-1 stays the master.

    A job without the SDK's drivers is left alone. Raises UnknownDrivers if they are not as expected.
    """
    _replace(drivers / ENVIRONMENT, ADDRESS, f'SM_MASTER_ADDR = "{address}"')
    _replace(drivers / UTILS, MASTER_CHECK, '"algo-1"')


def _replace(file: Path, old: str, new: str) -> None:
    if not file.exists():
        return
    text = file.read_text()
    if old not in text:
        raise UnknownDrivers(
            f"{file.name} of the SDK's drivers does not contain {old!r}: this endpoint is made for the drivers"
            " of sagemaker 3.27.0"
        )
    file.write_text(text.replace(old, new))
