"""The SDK's MPI driver on two hosts, without SSH: processes on both, and nothing left on the machine."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError
from endpoint_fixtures import connected_endpoint, launch, log_lines, make_trainer, wait_end
from local_sagemaker.compat import mpi_launch, mpi_without_ssh
from local_sagemaker.compat.driver_master import UnknownDrivers
from local_sagemaker.hosts import isolation
from sagemaker.train.distributed import MPI

SUM_OF_RANKS = """
from mpi4py import MPI
world = MPI.COMM_WORLD
total = world.allreduce(world.rank + 1)
print("SUMMED", total, world.size, os.environ["SM_CURRENT_HOST"], sys.argv[1:], flush=True)
sys.exit(int(sys.argv[2]) if world.rank == 1 else 0)
"""
NEEDED = "paramiko==5.1.0\n"  # by the driver; the tests' small image lacks it
ON_BOTH_HOSTS = MPI(process_count_per_node=2, mpi_additional_options=["--map-by", "node"])


@pytest.mark.endpoint
@pytest.mark.skipif(not isolation.choose().names_hosts, reason="needs Linux namespaces")
def test_processes_of_two_hosts_meet_and_a_failing_one_fails_the_job(tmp_path):
    variables = Path("/etc/environment")
    before = variables.read_bytes() if variables.exists() else None
    with connected_endpoint(tmp_path / "a home") as endpoint:
        make = make_trainer.__wrapped__(endpoint, tmp_path)
        arguments = {"requirements": NEEDED, "hosts": 2, "distributed": ON_BOTH_HOSTS}
        jobs = [
            launch(make(SUM_OF_RANKS, hyperparameters=given, **arguments))
            for given in ({"exit": 0}, {"exit": 3})
        ]
        good, bad = (wait_end(name, 180) for name in jobs)
        lines = [line.partition("SUMMED ")[2] for line in log_lines(jobs[0]) if "SUMMED" in line]
    assert good["TrainingJobStatus"] == "Completed", good.get("FailureReason")
    assert sorted(lines) == [f"3 2 {host} ['--exit', '0']" for host in ("algo-1", "algo-2")]
    assert bad["TrainingJobStatus"] == "Failed" and "mpirun" in bad["FailureReason"]
    assert before == (variables.read_bytes() if variables.exists() else None)


@pytest.mark.endpoint
def test_mpi_is_refused_where_hosts_have_no_names(tmp_path):
    with connected_endpoint(tmp_path / "home", "--isolation", "rewrite") as endpoint:
        trainer = make_trainer.__wrapped__(endpoint, tmp_path)(
            SUM_OF_RANKS, hosts=2, distributed=ON_BOTH_HOSTS
        )
        with pytest.raises(ClientError, match=r"distributed=MPI\(\) needs hosts with names.*use Torchrun"):
            launch(trainer)


def test_the_sdks_driver_still_starts_an_ssh_server(tmp_path):
    """As long as it does, mpi_without_ssh.py stays."""
    from sagemaker.train import container_drivers

    text = (Path(container_drivers.__file__).parent / mpi_without_ssh.UTILS).read_text()
    assert "/usr/sbin/sshd" in text and "/etc/environment" in text, "remove mpi_without_ssh.py"
    for name in mpi_without_ssh.REPLACED:
        assert f"def {name}(" in text and callable(getattr(mpi_launch, name))


def test_other_mpi_drivers_are_refused_and_other_jobs_left_alone(tmp_path):
    utils = tmp_path / mpi_without_ssh.UTILS
    utils.parent.mkdir()
    utils.write_text("def start_sshd_daemon(): ...\n")
    mpi_without_ssh.launch_without_ssh(tmp_path, tmp_path)
    (tmp_path / mpi_without_ssh.TRAIN_SCRIPT).write_text("python3 distributed_drivers/torchrun_driver.py")
    mpi_without_ssh.launch_without_ssh(tmp_path, tmp_path)
    assert utils.read_text() == "def start_sshd_daemon(): ...\n"
    (tmp_path / mpi_without_ssh.TRAIN_SCRIPT).write_text("python3 distributed_drivers/mpi_driver.py")
    with pytest.raises(UnknownDrivers, match="has no write_env_vars_to_file"):
        mpi_without_ssh.launch_without_ssh(tmp_path, tmp_path)
