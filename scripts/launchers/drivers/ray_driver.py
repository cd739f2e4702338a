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
from multiprocessing.connection import Client, Listener
from pathlib import Path

import psutil

sys.path += [str(Path(__file__).parent), str(Path(__file__).parent.parent)]  # script_run, the SDK's `common`
from ray_hosts import (  # noqa: E402
    POLL_S,
    TOKEN_FILE,
    ClusterError,
    RayNode,
    Roll,
    address_of,
    free_port,
    keep_alive,
    ray_environment,
    stop_tree,
)
from script_run import follow, put_first, set_gpu_network, start, write_failure  # noqa: E402

LAST_WORD_S = 3.0  # when the script failed: how long the other hosts have to say that it was because of them


def lead(hosts: list[str], settings: dict, environment: dict[str, str], slots: int, deadline: float) -> int:
    """The head: start Ray, wait for the others, run the script. Returns its exit code; raises ClusterError."""
    own = address_of(hosts[0])
    address = f"{own}:{free_port(own)}"
    options = ["--head", f"--port={address.partition(':')[2]}", f"--ray-client-server-port={free_port(own)}"]
    options += [f"--include-dashboard={bool(settings['dashboard_port'])}"]
    options += [f"--dashboard-port={settings['dashboard_port']}"] if settings["dashboard_port"] else []
    node = RayNode(hosts[0], environment, slots, *options)
    door = (own, int(os.environ["SM_MASTER_PORT"]))
    try:
        node.wait_until_started(deadline)
        roll = Roll(hosts[1:], Listener(door, backlog=len(hosts)), address)
        try:
            while missing := roll.missing():
                if loss := roll.loss() or node.loss():
                    raise ClusterError(loss)
                if time.monotonic() > deadline:
                    raise ClusterError(
                        f"{' and '.join(missing)} did not join the Ray cluster within {settings['join_timeout_s']} s, "
                        "and a job never goes on with fewer hosts. The end of that host's log says what it was doing; "
                        "if it only is slow to install, raise RayCluster(join_timeout_s=...)."
                    )
                time.sleep(POLL_S)
            print(f"Ray cluster: {len(hosts)} x {slots} slots, head {hosts[0]} at {address}", flush=True)
            found = {"RAY_ADDRESS": address, "RAY_SLOTS_PER_HOST": str(slots)}
            return run_script({**environment, **found}, lambda: roll.loss() or node.loss())
        finally:
            roll.dismiss()
    finally:
        node.stop()


def run_script(environment: dict[str, str], find_loss: Callable[[], str | None]) -> int:
    """Run the entry script; returns its exit code. Raises ClusterError if a host was lost."""
    from common.utils import hyperparameters_to_cli_args

    arguments = hyperparameters_to_cli_args(json.loads(os.environ["SM_HPS"]))
    command = [sys.executable, os.environ["SM_ENTRY_SCRIPT"], *arguments]
    print(f"Executing command: {' '.join(command)}", flush=True)
    process = start(command, environment)

    def guard() -> None:
        while process.poll() is None:
            if find_loss():
                stop_tree(process.pid)
            time.sleep(POLL_S)

    threading.Thread(target=guard, daemon=True).start()
    code, lines = follow(process)
    patience = time.monotonic() + (LAST_WORD_S if code else 0)
    while not (loss := find_loss() if code else None) and time.monotonic() < patience:
        time.sleep(POLL_S)
    if loss:
        raise ClusterError(loss)
    if code:
        write_failure(code, command, lines)
    return code


def join(head: str, host: str, environment: dict[str, str], slots: int, deadline: float) -> int:
    """Any other host: join the head's Ray and stay until it says that the job has ended. Raises ClusterError."""
    door = (os.environ["SM_MASTER_ADDR"], int(os.environ["SM_MASTER_PORT"]))
    while True:
        try:
            connection = Client(door, authkey=TOKEN_FILE.read_bytes())
            break
        except OSError as error:  # no name, or nobody there, yet
            if time.monotonic() > deadline:
                raise ClusterError(f"{host} found no head at {head} ({error}).") from error
            time.sleep(POLL_S)
    node = None
    try:
        keep_alive(connection)
        connection.send(host)
        node = RayNode(host, environment, slots, f"--address={connection.recv()}")
        node.wait_until_started(deadline)
        connection.send("joined")
        while not connection.poll(POLL_S):
            if loss := node.loss():
                raise ClusterError(loss)
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

    def obey(number: int, frame: object) -> None:
        for child in psutil.Process().children():
            stop_tree(child.pid)
        sys.exit(128 + number)

    signal.signal(signal.SIGTERM, obey)
    environment = ray_environment(tempfile.mkdtemp(prefix="r-"))
    try:
        if host == hosts[0]:
            return lead(hosts, settings, environment, slots, deadline)
        return join(hosts[0], host, environment, slots, deadline)
    except ClusterError as error:
        print(error, flush=True)
        put_first(str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
