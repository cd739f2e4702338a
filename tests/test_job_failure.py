"""What a learner reads in FailureReason when a script fails; of several processes, the first one's reason."""

import argparse
import os

import pytest
from harness import run_two_processes
from job.container import ChannelNotFound, channel, checkpoint_dir, host_count, is_main_process, process_count
from job.failure import EndedEarly, describe, report_failure

SHOWN = 1024  # characters of the failure file that SageMaker shows


@pytest.fixture
def failure(tmp_path, monkeypatch):
    """Path of the failure file, in a folder that does not exist yet."""
    path = tmp_path / "output" / "failure"
    monkeypatch.setenv("SM_OUTPUT_FAILURE", str(path))
    return path


def fail_deeply(depth, error):
    if depth == 0:
        raise error
    fail_deeply(depth - 1, error)


def test_type_message_and_innermost_frames_come_first(failure):
    with pytest.raises(KeyError), report_failure():
        fail_deeply(30, KeyError("näme"))
    shown = failure.read_text(encoding="utf-8")[:SHOWN]
    first, second, *_ = shown.splitlines()
    assert first == "KeyError: 'näme'"
    assert second.startswith("  at tests/test_job_failure.py:")
    assert second.endswith("in fail_deeply: raise error")
    assert "Traceback (most recent call last)" in failure.read_text(encoding="utf-8")


def test_a_long_message_leaves_room_for_the_frames(failure):
    with pytest.raises(ValueError), report_failure():
        raise ValueError("x" * 100_000)
    shown = failure.read_text()[:SHOWN]
    assert " ...\n  at tests/test_job_failure.py:" in shown


def test_the_cause_is_named(failure):
    with pytest.raises(RuntimeError), report_failure():
        try:
            int("seven")
        except ValueError as error:
            raise RuntimeError("no number") from error
    shown = failure.read_text()[:SHOWN]
    assert shown.startswith("RuntimeError: no number\n")
    assert "Caused by ValueError: invalid literal" in shown


def test_text_that_is_no_unicode_is_written_too(failure):
    with pytest.raises(ValueError), report_failure():
        raise ValueError("a \ud800 surrogate")
    assert failure.read_text().startswith(r"ValueError: a \ud800 surrogate")


def test_an_error_without_a_message_is_still_one():
    assert describe(AssertionError()).startswith("AssertionError: no message")


@pytest.mark.parametrize(("code", "reported"), [(0, False), (None, False), (3, True), ("bad recipe", True)])
def test_exit_codes(failure, code, reported):
    with pytest.raises(SystemExit), report_failure():
        raise SystemExit(code)
    assert failure.exists() is reported
    if reported:
        assert failure.read_text().startswith(f"SystemExit: {code}")


def test_an_exit_with_0_in_the_middle_of_a_job_is_a_failure(failure, monkeypatch):
    """argparse's --help, for one: the job would complete, and nothing would have been trained."""
    monkeypatch.setenv("TRAINING_JOB_NAME", "grpo-1")
    with pytest.raises(EndedEarly), report_failure():
        argparse.ArgumentParser().parse_args(["--help"])
    assert failure.read_text().startswith(
        "EndedEarly: the script ended with exit code 0 before it had done its work. Is --help among its arguments"
    )


def test_success_writes_nothing(failure):
    with report_failure():
        pass
    assert not failure.parent.exists()


def test_the_first_reason_stays(failure):
    for reason in ("first", "second"):
        with pytest.raises(ValueError), report_failure():
            raise ValueError(reason)
    assert failure.read_text().startswith("ValueError: first")
    assert os.listdir(failure.parent) == ["failure"]  # no partial files


def test_a_place_that_cannot_be_written_does_not_hide_the_error(tmp_path, monkeypatch, capsys):
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SM_OUTPUT_FAILURE", str(tmp_path / "file" / "failure"))
    with pytest.raises(ValueError, match="the real one"), report_failure():
        raise ValueError("the real one")
    assert "could not be written" in capsys.readouterr().err


DISTRIBUTED = """
import torch.distributed as dist
from job.failure import report_failure
with report_failure():
    dist.init_process_group("gloo")
    if dist.get_rank() == 1:
        raise ValueError("only the second process knows why")
    dist.barrier()  # breaks, because the other process is gone
"""


@pytest.mark.job
@pytest.mark.timeout(180)
def test_of_two_processes_the_one_that_knows_reports(failure, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(DISTRIBUTED)
    run_two_processes(script, folder=tmp_path, fails=True, SM_OUTPUT_FAILURE=str(failure))
    assert failure.read_text().startswith("ValueError: only the second process knows why (process 1 of 2)")


def test_channels(monkeypatch, tmp_path):
    for name in ("CODE", "SM_DRIVERS", "TRAIN", "TEST"):
        monkeypatch.setenv(f"SM_CHANNEL_{name}", str(tmp_path / name.lower()))
    monkeypatch.setenv("SM_CHANNELS", '["train", "test"]')
    assert channel("train") == tmp_path / "train"
    with pytest.raises(
        ChannelNotFound, match=r"'prefs' \(it has: test, train\).*InputData\(channel_name=\"prefs\""
    ):
        channel("prefs")


def test_container_without_sagemakers_variables(monkeypatch):
    for name in ("SM_CHECKPOINT_DIR", "SM_HOST_COUNT", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert str(checkpoint_dir()) == "/opt/ml/checkpoints"
    assert (host_count(), process_count(), is_main_process()) == (1, 1, True)
    monkeypatch.setenv("RANK", "1")
    assert not is_main_process()
