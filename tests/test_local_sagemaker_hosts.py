"""Hosts: how they are kept apart, by every method that this machine can show, and two of them together."""

import os
import random
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from endpoint_fixtures import SCRIPTS, end_endpoint, launch, log_lines, reported, start_endpoint, wait_end
from local_sagemaker import client
from local_sagemaker.hosts import hosts, isolation
from local_sagemaker.hosts.process import SupervisedProcess

LOOK = """
report("files", sorted(os.listdir(os.environ["SM_MODEL_DIR"])))
pathlib.Path(os.environ["SM_MODEL_DIR"], "mine").write_text("x")
report("text", os.environ["FROM_REQUEST"])
report("argv", sys.argv[1:])
from sagemaker_training.environment import Environment
env = Environment()
report("toolkit", [env.current_host, env.hosts, env.is_hetero, env.hyperparameters, env.model_dir == os.environ["SM_MODEL_DIR"]])
report("exists", [os.path.isdir(p) for p in (os.environ.get("SM_CHECKPOINT_DIR", "/opt/ml/checkpoints"), sys.argv[2], os.environ["FROM_REQUEST"])])
"""

ALL_REDUCE = """
import torch, torch.distributed as dist
dist.init_process_group("gloo")
total = torch.tensor([float(dist.get_rank() + 1)])
dist.all_reduce(total)
report(f"rank{dist.get_rank()}", [total.item(), dist.get_world_size(), os.environ["SM_CURRENT_HOST"]])
dist.destroy_process_group()
"""


@pytest.fixture(params=["chosen", "rewrite"])
def torch_endpoint(request, tmp_path):
    """Endpoints with the full base list (torch): as this machine chooses, and with rewritten paths."""
    options = ["--isolation", "rewrite"] if request.param == "rewrite" else []
    running = start_endpoint(tmp_path / "a home", *options, small=False)
    restore = client.connect(running.url)
    yield running
    restore()
    end_endpoint(running)


@pytest.fixture
def torch_trainer(torch_endpoint, request, tmp_path):
    """make_trainer of the fixtures, on the torch endpoint."""
    from endpoint_fixtures import make_trainer

    return make_trainer.__wrapped__(torch_endpoint, tmp_path)


@pytest.mark.parametrize("address", [hosts.LOOPBACK, "127.99.0.2"])
def test_hosts_meet_on_a_port_that_no_other_program_gets_by_chance(address, monkeypatch):
    ephemeral = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(ephemeral.read_text().split()[0]) if ephemeral.exists() else 49152
    assert hosts.MEETING_PORTS[-1] < first
    with socket.socket() as taken:
        taken.bind((address, hosts.free_port()))
        port = taken.getsockname()[1]
        monkeypatch.setattr(hosts, "MEETING_PORTS", range(port, port + 20))
        assert hosts.free_port() in range(port + 1, port + 20)
        monkeypatch.setattr(hosts, "MEETING_PORTS", range(port, port + 1))
        with pytest.raises(OSError, match="in use"):
            hosts.free_port()


def test_two_programs_with_the_same_seed_meet_on_ports_of_their_own():
    ports = set()
    for _ in range(3):
        random.seed(42)
        ports.add(hosts.free_port())
    assert len(ports) > 1


@pytest.mark.endpoint
def test_all_reduce_over_two_hosts_with_two_processes_each(torch_endpoint, torch_trainer):
    from sagemaker.train.distributed import Torchrun

    name = launch(torch_trainer(ALL_REDUCE, hosts=2, distributed=Torchrun(process_count_per_node=2)))
    ended = wait_end(name, timeout_s=600)  # the first time, the environment with torch is built
    assert ended["TrainingJobStatus"] == "Completed", ended
    seen = reported(name, "algo-1") | reported(name, "algo-2")
    places = {"rank0": "algo-1", "rank1": "algo-1", "rank2": "algo-2", "rank3": "algo-2"}
    assert seen == {rank: [10.0, 4, host] for rank, host in places.items()}


