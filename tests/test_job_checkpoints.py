"""Which checkpoint a job goes on from, when some are damaged in each of the ways that an interruption leaves them."""

import pytest
from job.checkpoints import mark_complete, newest_complete


@pytest.fixture
def checkpoints(tmp_path):
    """Three complete checkpoints: 5, 20 and 100 steps."""
    for step in (5, 20, 100):
        folder = tmp_path / f"checkpoint-{step}"
        (folder / "deeper").mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"w" * 100)
        (folder / "deeper" / "optimizer.pt").write_bytes(b"o" * 50)
        mark_complete(folder)
    return tmp_path


def test_the_newest_by_number_wins(checkpoints, capsys):
    (checkpoints / "checkpoint-best").mkdir()
    (checkpoints / "checkpoint-999").write_text("a file")
    assert newest_complete(checkpoints).name == "checkpoint-100"
    assert capsys.readouterr().out == "Going on from checkpoint-100.\n"


@pytest.mark.parametrize("empty", [True, False])
def test_nothing_to_go_on_from(tmp_path, empty, capsys):
    assert newest_complete(tmp_path if empty else tmp_path / "nowhere") is None
    assert capsys.readouterr().out == ""


DAMAGE = {
    "it was never finished": lambda folder: (folder / "complete-0.json").unlink(),
    "complete-0.json is cut off": lambda folder: (folder / "complete-0.json").write_text('{"hosts": 1, "fi'),
    "model.safetensors is missing": lambda folder: (folder / "model.safetensors").unlink(),
    "deeper/optimizer.pt has 7 of 50 bytes": lambda folder: (folder / "deeper" / "optimizer.pt").write_bytes(
        b"o" * 7
    ),
}


@pytest.mark.parametrize("problem", DAMAGE)
def test_a_damaged_one_is_skipped_with_the_reason(checkpoints, problem, capsys):
    DAMAGE[problem](checkpoints / "checkpoint-100")
    assert newest_complete(checkpoints).name == "checkpoint-20"
    expected = f"Skipping checkpoint-100, which is incomplete: {problem}.\nGoing on from checkpoint-20.\n"
    assert capsys.readouterr().out == expected


def test_only_the_main_process_prints(checkpoints, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    assert newest_complete(checkpoints).name == "checkpoint-100"
    assert capsys.readouterr().out == ""


def test_every_host_must_have_finished(checkpoints, monkeypatch, capsys):
    monkeypatch.setenv("SM_HOST_COUNT", "2")
    for step, hosts in ((100, "0"), (20, "01")):
        folder = checkpoints / f"checkpoint-{step}"
        for host in hosts:
            monkeypatch.setenv("SM_CURRENT_HOST_RANK", host)
            mark_complete(folder)
    assert newest_complete(checkpoints).name == "checkpoint-20"
    assert "1 of 2 hosts finished it" in capsys.readouterr().out


def test_marking_again_after_a_restart_counts_the_files_anew(checkpoints):
    folder = checkpoints / "checkpoint-100"
    (folder / "model.safetensors").write_bytes(b"w" * 10)
    mark_complete(folder)
    assert newest_complete(checkpoints) == folder
