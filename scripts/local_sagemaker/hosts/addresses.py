"""Addresses of a job's hosts: a network of its own for each job, so that jobs which run at once may use the same ports.

On Linux all of 127.0.0.0/8 is this machine. A job gets a block of 256 addresses of it, its first host the second address, and
so on; /etc/hosts of the job says so (hosts.py). Two jobs that both listen on algo-1:29500 do not meet then. It is not enough
for a program that listens on all addresses (0.0.0.0), as torch's TCPStore does: such a port is the machine's, and there the
SDK's drivers and the workshop's launchers get a free port for each job.
Elsewhere (macOS) the loopback interface has 127.0.0.1 alone: all hosts of all jobs share it, and its ports.
"""

import contextlib
import errno
import random
import socket
import sys

LOOPBACK = "127.0.0.1"
OWN_ADDRESSES = sys.platform == "linux"
# The second number of an address. Not those that programs and people choose themselves (127.0.0.x, 127.1.x.x).
_BLOCKS = [(second, third) for second in range(64, 128) for third in range(256)]
_CLAIM_PORT = 19_999  # UDP: no connection, and no program of a job, is ever told of it
_LARGEST_BLOCK = 253  # hosts; the quota of SageMaker is far below


class Network:
    """The addresses of one job's hosts, until `close`. No other endpoint of this machine gives them to a job."""

    def __init__(self, hosts: int):
        """Raises OSError if all blocks of addresses are in use."""
        if hosts > _LARGEST_BLOCK:
            raise ValueError(f"{hosts} hosts do not fit into one block of {_LARGEST_BLOCK} addresses")
        self._claim: socket.socket | None = None
        self.addresses = [LOOPBACK] * hosts
        if OWN_ADDRESSES:
            self._claim, block = _claim()
            self.addresses = [f"{block}.{number + 2}" for number in range(hosts)]

    def close(self) -> None:
        """Give the addresses back."""
        if self._claim:
            self._claim.close()


def _claim() -> tuple[socket.socket, str]:
    """A block that no other job has. The claim is a bound port, which the system frees when this process ends, however."""
    for second, third in random.sample(_BLOCKS, len(_BLOCKS)):
        block = f"127.{second}.{third}"
        claim = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        try:
            claim.bind((f"{block}.1", _CLAIM_PORT))
            return claim, block
        except OSError as error:
            with contextlib.suppress(OSError):
                claim.close()
            if error.errno != errno.EADDRINUSE:
                raise
    raise OSError(
        errno.EADDRNOTAVAIL, "All loopback addresses for jobs (127.64.0.0 to 127.127.255.255) are in use"
    )
