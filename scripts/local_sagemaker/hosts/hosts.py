"""The hosts of one attempt at a job: their folders, configuration files, environment and processes."""

import contextlib
import json
import os
import random
import shutil
import socket
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from local_sagemaker.api.training_request import TrainingRequest
from local_sagemaker.client import without_proxy
from local_sagemaker.compat import driver_master, mpi_without_ssh
from local_sagemaker.environments.pip_settings import write_pip_settings
from local_sagemaker.hosts.addresses import LOOPBACK
from local_sagemaker.hosts.isolation import CONTAINER_ROOT, Isolation
from local_sagemaker.hosts.process import SupervisedProcess

LOOPBACK_INTERFACE = "lo" if sys.platform == "linux" else "lo0"
# Not those that a system gives to outgoing connections (Linux: from 32768; macOS, Windows: from 49152): such a port is free when
# it is chosen, and taken when a job's first process comes to listen on it, seconds later.
MEETING_PORTS = range(20000, 32768)
# Packages that AWS's images bring and that cannot be had from PyPI without a compiler.
IMAGE_PACKAGES = Path(__file__).parents[1] / "image_packages"
SCRATCH_PREFIX = "lsm-"
FEW_CORES = 4  # with fewer, a job's libraries get one thread each: its processes share the cores
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# Variables of the endpoint's own shell that a job may see. All others (credentials, tokens) stay outside.
PASSED_ON = """
    SSL_CERT_FILE SSL_CERT_DIR REQUESTS_CA_BUNDLE CURL_CA_BUNDLE TZ
    HTTP_PROXY HTTPS_PROXY ALL_PROXY http_proxy https_proxy all_proxy
""".split()


@dataclass(frozen=True)
class Host:
    """One host: `folder` holds all its files; `link` is a short path to it without spaces."""

    name: str
    number: int  # 0, 1, ...
    folder: Path
    link: Path
    address: str  # IPv4

    @property
    def ml(self) -> Path:
        """What the host sees as /opt/ml."""
        return self.folder / "ml"

    @property
    def drivers(self) -> Path:
        """The host's copy of the channel sm_drivers, which holds the SDK's in-container scripts."""
        return self.ml / "input" / "data" / "sm_drivers"

    @property
    def failure_file(self) -> Path:
        return self.ml / "output" / "failure"

    @property
    def failure(self) -> str | None:
        """What the job wrote to /opt/ml/output/failure, if it did."""
        file = self.failure_file
        return file.read_text(errors="replace").strip() if file.is_file() else None


def make_hosts(request: TrainingRequest, attempt: Path, scratch: Path, addresses: list[str]) -> list[Host]:
    """Fresh hosts with the folders and configuration files that a container finds under /opt/ml.

    As in https://docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html.
    """
    hosts = []
    for number, name in enumerate(request.hosts):
        # Short: libraries create sockets below it, and the path of a socket may have 107 bytes.
        short = f"{attempt.name.removeprefix('attempt-')}-{name}"
        host = Host(name, number, attempt / name, scratch / short, addresses[number])
        for folder in ("input/config", "input/data", "model", "output/data", "code"):
            (host.ml / folder).mkdir(parents=True)
        (host.ml / request.checkpoint_folder).mkdir(parents=True, exist_ok=True)
        (host.folder / "tmp").mkdir()
        write_pip_settings(host.folder / "home", os.environ)
        host.link.symlink_to(host.folder)
        hosts.append(host)
    for host in hosts:
        _write_configuration(request, host)
    _write_hosts_file(hosts, attempt / "hosts")
    return hosts


def _write_configuration(request: TrainingRequest, host: Host) -> None:
    group = {
        "instance_group_name": "homogeneousCluster",
        "instance_type": request.instance_type,
        "hosts": request.hosts,
    }
    files = {
        "hyperparameters": request.hyperparameters,
        "inputdataconfig": {channel.name: channel.config for channel in request.channels},
        "resourceconfig": {
            "current_host": host.name,
            "current_instance_type": request.instance_type,
            "current_group_name": group["instance_group_name"],
            "hosts": request.hosts,
            "instance_groups": [group],
            "network_interface_name": LOOPBACK_INTERFACE,
        },
    }
    if (
        request.checkpoint_uri
    ):  # as smdebug reads it: https://github.com/awslabs/sagemaker-debugger (state_store.py)
        local = f"{CONTAINER_ROOT}/{request.checkpoint_folder}"
        files["checkpointconfig"] = {"S3Uri": request.checkpoint_uri, "LocalPath": local}
    for name, content in files.items():
        (host.ml / "input" / "config" / f"{name}.json").write_text(json.dumps(content))


def _write_hosts_file(hosts: list[Host], path: Path) -> None:
    """/etc/hosts for every host: the addresses of the job's hosts; the machine's own entries follow."""
    lines = [f"{LOOPBACK} localhost"] + [f"{host.address} {host.name}" for host in hosts]
    machine = Path("/etc/hosts")
    path.write_text("\n".join(lines) + "\n" + (machine.read_text() if machine.exists() else ""))


def make_scratch(job: Path) -> Path:
    """A folder with a short path, for the links to a job's hosts. A link in the job's folder says where it is."""
    scratch = Path(tempfile.mkdtemp(prefix=SCRATCH_PREFIX))
    try:
        (job / "scratch").symlink_to(scratch)
    except OSError:
        scratch.rmdir()
        raise
    return scratch


