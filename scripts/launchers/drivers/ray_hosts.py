"""The hosts of a job's Ray cluster: Ray on this one, and on the head the registry of the others.

Ray is started, watched and ended by the ids of its processes, with ports, folder and home of its own: another Ray on
the same machine is not touched (`ray stop` would end that too), and what it left in the home folder is not read
(`ray.init()` writes ~/.ray/auth_token).
"""

import contextlib
import ipaddress
import os
import random
import socket
import subprocess
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, Listener, answer_challenge, deliver_challenge
from pathlib import Path

import psutil

TOKEN_FILE = Path(__file__).with_name("ray_auth_token")  # launchers.RayCluster writes it, and says why there
POLL_S = 0.2
KEEPALIVE_TIMEOUT_S = 20  # a host that does not answer the kernel's keepalive probes for so long is lost
JOINED = "joined"  # what a host's driver reports when its Ray belongs to the cluster
MEETING_PORTS = range(20000, 32768)
STACK = r'^  File "|hread 0x'  # lines of faulthandler's
LOGICAL_CPUS = 8  # that a host offers for each slot, at least: Ray counts them, and an actor that finds none waits for ever


class ClusterError(Exception):
    """The cluster did not come about or lost a host; the message names the host."""


def kill_process_tree(pid: int) -> None:
    """Kill a process and everything that it started."""
    with contextlib.suppress(psutil.NoSuchProcess):
        root = psutil.Process(pid)
        for process in [*root.children(recursive=True), root]:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()


def address_of(host: str, deadline: float) -> str:
    """A host's IP address. Its name may be a moment late: the hosts of a job do not start all at once.

    In local mode without namespaces the hosts have no names: they are one machine, whose address is the master's.

    Raises:
        ClusterError: the name leads nowhere, not even at `deadline` (of time.monotonic).
    """
    waiting = False
    while True:
        try:
            return socket.gethostbyname(host)
        except OSError as error:
            master = os.environ["SM_MASTER_ADDR"]
            if is_address(master):
                return master
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"The name {host} leads to no address ({error}): the hosts of a job find one another by their names. "
                    "In a VPC of your own, does it resolve DNS, and may the hosts reach one another (security group)?"
                ) from error
        if not waiting:
            print(f"Waiting for the name {host} to be known.", flush=True)
            waiting = True
        time.sleep(POLL_S)


