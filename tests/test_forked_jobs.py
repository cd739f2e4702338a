"""The jobs of tests that are forked: they see what a process of their own would see, and end as it would."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from forked_jobs import Command, ForkedJob, Preload, Ranks, fork_job
from harness import kill
from job_variables import job_variables

NOTHING = Preload(Path(sys.executable), ("json",))
pytestmark = [
    pytest.mark.job,
    pytest.mark.timeout(120),
    pytest.mark.skipif(sys.platform != "linux", reason="forked on Linux only"),
]


@pytest.fixture
def start(tmp_path):
    """start(code, *arguments, ranks, **variables): the job of a script, and its log."""

    def start(
        code: str, *arguments: str, ranks: Ranks | None = None, **variables: str
    ) -> tuple[ForkedJob, Path]:
        script, log = tmp_path / "script.py", tmp_path / "log"
        script.write_text(code)
        command = Command(script, arguments, job_variables(**variables), tmp_path, log, ranks)
        return fork_job(NOTHING, command), log

    return start


def test_a_script_sees_what_it_was_given(start, tmp_path):
    (tmp_path / "neighbour.py").write_text("NAME = __name__")
    job, log = start(
        "import json, os, sys, neighbour\n"
        "print(json.dumps([sys.argv[1:], os.environ['MINE'], os.getcwd(), neighbour.NAME, __name__]))",
        "--steps=2",
        MINE="1",
    )
    assert job.wait(30) == 0
    assert json.loads(log.read_text()) == [["--steps=2"], "1", str(tmp_path), "neighbour", "__main__"]


@pytest.mark.parametrize(
    ("code", "exit_code", "written"),
    [
        ("raise SystemExit(3)", 3, ""),
        ("raise SystemExit('no such recipe')", 1, "no such recipe\n"),
        ("1 / 0", 1, "ZeroDivisionError"),
        ("import atexit; atexit.register(print, 'good bye')", 0, "good bye\n"),
        ("import threading; threading.Timer(0.5, print, ['late']).start()", 0, "late\n"),
    ],
)
def test_it_ends_as_a_process_of_its_own(code, exit_code, written, start):
    job, log = start(code)
    assert job.wait(30) == job.poll() == job.returncode == exit_code
    assert written in log.read_text()


def test_it_is_still_running_until_it_is_killed(start):
    job, _ = start("import time; time.sleep(600)")
    assert job.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(0.1)
    job.kill()
    assert job.wait(30) == -signal.SIGKILL
    job.kill()  # nothing is left to be killed


def test_processes_know_their_ranks(start):
    code = "import os; print(*(os.environ[name] for name in ('RANK', 'LOCAL_RANK', 'WORLD_SIZE', 'MASTER_PORT')))"
    job, log = start(code, ranks=Ranks(2, host_rank=1, hosts=3, port=1234))
    assert job.wait(30) == 0
    assert sorted(log.read_text().splitlines()) == ["2 0 6 1234", "3 1 6 1234"]


def test_one_that_fails_ends_the_others(start):
    code = "import os, time\nif os.environ['RANK'] == '0': time.sleep(600)\n1 / 0"
    job, log = start(code, ranks=Ranks(2, 0, 1, 1234))
    assert job.wait(30) == 1
    assert log.read_text().count("ZeroDivisionError") == 1


def test_killing_a_job_ends_all_its_processes(start):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(600)"
    job, log = start(code, ranks=Ranks(2, 0, 1, 1234))
    deadline = time.monotonic() + 30
    while len(processes := log.read_text().split()) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    kill(job)
    while any(psutil.pid_exists(int(process)) for process in processes) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert len(processes) == 2 and not any(psutil.pid_exists(int(process)) for process in processes)


def test_the_server_ends_when_the_tests_are_killed(tmp_path):
    code = (
        "import os, pathlib, sys, psutil, forked_jobs\n"
        "forked_jobs._server(forked_jobs.Preload(pathlib.Path(sys.executable), ('json',)))\n"
        "(server,) = psutil.Process().children()\n"
        "print(server.pid, flush=True)\n"
        "os.kill(os.getpid(), 9)"
    )
    killed = subprocess.run(
        [sys.executable, "-c", code], env=job_variables(Path(__file__).parent), stdout=subprocess.PIPE
    )
    server, deadline = int(killed.stdout), time.monotonic() + 30
    while psutil.pid_exists(server) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(server)


def test_jobs_do_not_share_what_they_draw(start):
    drawn = []
    for _ in range(2):
        job, log = start("import random; print(random.random())")
        assert job.wait(30) == 0
        drawn.append(log.read_text())
    assert drawn[0] != drawn[1]
