"""The endpoint as a process: how it starts and ends, what it leaves behind, and its command line."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from endpoint_fixtures import (
    end_endpoint,
    endpoint_environment,
    launch,
    make_trainer,
    run_command,
    start_endpoint,
    wait_line,
)
from local_sagemaker import client
from local_sagemaker.api.server import _only_endpoint
from local_sagemaker.hosts import isolation

pytestmark = pytest.mark.endpoint

# Three kinds of process that could be left behind: the script, its child, and one that has detached itself.
FAMILY = """
import subprocess, time
child = subprocess.Popen(["sleep", "601"])
daemon = subprocess.Popen(["setsid", "sh", "-c", "sleep 602 & sleep 603"], start_new_session=True)
print("family is here", flush=True)
time.sleep(600)
"""


@pytest.fixture
def own_endpoint(tmp_path):
    """start(*options): an endpoint of this test alone, this process connected to it."""
    started = []

    def start(*options: str):
        running = start_endpoint(tmp_path / "home", *options)
        started.append((running, client.connect(running.url)))
        return running

    yield start
    for running, restore in started:
        restore()
        end_endpoint(running)


def processes_of(marker: str) -> list[int]:
    """Ids of the living processes whose environment mentions `marker` (a job's name is in all of its own)."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if marker.encode() in (entry / "environ").read_bytes():
                    found.append(int(entry.name))
            except OSError:
                continue  # it has ended, or is another user's
    return found


def wait_for(condition, timeout_s: float = 20) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s} s"
        time.sleep(0.1)


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
@pytest.mark.parametrize("mode", isolation.MODES)
def test_a_killed_endpoint_leaves_no_orphans_and_all_files(mode, own_endpoint, tmp_path):
    complaint = isolation.try_mode(isolation.Isolation(mode))
    if complaint:
        pytest.skip(f"{mode}: {complaint}")
    running = own_endpoint("--isolation", mode)
    name = launch(make_trainer.__wrapped__(running, tmp_path)(FAMILY, hosts=2))
    wait_line(name, "family is here")
    wait_for(lambda: len(processes_of(name)) >= 10)
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    wait_for(lambda: processes_of(name) == [])
    assert "family is here" in running.command("logs", name).stdout
    assert "Lost (its endpoint ended)" in running.command("jobs").stdout
    assert client.find_endpoint(running.home) is None, "a record of a dead endpoint does not count"


@pytest.mark.skipif(sys.platform != "linux", reason="processes are looked up in /proc")
def test_a_killed_endpoint_ends_pip_too(own_endpoint, tmp_path):
    running = own_endpoint()
    marker = str(running.home)
    launch(
        make_trainer.__wrapped__(running, tmp_path)(
            "", requirements=f"iniconfig==2.3.0 # {time.time()}\nno-such-a-name\n"
        )
    )
    wait_for(lambda: any("pip" in _command(pid) for pid in processes_of(marker)))
    os.kill(running.process.pid, signal.SIGKILL)
    running.process.wait()
    wait_for(lambda: processes_of(marker) == [])


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def test_shutdown_ends_jobs_and_says_so(own_endpoint, tmp_path):
    running = own_endpoint()
    trainers = make_trainer.__wrapped__(running, tmp_path)
    name, waiting = launch(trainers(FAMILY)), launch(trainers(FAMILY, base_job_name="second"))
    wait_line(name, "family is here")
    assert f"{waiting} has not written a log: it is Pending" in running.command("logs", waiting).stderr
    assert running.command("shutdown").stdout == "The endpoint has ended.\n"
    assert running.process.wait(20) == 0
    assert processes_of(name) == []
    for job in (name, waiting):
        record = json.loads((running.job_folder(job) / "job.json").read_text())
        assert (record["status"], record["secondary_status"]) == ("Stopped", "Stopped") and record["ended"]
    assert running.command("shutdown").stdout == "No endpoint was running.\n"
    assert not (running.home / "endpoint.json").exists()