def discard_scratch(job: Path) -> None:
    """Remove the folder of `make_scratch` and what the job's containers take with them, however the job ended."""
    for host in job.glob("attempt-*/*"):
        discard_container(host)
    note = job / "scratch"
    if note.is_symlink():
        if note.readlink().name.startswith(SCRATCH_PREFIX):
            shutil.rmtree(note.readlink(), ignore_errors=True)
        note.unlink(missing_ok=True)


def discard_container(host: Path) -> None:
    """Remove what a container takes with it (caches, temporary files, pip's settings) from a host's folder; /opt/ml stays."""
    shutil.rmtree(host / "home", ignore_errors=True)
    shutil.rmtree(host / "tmp", ignore_errors=True)
    with contextlib.suppress(OSError):
        (host / "opt").rmdir()  # only ever an empty mount point: never delete what is mounted


def start_host(
    host: Host,
    request: TrainingRequest,
    isolation: Isolation,
    venv: Path,
    addresses: list[str],
    environment: dict[str, str],
) -> SupervisedProcess:
    """Start the request's command on `host`, one of those with the `addresses`.

    `environment` is added to `container_environment`.
    """
    variables = container_environment(host, request, isolation, venv, addresses) | environment
    command = request.command
    if isolation.rewrites:
        root = f"{host.link}/ml"
        command = [argument.replace(CONTAINER_ROOT, root) for argument in command]
        requested = {name: value.replace(CONTAINER_ROOT, root) for name, value in request.environment.items()}
    else:
        requested = request.environment
    if packages := _packages_lacking_in(venv):
        own = [requested["PYTHONPATH"]] if "PYTHONPATH" in requested else []
        requested = requested | {"PYTHONPATH": os.pathsep.join([*own, str(packages)])}
    wrapped = isolation.command(
        command,
        ml=host.ml,
        hosts_file=host.folder.parent / "hosts",
        name=host.name,
        scratch=host.folder / "opt",
    )
    return SupervisedProcess(
        wrapped, environment=variables | requested, folder=host.ml / "code", wrapped=isolation.wraps
    )


def _packages_lacking_in(venv: Path) -> Path | None:
    """The folder of stand-ins, unless the job's own requirements brought the package that it stands for."""
    return None if any(venv.glob("lib/python*/site-packages/sagemaker_training")) else IMAGE_PACKAGES


def container_environment(
    host: Host, request: TrainingRequest, isolation: Isolation, venv: Path, addresses: list[str]
) -> dict[str, str]:
    """The variables that every process of the host starts with.

    Not a copy of the endpoint's own with some taken out: so no secret of the user's shell leaks into a job.
    """
    root = f"{host.link}/ml" if isolation.rewrites else CONTAINER_ROOT
    # Hosts know one another by name, and some libraries by address.
    direct = [without_proxy(os.environ.get("NO_PROXY")), *request.hosts, *addresses]
    variables: dict[str, str] = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    variables |= {
        "PATH": f"{venv}/bin:{SYSTEM_PATH}",
        "HOME": str(host.folder / "home"),
        "TMPDIR": f"{host.link}/tmp",
        "LANG": "C.UTF-8",
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": ",".join(direct),
        "GLOO_SOCKET_IFNAME": LOOPBACK_INTERFACE,
        "TRAINING_JOB_NAME": request.name,
    }
    if isolation.rewrites:
        variables["SAGEMAKER_BASE_DIR"] = root  # for the package sagemaker_training
        # Neither the service nor the SDK sets it: where there is an /opt/ml, a script has to know the path.
        variables["SM_CHECKPOINT_DIR"] = f"{root}/{request.checkpoint_folder}"
    if (os.cpu_count() or 1) < FEW_CORES:
        variables["OMP_NUM_THREADS"] = "1"
    return variables


def meet_on_free_port(hosts: list[Host]) -> None:
    """Choose a port for the hosts of one job to meet on. Raises UnknownDrivers (see compat/driver_master.py)."""
    port = free_port()
    for host in hosts:
        driver_master.set_master_port(host.drivers, port)
        mpi_without_ssh.launch_without_ssh(host.drivers, host.link.parent)


def rewrite_paths(hosts: list[Host]) -> None:
    """Without namespaces: put each host's real paths and the first host's address into the SDK's drivers and the hyperparameters.

    Raises UnknownDrivers (see compat/driver_master.py).
    """
    for host in hosts:
        root = f"{host.link}/ml"
        for file in sorted(host.drivers.rglob("*")):
            if file.suffix in (".py", ".sh"):
                file.write_text(file.read_text().replace(CONTAINER_ROOT, root))
        driver_master.set_master_address(host.drivers, hosts[0].address)
        for name in ("hyperparameters", "checkpointconfig"):
            values = host.ml / "input" / "config" / f"{name}.json"
            if values.exists():
                values.write_text(values.read_text().replace(CONTAINER_ROOT, root))


def free_port() -> int:
    """One of MEETING_PORTS that no program listens on at the moment, at whichever of this machine's addresses.

    torch's store listens at all of them. Chosen by the system's random numbers: programs with the same seed get other ports.
    """
    for port in random.SystemRandom().sample(MEETING_PORTS, len(MEETING_PORTS)):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("", port))
            return port
    raise OSError(f"All ports from {MEETING_PORTS[0]} to {MEETING_PORTS[-1]} are in use on this machine.")
