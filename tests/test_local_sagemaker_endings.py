"""A process that the system ended: FailureReason names the signal and its likely cause before all tracebacks."""

import subprocess
import sys

import pytest
from local_sagemaker.jobs.endings import ended_by_signal
from local_sagemaker.jobs.hard_coded import missed_path, strayed_files

KILLS_ITSELF = """
import os, signal, time
if os.environ.get("RANK", "1") == "1":
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(60)
"""


@pytest.mark.job
@pytest.mark.timeout(120)
def test_what_torchrun_says_of_a_process_that_was_killed(tmp_path):
    (tmp_path / "train.py").write_text(KILLS_ITSELF)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "train.py"]
    run = subprocess.run(
        command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=100
    )
    found = ended_by_signal(run.stdout.splitlines(), run.returncode)
    assert found.startswith("SIGKILL ended process ") and "out of memory" in found, run.stdout[-2000:]


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (
            "CalledProcessError: Command '['python']' died with <Signals.SIGKILL: 9>.",
            1,
            "SIGKILL ended a process",
        ),
        (
            "  exitcode  : -11 (pid: 77)  (SIGSEGV)",
            1,
            "SIGSEGV ended process 77: it crashed in compiled code",
        ),
        ("exitcode  : -15 (pid: 77)  (SIGTERM)", 1, None),
        (
            "Root Cause (first observed failure):\n[0]:\n  exitcode  : -15 (pid: 77)",
            1,
            "SIGTERM ended process 77: somebody asked it to end",
        ),
        ("SignalException: Process 47 got signal: 15", 1, "SIGTERM ended process 47"),
        (
            "CalledProcessError: Command '['python']' died with <Signals.SIGTERM: 15>.",
            1,
            "SIGTERM ended a process",
        ),
        (
            "killed due to memory pressure (OOM)",
            1,
            "Ray ended a process because the machine ran out of memory",
        ),
        ("", 137, "SIGKILL ended the script"),
        ("", 247, "SIGKILL ended the script"),
        ("", -9, "SIGKILL ended the host"),
        ("", 139, "SIGSEGV ended the script"),
        *(("ValueError: no signal here", code, None) for code in (1, 2, 128, 130, 143, 200, 241, 254, 255)),
    ],
)
def test_which_signal(line, code, words):
    found = ended_by_signal(["before", *line.splitlines(), "after"], code)
    assert found is None if words is None else found.startswith(words)


@pytest.mark.endpoint
@pytest.mark.timeout(300)
def test_the_failure_reason_begins_with_it(make_trainer):
    trainer = make_trainer(KILLS_ITSELF)
    with pytest.raises(
        Exception, match="AlgorithmError: SIGKILL ended a process: most likely the machine ran out of memory"
    ):
        trainer.train(wait=True)


def test_a_path_that_a_script_names_itself():
    lines = [
        "reading /opt/ml/input/data/train",
        "FileNotFoundError: [Errno 2] No such file or directory: '/opt/ml/model/a.bin'",
    ]
    assert missed_path(lines).startswith("The script names /opt/ml/model/a.bin itself. Jobs have no /opt/ml")
    assert missed_path(lines[:1]) is None


def test_files_that_a_job_wrote_beside_its_folders(tmp_path):
    for name in ("model/weights", "metadata/notebook"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text("x")
    written = (tmp_path / "model" / "weights").stat().st_mtime
    assert strayed_files(written, tmp_path).startswith(f"Written to {tmp_path}/model/weights of this machine")
    assert strayed_files(written + 60, tmp_path) is None
    assert strayed_files(written, tmp_path / "absent") is None