def is_address(text: str) -> bool:
    """Whether a text is an IP address itself, and no name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def free_port(address: str) -> str:
    """A TCP port of this host that nobody listens on at the moment.

    Not one of those that a system gives to outgoing connections (Linux: from 32768), which may be taken when Ray comes to
    listen on it; and above those that Ray gives to its workers (10002 to 19999).
    """
    for port in random.SystemRandom().sample(MEETING_PORTS, len(MEETING_PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((address, port))
            return str(port)
    raise ClusterError(f"All ports from {MEETING_PORTS[0]} to {MEETING_PORTS[-1]} of {address} are in use.")


def enable_keepalive(connection: Connection) -> None:
    """Have the kernel probe the other end: a machine or network that dies closes no connection.

    After KEEPALIVE_TIMEOUT_S without an answer, reading from the connection raises OSError.
    """
    settings = {
        socket.TCP_KEEPIDLE: 5,
        socket.TCP_KEEPINTVL: 5,
        socket.TCP_KEEPCNT: KEEPALIVE_TIMEOUT_S // 5 - 1,
    }
    settings[socket.TCP_USER_TIMEOUT] = KEEPALIVE_TIMEOUT_S * 1000
    with socket.socket(fileno=os.dup(connection.fileno())) as tcp:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in settings.items():
            tcp.setsockopt(socket.IPPROTO_TCP, option, value)


def ray_environment(folder: str) -> dict[str, str]:
    """The variables of Ray and the script: a home of their own, and the job's token, which only its file holds."""
    own = {"HOME": folder, "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(TOKEN_FILE)}
    own |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_COLOR_PREFIX": "0"}
    # Ray would start idle workers for the first script, which those of a script with variables of its own never are.
    own["RAY_prestart_worker_first_driver"] = "0"
    # Of lines that differ in numbers alone Ray shows the first for five seconds, which leaves no stack whole.
    own["RAY_DEDUP_LOGS_ALLOW_REGEX"] = os.environ.get("RAY_DEDUP_LOGS_ALLOW_REGEX") or STACK
    own["XDG_CONFIG_HOME"] = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")  # pip's
    # A folder of temporary files, on the large disk, and the same one for the script and for Ray's processes.
    own["XDG_CACHE_HOME"] = os.environ.get("XDG_CACHE_HOME") or f"{folder}/cache"
    return {**os.environ, **own}


class RayNode:
    """Ray on this host: everything below one `ray start --block`."""

    def __init__(
        self, host: str, address: str, environment: dict[str, str], slots: int, *options: str
    ) -> None:
        """Starts it.

        Args:
            host: this host's name. `address`: its IP address.
            environment: what `ray_environment` returned.
            slots: GPUs that this host offers to Ray.
            options: more options of `ray start`.

        Raises:
            ClusterError: Ray is not installed here.
        """
        cpus = max(os.cpu_count() or 1, LOGICAL_CPUS * slots)
        self._host, self._log = host, Path(environment["HOME"], "ray_start.log")
        command = ["ray", "start", "--block", "--log-style=record", f"--node-ip-address={address}"]
        command += [f"--temp-dir={environment['HOME']}", f"--num-cpus={cpus}", f"--num-gpus={slots}"]
        with self._log.open("w") as log:
            try:
                self._process = subprocess.Popen(
                    [*command, *options], env=environment, stdout=log, stderr=log
                )
            except FileNotFoundError as error:
                raise ClusterError(f"{host} has no `ray`: name it in the job's requirements.") from error

    def wait_until_started(self, deadline: float) -> None:
        """Returns when this host belongs to the cluster.

        Raises:
            ClusterError: Ray has ended, or has not started by `deadline` (of time.monotonic).
        """
        while "Ray runtime started" not in self._log.read_text():
            if reason := self.why_ended():
                raise ClusterError(reason)
            if time.monotonic() > deadline:
                raise ClusterError(
                    f"Ray did not start on {self._host} in time:\n{self._log.read_text()[-600:]}"
                )
            time.sleep(POLL_S)

    def why_ended(self) -> str | None:
        """Why Ray has ended on this host, in words; None while it runs."""
        if self._process.poll() is None:
            return None
        lines = [line.partition(" -- ")[2] or line for line in self._log.read_text().splitlines()]
        lines = [line for line in lines if line.strip()]
        # When one of its processes dies, Ray names it and its exit code, and then shows the end of that one's own log.
        named = next((number for number, line in enumerate(lines) if "exited unexpectedly" in line), None)
        said = lines[-8:] if named is None else lines[named : named + 2]
        return f"Ray ended on host {self._host}:\n" + "\n".join(said)

    def stop(self) -> None:
        kill_process_tree(self._process.pid)
        self._process.wait()


class HostRegistry:
    """On the head: which of the other hosts are there. A thread for each listens to what its driver reports."""

    def __init__(self, hosts: list[str], listener: Listener, ray_address: str) -> None:
        """Starts to accept the other hosts' drivers.

        Args:
            hosts: the names of the other hosts.
            listener: where their drivers connect; `close` closes it.
            ray_address: "address:port" of the head's Ray, which each of them is told.
        """
        self._hosts, self._listener, self._ray_address = hosts, listener, ray_address
        self._connections: list[Connection] = []
        self._reports: dict[str, str] = {}  # by host: JOINED, or why it is lost
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                connection = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._listen, args=(connection,), daemon=True).start()

    def _listen(self, connection: Connection) -> None:
        """Listens to one host. Whoever has no token, or says nothing, holds up this thread alone."""
        host = None
        try:
            enable_keepalive(connection)
            deliver_challenge(connection, TOKEN_FILE.read_bytes())
            answer_challenge(connection, TOKEN_FILE.read_bytes())
            host = connection.recv()
            self._connections.append(connection)
            connection.send(self._ray_address)
            while True:
                self._reports[host] = connection.recv()
        except AuthenticationError:
            print("A connection without this job's token was refused.", flush=True)
        except (EOFError, OSError):
            if host and self._reports.get(host, JOINED) == JOINED:
                self._reports[host] = f"Lost host {host}: the connection to it broke."

    def missing_hosts(self) -> list[str]:
        """The hosts that have not joined yet."""
        return [host for host in self._hosts if self._reports.get(host) != JOINED]

    def why_lost(self) -> str | None:
        """Why a host is lost, with its name; None while none is."""
        return next((report for report in self._reports.values() if report != JOINED), None)

    def close(self) -> None:
        """Tell every host that the job has ended, and accept no more."""
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.send("ended")
        self._listener.close()
