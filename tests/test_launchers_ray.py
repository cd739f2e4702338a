"""RayCluster: real Ray clusters in jobs of one and two hosts on the local endpoint, and every way in which they end."""

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from multiprocessing.connection import Client, Listener
from pathlib import Path

import boto3
import psutil
import pytest
from endpoint_fixtures import (
    launch,
    log_lines,
    reported,
    wait_end,
    wait_line,
)
from launchers import RayCluster
from local_sagemaker.environments import job_environment

DRIVERS = Path(__file__).parents[1] / "scripts" / "launchers" / "drivers"
MODULE = Path(__file__).parents[1] / "05_grpo_verl" / "scripts"
# Ray alone, as the module pins it: the image without torch is enough for these jobs, which start in seconds.
RAY = next(line for line in (MODULE / "requirements.txt").read_text().splitlines() if line.startswith("ray["))
pytestmark = pytest.mark.timeout(600)  # the first job may have to build the environment

# The script runs on the head. What it asks the other host to do is a task that Ray sends there.
SCRIPT = """
import argparse, time, urllib.error, urllib.request
parser = argparse.ArgumentParser()
parser.add_argument("--mode"), parser.add_argument("--text")
arguments = parser.parse_args()
import ray
ray.init()
nodes = {node["NodeManagerAddress"]: node["Resources"] for node in ray.nodes() if node["Alive"]}

@ray.remote(num_gpus=1)
def on_a_slot():
    print("a task speaks", flush=True)
    return os.environ["SM_CURRENT_HOST"]

def dashboard(**headers):
    request = urllib.request.Request(f"http://{ray._private.worker.get_dashboard_url()}/api/v0/nodes", headers=headers)
    try:
        return urllib.request.urlopen(request, timeout=30).status
    except urllib.error.HTTPError as error:
        return error.code

@ray.remote(num_cpus=0)
def kill_ray():
    os.kill(os.getppid(), 9)  # a worker's parent is the raylet

if arguments.mode == "fine":
    slots = int(sum(resources["GPU"] for resources in nodes.values()))
    tasks = [on_a_slot.remote() for _ in range(slots)]
    report("cluster", {
        "addresses": sorted(nodes), "hosts": sorted(ray.get(tasks)), "text": arguments.text, "home": os.environ["HOME"],
        "config": "SM_DISTRIBUTED_CONFIG" in os.environ, "dashboard": ray._private.worker.get_dashboard_url(),
    })
    if ray._private.worker.get_dashboard_url():
        token = open(os.environ["RAY_AUTH_TOKEN_PATH"]).read()
        report("page", [dashboard(), dashboard(Authorization=f"Bearer {token}")])
    time.sleep(1)  # for the tasks' output to arrive
if arguments.mode == "raise":
    raise RuntimeError("reward went NaN at step 5")
if arguments.mode == "kill-ray":
    other = next(address for address in nodes if address != ray.util.get_node_ip_address())
    kill_ray.options(resources={f"node:{other}": 0.1}).remote()
if arguments.mode in ("kill-ray", "sleep"):
    print("the script sleeps", flush=True)
    time.sleep(600)
"""
LATE = """
import os, runpy, sys, time
if os.environ["SM_CURRENT_HOST"] == "algo-2":
    time.sleep(600)
runpy.run_path(os.path.join(os.path.dirname(__file__), "ray_driver.py"), run_name="__main__")
"""


class LateCluster(RayCluster):
    """A cluster whose second host never gets as far as joining."""

    @property
    def driver_dir(self) -> str:
        folder = super().driver_dir
        (Path(folder) / "late_driver.py").write_text(LATE)
        return folder

    @property
    def driver_script(self) -> str:
        return "late_driver.py"


@pytest.fixture
def run(make_trainer):
    """run(mode, hosts, **RayCluster fields) -> name of the started job."""

    def start(mode: str, hosts: int, cluster: type = RayCluster, **fields) -> str:
        trainer = make_trainer(
            SCRIPT,
            hosts=hosts,
            requirements=RAY,
            distributed=cluster(**fields),
            hyperparameters={"mode": mode, "text": 'he said "\u2713 $HOME"'},
        )
        return launch(trainer)

    return start


