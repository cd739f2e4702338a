"""Runs inside a job, on every host: joins the hosts to one Ray cluster and runs the entry script on its head.

The head is the job's first host. The drivers of the other hosts hold a connection to the head's driver for as long as
the job runs: through it they learn where Ray is and that the script has ended, and a host that is lost shows at once.
"""

import contextlib
import json
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path

import psutil

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent)]  # script_run, the SDK's `common`
from ray_hosts import (  # noqa: E402
    JOINED,
    POLL_S,
    TOKEN_FILE,
    ClusterError,
    HostRegistry,
    RayNode,
    address_of,
    enable_keepalive,
    free_port,
    kill_process_tree,
    ray_environment,
)
from script_run import (  # noqa: E402
    prepend_failure,
    set_gpu_network,
    start_script,
    stream_output,
    write_failure,
)

# When the script failed: how long to wait for a host's report that it was because of that host.
BLAME_WAIT_S = 3.0


def run_head(
    hosts: list[str], settings: dict, environment: dict[str, str], slots: int, deadline: float
) -> int:
    """The head's part: start Ray, wait for the other hosts, run the script.

    Args:
        hosts: all hosts of the job, the head first.
        settings: the fields of launchers.RayCluster.
        environment: variables for Ray and the script.
        slots: GPUs that each host offers to Ray.
        deadline: when all hosts must have joined, in seconds of time.monotonic.

    Returns:
        The script's exit code.

    Raises:
        ClusterError: a host did not join, or was lost, or has no Ray, or this host's name is not known.
    """
    own = address_of(hosts[0], deadline)
    ray_address = f"{own}:{free_port(own)}"
    options = [
        "--head",
        f"--port={ray_address.partition(':')[2]}",
        f"--ray-client-server-port={free_port(own)}",
    ]
    options += [f"--include-dashboard={bool(settings['dashboard_port'])}"]
    options += [f"--dashboard-port={settings['dashboard_port']}"] if settings["dashboard_port"] else []
    node = RayNode(hosts[0], own, environment, slots, *options)
    try:
        node.wait_until_started(deadline)
        listener = Listener((own, int(os.environ["SM_MASTER_PORT"])), backlog=len(hosts))
        registry = HostRegistry(hosts[1:], listener, ray_address)

        def why_lost() -> str | None:
            return registry.why_lost() or node.why_ended()

        try:
            while missing := registry.missing_hosts():
                if reason := why_lost():
                    raise ClusterError(reason)
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"{' and '.join(missing)} did not join the Ray cluster within {settings['join_timeout_s']} s, "
                        "and a job never goes on with fewer hosts. The end of that host's log says what it was doing; "
                        "if it only is slow to install, raise RayCluster(join_timeout_s=...)."
                    )
                time.sleep(POLL_S)
            print(f"Ray cluster: {len(hosts)} x {slots} slots, head {hosts[0]} at {ray_address}", flush=True)
            found = {"RAY_ADDRESS": ray_address, "RAY_SLOTS_PER_HOST": str(slots)}
            return run_entry_script({**environment, **found}, why_lost)
        finally:
            registry.close()
    finally:
        node.stop()


def run_entry_script(environment: dict[str, str], why_lost: Callable[[], str | None]) -> int:
    """Run the entry script, and kill it as soon as `why_lost` gives a reason; returns its exit code.

    Raises:
        ClusterError: a host was lost.
    """
    from common.utils import hyperparameters_to_cli_args

    arguments = hyperparameters_to_cli_args(json.loads(os.environ["SM_HPS"]))
    command = [sys.executable, os.environ["SM_ENTRY_SCRIPT"], *arguments]
    print(f"Executing command: {' '.join(command)}", flush=True)
    process = start_script(command, environment)

    def kill_when_a_host_is_lost() -> None:
        while process.poll() is None:
            if why_lost():
                kill_process_tree(process.pid)
            time.sleep(POLL_S)

    threading.Thread(target=kill_when_a_host_is_lost, daemon=True).start()
    code, lines = stream_output(process)
    if code == 0:
        return 0
    give_up = time.monotonic() + BLAME_WAIT_S
    while not (reason := why_lost()) and time.monotonic() < give_up:
        time.sleep(POLL_S)
    if reason:
        raise ClusterError(reason)
    write_failure(code, command, lines)
    return code


def run_worker_host(head: str, host: str, environment: dict[str, str], slots: int, deadline: float) -> int:
    """Any other host's part: join the head's Ray and stay until the head says that the job has ended.

    Args and errors as in `run_head`; `head` and `host` are names.
    """
    connection = connect_to_head(head, host, deadline)
    node = None
    try:
        enable_keepalive(connection)
        connection.send(host)
        own = address_of(host, deadline)
        node = RayNode(host, own, environment, slots, f"--address={connection.recv()}")
        node.wait_until_started(deadline)
        connection.send(JOINED)
        while not connection.poll(POLL_S):
            if reason := node.why_ended():
                raise ClusterError(reason)
        connection.recv()
        return 0
    except (EOFError, OSError):
        raise ClusterError(f"The driver on {head}, the head of the cluster, ended without a word.") from None
    except ClusterError as error:
        with contextlib.suppress(OSError):
            connection.send(str(error))
        raise
    finally:
        if node:
            node.stop()


def connect_to_head(head: str, host: str, deadline: float) -> Connection:
    """A connection to the head's driver, for which it may have to be waited. Raises ClusterError after `deadline`."""
    address = (os.environ["SM_MASTER_ADDR"], int(os.environ["SM_MASTER_PORT"]))
    while True:
        try:
            return Client(address, authkey=TOKEN_FILE.read_bytes())
        except OSError as error:  # no name, or nobody there, yet
            if time.monotonic() > deadline:
                raise ClusterError(f"{host} found no head at {head} ({error}).") from error
            time.sleep(POLL_S)


def main() -> int:
    """Do this host's part; the return value is the exit code."""
    from common.utils import get_process_count

    settings = json.loads(os.environ.pop("SM_DISTRIBUTED_CONFIG"))
    deadline = time.monotonic() + settings["join_timeout_s"]
    hosts, host = json.loads(os.environ["SM_HOSTS"]), os.environ["SM_CURRENT_HOST"]
    slots = get_process_count(settings["process_count_per_node"])
    os.environ.setdefault("GLOO_SOCKET_IFNAME", os.environ["SM_NETWORK_INTERFACE_NAME"])
    if int(os.environ["SM_NUM_GPUS"]):
        set_gpu_network()

    def stop_on_sigterm(number: int, frame: object) -> None:
        for child in psutil.Process().children():
            kill_process_tree(child.pid)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, stop_on_sigterm)
    environment = ray_environment(tempfile.mkdtemp(prefix="r-"))
    try:
        if host == hosts[0]:
            return run_head(hosts, settings, environment, slots, deadline)
        return run_worker_host(hosts[0], host, environment, slots, deadline)
    except ClusterError as error:
        print(error, flush=True)
        prepend_failure(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