@pytest.mark.endpoint
@pytest.mark.parametrize("mode", isolation.MODES)
def test_a_job_under_each_isolation(mode, tmp_path):
    """Also in a home whose path has a space, which the SDK's shell scripts do not quote."""
    complaint = isolation.try_mode(isolation.Isolation(mode))
    if complaint:
        pytest.skip(f"{mode}: {complaint}")
    from endpoint_fixtures import make_trainer

    running = start_endpoint(tmp_path / "a home", "--isolation", mode)
    restore = client.connect(running.url)
    try:
        trainer = make_trainer.__wrapped__(running, tmp_path)(
            LOOK,
            hosts=2,
            environment={"FROM_REQUEST": "/opt/ml/output/data"},
            hyperparameters={"folder": "/opt/ml/model"},
        )
        name = launch(trainer)
        ended = wait_end(name)
        assert ended["TrainingJobStatus"] == "Completed", (ended, log_lines(name))
        for host in ("algo-1", "algo-2"):
            seen = reported(name, host)
            assert seen["files"] == [] and seen["exists"] == [True, True, True]
            assert (seen["text"] == "/opt/ml/output/data") == (mode != "rewrite")
            folder = seen["toolkit"][3]["folder"]
            assert seen["toolkit"] == [host, ["algo-1", "algo-2"], False, {"folder": folder}, True]
        if mode == "rewrite":
            lost = wait_end(
                launch(make_trainer.__wrapped__(running, tmp_path)("open('/opt/ml/model/lost/w', 'w')"))
            )
            assert "The script names /opt/ml/model/lost/w itself." in lost["FailureReason"]
            assert "SM_MODEL_DIR" in lost["FailureReason"] and "FileNotFoundError" in lost["FailureReason"]
    finally:
        restore()
        end_endpoint(running)


def test_what_else_is_in_opt_stays_visible(tmp_path):
    chosen = isolation.choose()
    if chosen.mode not in ("root", "user"):
        pytest.skip(f"only namespaces cover /opt; here hosts are kept apart by {chosen.meaning}")
    siblings = sorted(name for name in os.listdir("/opt") if name != "ml")
    (tmp_path / "ml" / "code").mkdir(parents=True)
    (tmp_path / "hosts").write_text("127.0.0.1 localhost\n")
    command = chosen.command(
        ["ls", "-A", "/opt"],
        ml=tmp_path / "ml",
        hosts_file=tmp_path / "hosts",
        name="algo-1",
        scratch=tmp_path / "opt",
    )
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert sorted(done.stdout.split("\n")[:-1]) == sorted([*siblings, "ml"])
    assert not os.path.exists("/opt/ml/code"), "nothing of it is seen outside"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_namespaces_of_an_ordinary_user(tmp_path):
    """The package copied to where `nobody` may read it, run by the system's Python."""
    python = shutil.which("python3", path="/usr/bin")
    if python is None:
        pytest.skip("there is no system-wide Python here")
    copy = Path("/tmp") / f"lsm-test-{os.getpid()}"
    try:
        shutil.copytree(Path(SCRIPTS, "local_sagemaker"), copy / "local_sagemaker")
        for path in [copy, *copy.rglob("*")]:
            path.chmod(0o755)
        done = subprocess.run(
            [
                python,
                "-c",
                "from local_sagemaker.hosts.isolation import *; print(try_mode(Isolation('user')), choose().mode)",
            ],
            cwd=copy,
            user=65534,
            group=65534,
            extra_groups=[],
            env={"PATH": "/usr/bin:/bin", "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            timeout=60,
        )
    finally:
        shutil.rmtree(copy)
    if "Operation not permitted" in done.stdout:
        pytest.skip(f"this kernel gives users no namespaces: {done.stdout}")
    assert done.stdout == "None user\n", done.stderr


def test_an_isolation_that_does_not_work_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert isolation.choose().mode == "rewrite", "without any tool there is still this"
    with pytest.raises(
        isolation.IsolationError, match="'proot' does not work on this machine: there is no proot"
    ):
        isolation.choose("proot")


def test_a_process_takes_its_daemons_along(tmp_path):
    """A container ends with its first process; one that detached itself must not go on."""
    script = tmp_path / "detach.sh"
    script.write_text(
        "setsid sh -c 'echo $$ > pid; exec sleep 600' & while [ ! -s pid ]; do sleep 0.05; done; exit 7\n"
    )
    process = SupervisedProcess(["sh", str(script)], environment=dict(os.environ), folder=tmp_path)
    assert process.wait() == 7
    assert not Path("/proc", (tmp_path / "pid").read_text().strip()).exists() or sys.platform != "linux"