def ended(name: str, status: str) -> dict:
    job = wait_end(name, timeout_s=800)
    assert job["TrainingJobStatus"] == status, (job, log_lines(name)[-40:], log_lines(name, "algo-2")[-20:])
    return job


def secret_of(endpoint, name: str) -> str:
    (file,) = endpoint.job_folder(name).rglob("algo-1/**/ray_auth_token")
    return file.read_text()


def test_two_hosts_make_one_cluster_and_keep_its_secret(run, endpoint):
    name = run("fine", 2)
    job = ended(name, "Completed")
    cluster = reported(name)["cluster"]
    network = cluster["addresses"][0].removesuffix(".2")
    assert network.startswith("127.") and cluster["addresses"] == [f"{network}.2", f"{network}.3"]
    assert cluster["hosts"] == ["algo-1", "algo-2"]
    assert cluster["text"] == 'he said "\u2713 $HOME"'
    assert not cluster["config"] and not cluster["dashboard"]
    lines = log_lines(name) + log_lines(name, "algo-2")
    assert sum("a task speaks" in line for line in log_lines(name)) == 2, log_lines(name)[-30:]
    secret = secret_of(endpoint, name)
    assert len(secret) == 64
    assert not any(secret in line for line in lines)
    assert secret not in json.dumps(job, default=str)


def test_one_host_with_two_slots_and_a_dashboard(run):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    name = run("fine", 1, process_count_per_node=2, dashboard_port=port)
    ended(name, "Completed")
    cluster = reported(name)["cluster"]
    assert cluster["hosts"] == ["algo-1", "algo-1"]
    assert cluster["dashboard"] == f"127.0.0.1:{port}"
    assert reported(name)["page"] == [401, 200], "it is served to those who have the job's token alone"


def test_a_failing_script_fails_the_job_with_its_error(run):
    name = run("raise", 2)
    job = ended(name, "Failed")
    assert job["FailureReason"].startswith("AlgorithmError: RuntimeError: reward went NaN at step 5"), job
    assert "exit code: 1" in job["FailureReason"]
    assert any("Execution Completed" in line for line in log_lines(name, "algo-2")), (
        "it left when the head said so"
    )


def test_a_missing_host_fails_the_job_by_name(run):
    name = run("fine", 2, LateCluster, join_timeout_s=30)
    job = ended(name, "Failed")
    assert "algo-2 did not join the Ray cluster within 30 s" in job["FailureReason"]
    assert not any("Executing command" in line for line in log_lines(name))


def test_a_host_whose_ray_is_killed_fails_the_job_by_name(run):
    name = run("kill-ray", 2)
    wait_line(name, "the script sleeps", timeout_s=800)  # for ten minutes; Ray on algo-2 is gone already
    lost = time.monotonic()
    job = ended(name, "Failed")
    assert time.monotonic() - lost < 30
    assert "Ray ended on host algo-2" in job["FailureReason"]
    assert "raylet" in job["FailureReason"]


def test_a_stopped_job_leaves_no_process(run, endpoint):
    name = run("sleep", 2)
    wait_line(name, "the script sleeps", timeout_s=800)
    folder = str(endpoint.job_folder(name))
    assert [p for p in processes() if folder in mapped(p)]
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    ended(name, "Stopped")
    assert [p for p in processes() if folder in mapped(p)] == []


def processes() -> list[psutil.Process]:
    return list(psutil.process_iter())


def mapped(process: psutil.Process) -> str:
    """Variables of a process, among which a job's folder shows; empty if it is gone or another user's."""
    try:
        return " ".join(process.environ().values())
    except (psutil.Error, OSError):
        return ""


def driver_environment(folder: Path, venv: Path, **changes: str) -> dict[str, str]:
    """What the SDK's start script tells the driver, on a machine that is a job's only host."""
    return {
        "PATH": f"{venv}/bin:{os.environ['PATH']}",
        "HOME": str(folder),
        "TMPDIR": str(folder),
        "SM_OUTPUT_FAILURE": str(folder / "failure"),
        "SM_DISTRIBUTED_CONFIG": json.dumps(RayCluster(join_timeout_s=120).model_dump()),
        "SM_HOSTS": '["localhost"]',
        "SM_CURRENT_HOST": "localhost",
        "SM_MASTER_ADDR": "localhost",
        "SM_MASTER_PORT": "0",
        "SM_NUM_GPUS": "0",
        "SM_NETWORK_INTERFACE_NAME": "lo",
        "SM_CURRENT_INSTANCE_TYPE": "ml.m5.xlarge",
        "SM_ENTRY_SCRIPT": str(folder / "train.py"),
        "SM_HPS": "{}",
        **changes,
    }


