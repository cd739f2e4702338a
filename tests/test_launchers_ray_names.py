"""The hosts of a Ray cluster find one another by names, which may be known a moment later than the hosts are up."""

import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

DRIVERS = Path(__file__).parents[1] / "scripts" / "launchers" / "drivers"


@pytest.fixture
def ray_hosts(monkeypatch):
    monkeypatch.syspath_prepend(str(DRIVERS))
    monkeypatch.setenv("SM_MASTER_ADDR", "algo-1")
    import ray_hosts

    return ray_hosts


def test_a_name_that_is_never_known_is_an_error_that_names_it(ray_hosts):
    with pytest.raises(ray_hosts.ClusterError, match="The name algo-9.invalid leads to no address .*DNS"):
        ray_hosts.address_of("algo-9.invalid", time.monotonic() + 0.5)


def test_a_name_that_is_known_late_is_waited_for_with_one_line(ray_hosts, monkeypatch, capsys):
    asked = []

    def resolve(name):
        asked.append(name)
        if len(asked) < 4:
            raise socket.gaierror(-2, "Name or service not known")
        return "10.0.0.2"

    monkeypatch.setattr(socket, "gethostbyname", resolve)
    monkeypatch.setattr(ray_hosts, "POLL_S", 0.01)
    assert ray_hosts.address_of("algo-2", time.monotonic() + 10) == "10.0.0.2"
    assert asked == ["algo-2"] * 4
    assert capsys.readouterr().out == "Waiting for the name algo-2 to be known.\n"


def test_hosts_without_names_of_their_own_are_one_machine(ray_hosts, monkeypatch):
    monkeypatch.setenv("SM_MASTER_ADDR", "127.0.0.1")
    assert ray_hosts.address_of("algo-2.invalid", time.monotonic() + 60) == "127.0.0.1"


def test_the_machines_own_resolver_is_asked_again(tmp_path):
    """A process with an /etc/hosts of its own, which gets the name while the process waits for it."""
    names = tmp_path / "hosts"
    names.write_text("127.0.0.1 localhost\n")
    enter = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = 'mount --bind "$0" /etc/hosts && exec "$@"'
    if not shutil.which("unshare") or subprocess.run([*enter, mount, str(names), "true"]).returncode:
        pytest.skip("no mount namespaces here")
    code = "import time, ray_hosts; print(ray_hosts.address_of('algo-7', time.monotonic() + 60), flush=True)"
    waiting = subprocess.Popen(
        [*enter, mount, str(names), sys.executable, "-c", code],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(DRIVERS), "SM_MASTER_ADDR": "algo-7"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert waiting.stdout.readline() == "Waiting for the name algo-7 to be known.\n"
        with names.open("a") as file:
            file.write("127.0.0.7 algo-7\n")
        assert waiting.communicate(timeout=60)[0] == "127.0.0.7\n"
    finally:
        waiting.kill()
        waiting.wait()


def test_a_host_without_ray_says_so(ray_hosts, monkeypatch, tmp_path):
    monkeypatch.setenv("SM_NUM_GPUS", "0")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        ray_hosts.ClusterError, match="algo-2 has no `ray`: name it in the job's requirements"
    ):
        ray_hosts.RayNode("algo-2", "127.0.0.1", {"HOME": str(tmp_path)}, 1)
