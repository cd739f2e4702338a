"""Jobs that run at once have addresses of their own: both may listen on the same port of algo-1."""

import pytest
from endpoint_fixtures import launch, log_lines, reported, wait_end, wait_line
from local_sagemaker.hosts import addresses
from local_sagemaker.hosts.addresses import Network

ENDPOINT_OPTIONS = ("--max-jobs", "2")
# algo-1 listens on a fixed port until the test says that both jobs do; algo-2 calls it by its name.
MEET = """
import socket, time
job, go = os.environ["TRAINING_JOB_NAME"], pathlib.Path(os.environ["GO"])
if os.environ["SM_CURRENT_HOST"] == "algo-1":
    with socket.create_server(("algo-1", 7777)) as server:
        report("listens", server.getsockname())
        peer, _ = server.accept()
        with peer:
            report("caller", peer.recv(200).decode())
            while not go.exists():
                time.sleep(0.05)
            peer.sendall(job.encode())
else:
    for _ in range(600):
        try:
            with socket.create_connection(("algo-1", 7777), timeout=60) as peer:
                peer.sendall(job.encode())
                report("master", peer.recv(200).decode())
            break
        except ConnectionRefusedError:
            time.sleep(0.1)
"""


@pytest.mark.skipif(
    not addresses.OWN_ADDRESSES, reason="loopback has one address here, see hosts/addresses.py"
)
@pytest.mark.timeout(180)
def test_two_jobs_listen_on_one_port_of_algo_1(make_trainer, tmp_path):
    go = tmp_path / "go"
    names = [launch(make_trainer(MEET, hosts=2, environment={"GO": str(go)})) for _ in range(2)]
    for name in names:
        wait_line(name, "REPORT caller", timeout_s=90)
    go.touch()
    for name in names:
        assert wait_end(name)["TrainingJobStatus"] == "Completed", log_lines(name)[-20:]
        assert reported(name, "algo-1")["caller"] == name == reported(name, "algo-2")["master"]
    places = {tuple(reported(name)["listens"]) for name in names}
    assert len(places) == 2 and {port for _, port in places} == {7777}


def test_a_network_is_given_to_one_job_at_a_time(monkeypatch):
    if not addresses.OWN_ADDRESSES:
        assert Network(2).addresses == ["127.0.0.1", "127.0.0.1"]
        return
    monkeypatch.setattr(addresses, "_BLOCKS", [(127, 254)])  # within the range, and unlikely to be anybody's
    first = Network(2)
    assert first.addresses == ["127.127.254.2", "127.127.254.3"]
    with pytest.raises(OSError, match="All loopback addresses"):
        Network(1)
    first.close()
    Network(1).close()
