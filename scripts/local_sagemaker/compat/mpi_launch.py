"""In a job's container: starts MPI's processes on the job's other hosts, where AWS's containers use SSH.

mpi_without_ssh.py copies it beside the SDK's MPI driver. There its functions take the place of those of the same names, and
mpirun runs it as its launch agent, `python3 mpi_launch.py [OPTIONS] HOST COMMAND...`. As with ssh, sh runs the command on the
other host, with that host's /opt/ml, name and variables, and its output comes back. Each host listens on a socket in a folder
that only the job's user can enter. Standard library only.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable

SOCKETS = ""  # folder of the hosts' sockets
DONE = "the job is done"  # in place of a command
CONNECT_TIMEOUT_S = 300.0  # as the SDK's driver waits for the other hosts
_ended = threading.Event()


def write_env_vars_to_file() -> None:
    """Nothing: a command gets the variables of the driver that runs it, and no login shell has to read them."""


def start_sshd_daemon() -> None:
    """Listen for commands from the other hosts, in a thread."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(_address(os.environ["SM_CURRENT_HOST"]))
    server.listen()
    threading.Thread(target=_serve, args=(server,), daemon=True).start()


def bootstrap_worker_node(master_host: str) -> None:
    """Carry out what the master asks for until it says that the job is done."""
    print(f"Waiting for the commands of {master_host}", flush=True)
    _ended.wait()


def bootstrap_master_node(worker_hosts: list[str]) -> None:
    """Wait until every other host listens. Raises TimeoutError after CONNECT_TIMEOUT_S."""
    for host in worker_hosts:
        _connect(host).close()


def write_status_file_to_workers(worker_hosts: list[str]) -> None:
    """Tell the other hosts that the job is done."""
    for host in worker_hosts:
        with _connect(host) as connection:
            connection.sendall(DONE.encode())


def with_agent(command: Callable[..., list[str]]) -> Callable[..., list[str]]:
    """The SDK's function that makes mpirun's command line, with this file as the launch agent."""

    def with_agent_named(**arguments: object) -> list[str]:
        mpirun, *rest = command(**arguments)
        return [mpirun, "--mca", "plm_rsh_agent", f"python3 {os.path.abspath(__file__)}", *rest]

    return with_agent_named


def _address(host: str) -> str:
    return os.path.join(SOCKETS, f"mpi-{host}")


def _connect(host: str) -> socket.socket:
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    while True:
        connection = socket.socket(socket.AF_UNIX)
        try:
            connection.connect(_address(host))
            return connection
        except (FileNotFoundError, ConnectionRefusedError) as error:
            connection.close()
            if time.monotonic() > deadline:
                raise TimeoutError(
                    f"{host} did not start its MPI driver in {CONNECT_TIMEOUT_S:.0f} s"
                ) from error
        time.sleep(0.2)


def _serve(server: socket.socket) -> None:
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_carry_out, args=(connection,), daemon=True).start()


def _carry_out(connection: socket.socket) -> None:
    """Run one command; what it prints, and at last its exit code in a line of its own, go to the host that asked."""
    with connection, connection.makefile("rb") as asked:
        command = asked.read().decode()
        if command == DONE:
            _ended.set()
        elif command:  # else somebody only looked whether this host listens
            done = subprocess.run(
                ["sh", "-c", command],
                stdin=subprocess.DEVNULL,
                stdout=connection.fileno(),
                stderr=connection.fileno(),
            )
            connection.sendall(f"\n{done.returncode}".encode())


def main(arguments: list[str]) -> int:
    """The launch agent: have HOST run COMMAND, print its output and return its exit code."""
    while arguments[0].startswith("-"):
        arguments = arguments[1:]
    host, *command = arguments
    with _connect(host) as connection:
        connection.sendall(" ".join(command).encode())
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as answer:
            output, _, code = answer.read().decode(errors="replace").rpartition("\n")
    print(output, end="", flush=True)
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