def test_a_signal_ends_the_driver_and_its_ray_and_no_other_ray(endpoint, request):
    # Short: Ray's sockets are in it, and their paths may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="r"))
    request.addfinalizer(lambda: shutil.rmtree(folder, ignore_errors=True))
    (folder / "requirements.txt").write_text(RAY)
    venv = job_environment(folder / "requirements.txt", base=endpoint.home / "base.txt", log=print)
    drivers, cluster = folder / "sm_drivers" / "distributed_drivers", RayCluster()
    shutil.copytree(cluster.driver_dir, drivers)
    sdk = Path(boto3.__file__).parents[1] / "sagemaker" / "train" / "container_drivers" / "common"
    shutil.copytree(sdk, drivers.parent / "common")
    (folder / "train.py").write_text(
        "import ray, time\nray.init()\nprint('up', flush=True)\ntime.sleep(600)\n"
    )

    def start(home: str) -> subprocess.Popen:
        environment = driver_environment(folder, venv, TMPDIR=str(folder / home))
        (folder / home).mkdir()
        process = subprocess.Popen(
            [venv / "bin" / "python", drivers / "ray_driver.py"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert any(line == "up\n" for line in process.stdout)
        return process

    first = start("a")
    second = start("b")
    try:
        of_first, of_second = (psutil.Process(p.pid).children(recursive=True) for p in (first, second))
        assert {p.name() for p in of_second} >= {"raylet", "gcs_server"}
        second.send_signal(signal.SIGTERM)
        assert second.wait(30) == 128 + signal.SIGTERM
        psutil.wait_procs(of_second, timeout=10)
        assert [p for p in of_second if p.is_running() and p.status() != psutil.STATUS_ZOMBIE] == []
        assert all(p.is_running() for p in of_first)
    finally:
        first.send_signal(signal.SIGTERM)
        first.wait(30)


def test_the_kernel_asks_whether_the_other_hosts_are_there(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(DRIVERS))
    import ray_hosts

    (tmp_path / "token").write_bytes(b"secret")
    monkeypatch.setattr(ray_hosts, "TOKEN_FILE", tmp_path / "token")
    listener = Listener(("127.0.0.1", 0))
    registry = ray_hosts.HostRegistry(["algo-2"], listener, "10.0.0.1:6379")
    other = Client(listener.address, authkey=b"secret")
    other.send("algo-2")
    assert other.recv() == "10.0.0.1:6379"
    (connection,) = registry._connections
    with socket.socket(fileno=os.dup(connection.fileno())) as own:
        assert own.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        asked = own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE)
        asked += own.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) * own.getsockopt(
            socket.IPPROTO_TCP, socket.TCP_KEEPCNT
        )
        assert asked == ray_hosts.KEEPALIVE_TIMEOUT_S
    other.close()
    deadline = time.monotonic() + 10
    while not registry.why_lost() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert registry.why_lost() == "Lost host algo-2: the connection to it broke."
    registry.close()


def test_settings_are_checked_and_the_driver_is_shipped():
    cluster = RayCluster(process_count_per_node=2, dashboard_port=8265)
    assert json.loads(json.dumps(cluster.model_dump())) == {
        "process_count_per_node": 2,
        "join_timeout_s": 600,
        "dashboard_port": 8265,
    }
    tokens = set()
    for _ in range(2):  # two jobs of one trainer
        folder = Path(cluster.driver_dir)
        assert {"ray_driver.py", "script_run.py", "ray_auth_token"} <= {
            path.name for path in folder.iterdir()
        }
        tokens.add((folder / "ray_auth_token").read_text())
    assert len(tokens) == 2
    with pytest.raises(ValueError, match="dashboard"):
        RayCluster(dashboard=True)
    with pytest.raises(ValueError, match="join_timeout_s"):
        RayCluster(join_timeout_s=0)