def test_a_port_in_use_and_a_second_endpoint_are_refused(own_endpoint, tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        refused = run_command(tmp_path / "other", "serve", "--port", port)
    assert refused.returncode == 1 and refused.stdout == ""
    assert f"Cannot listen on 127.0.0.1:{port}: another program uses the port" in refused.stderr
    assert "--port" in refused.stderr
    assert "Traceback" not in refused.stderr
    running = own_endpoint()
    second = running.command("serve")
    assert second.returncode == 1 and f"already runs at {running.url}" in second.stderr


@pytest.mark.parametrize("option, value", [("--port", "99999"), ("--port", "-1"), ("--max-jobs", "0")])
def test_numbers_that_cannot_be_are_refused(tmp_path, option, value):
    """Port 99999 would be taken modulo 65,536, and of no job at a time none would ever start."""
    refused = run_command(tmp_path, "serve", option, value)
    assert refused.returncode == 2 and "is not a whole number from" in refused.stderr


def test_commands_without_an_endpoint_or_a_job(tmp_path):
    assert "No endpoint is running; start one with" in run_command(tmp_path, "stop", "x").stderr
    assert run_command(tmp_path, "jobs").stdout.startswith("No jobs in ")
    missing = run_command(tmp_path, "logs", "nobody")
    assert missing.returncode == 1 and "No logs of a job named nobody" in missing.stderr


def test_notebooks_share_one_endpoint_that_outlives_them(tmp_path):
    """Two processes ask at the same moment; the endpoint they get is one, and does not end with them."""
    ask = "from local_sagemaker import client; e = client.ensure_endpoint(); print(e.url, e.pid)"
    environment = endpoint_environment(tmp_path / "home")
    asking = [
        subprocess.Popen([sys.executable, "-c", ask], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in "ab"
    ]
    try:
        answers = {process.communicate(timeout=60)[0] for process in asking}
        assert len(answers) == 1
        found = client.find_endpoint(tmp_path / "home")
        assert found and answers == {f"{found.url} {found.pid}\n"}
    finally:
        assert client.shutdown(tmp_path / "home")


@pytest.mark.parametrize("first", ["a notebook", "a user of it", "serve"])
def test_a_home_that_it_makes_is_the_users_alone(first, tmp_path):
    """Its jobs leave tokens of Ray there. A home that is there stays as it is."""
    home, kept = tmp_path / "new" / "home", tmp_path / "kept"
    kept.mkdir(mode=0o755)
    kept.chmod(0o755)
    for folder in (home, kept):
        if first == "a notebook":
            client.ensure_endpoint(folder)
            client.shutdown(folder)
        elif first == "a user of it":
            client.use(folder).close()
        else:
            with _only_endpoint(folder):
                pass
    assert home.stat().st_mode & 0o777 == 0o700
    assert kept.stat().st_mode & 0o777 == 0o755


def test_an_endpoint_that_cannot_start_says_why(tmp_path, monkeypatch):
    home = tmp_path / "home"
    (home / "jobs").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "moto").mkdir()
    (tmp_path / "moto" / "__init__.py").write_text("raise ImportError('no moto today')")
    monkeypatch.setattr(sys, "path", sys.path)
    with pytest.raises(client.EndpointError, match="no moto today"):
        client.ensure_endpoint(home)


FROM_A_PAGE = [
    {"Origin": "https://evil.example"},
    {"Host": "evil.example"},
    {"Sec-Fetch-Site": "cross-site"},  # an image tag has no Origin
    {"Sec-Fetch-Site": "same-site"},
]


def test_web_pages_cannot_reach_it(own_endpoint):
    running = own_endpoint()
    for headers in FROM_A_PAGE:
        for path in ("/", "/local_sagemaker/shutdown"):
            request = urllib.request.Request(running.url + path, headers=headers, method="POST")
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(request, timeout=10)
    for action in ("shutdown", "status", "interrupt"):
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(f"{running.url}/local_sagemaker/{action}", timeout=10)
    assert running.process.poll() is None


@pytest.mark.skipif(sys.platform != "linux" or os.getuid() != 0, reason="only root can be another user")
def test_other_users_cannot_reach_it(own_endpoint):
    running = own_endpoint()
    port = running.url.rpartition(":")[2]
    code = (  # nothing is imported after setuid: Python itself may lie in a folder of root's
        "import encodings.idna, os, socket, sys\n"
        "os.setuid(int(sys.argv[3]))\n"
        "connection = socket.create_connection(('127.0.0.1', int(sys.argv[1])))\n"
        "head = f'POST {sys.argv[2]} HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n'\n"
        "connection.sendall(head.encode())\n"
        "print(connection.makefile('rb').read())\n"
    )

    def asks(user: int, path: str) -> str:
        command = [sys.executable, "-c", code, port, path, str(user)]
        return subprocess.run(command, capture_output=True, text=True, timeout=60).stdout

    for path in ("/", "/local_sagemaker/shutdown", "/local_sagemaker/status"):
        answer = asks(65534, path)
        assert " 403 " in answer and "(user 65534 asked)" in answer
    assert " 200 " in asks(0, "/local_sagemaker/status")


def test_an_idle_endpoint_ends_itself(own_endpoint):
    running = own_endpoint("--idle-hours", "0.0003")
    assert running.process.wait(20) == 0
