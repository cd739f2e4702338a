"""verl's metrics become the job's history: every step once and in order, whatever happened in between."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from verl_history import History, write_step


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SM_CHECKPOINT_DIR", str(tmp_path / "checkpoints"))
    monkeypatch.setenv("SM_OUTPUT_DATA_DIR", str(tmp_path / "output"))
    (tmp_path / "checkpoints").mkdir()
    return tmp_path


def line(step: int, reward: float) -> str:
    data = {"critic/rewards/mean": reward, "rewards/accuracy/mean": reward, "perf/total_num_tokens": 10}
    return json.dumps({"step": step, "data": data}) + "\n"


def train(history: History, steps: list[int], reward: float) -> None:
    """What verl does meanwhile: it opens the file and writes a line for each step."""
    with history.following(steps=6), open(history.file, "w") as file:
        for step in steps:
            file.write(line(step, reward))
            file.flush()


def written(folders: Path) -> list[tuple[int, float]]:
    rows = map(json.loads, (folders / "output" / "history.jsonl").read_text().splitlines())
    return [(row["step"], row["reward"]) for row in rows]


def test_each_step_is_printed_and_kept(folders, capsys):
    history = History(None)
    train(history, [1, 2], 0.5)
    assert written(folders) == [(1, 0.5), (2, 0.5)]
    lines = capsys.readouterr().out.splitlines()
    assert lines == [f"[metrics] step={step}/6 reward=0.5 rewards/accuracy/mean=0.5" for step in (1, 2)]
    assert sum(row["tokens"] for row in history.trained) == 20


def test_after_two_resumes_each_step_stands_there_once(folders, capsys):
    train(History(None), [1, 2, 3], 0.1)  # the checkpoint is that of step 2
    for checkpoint, steps, reward in ((2, [3, 4, 5], 0.2), (4, [5, 6], 0.3)):
        (folders / "output" / "history.jsonl").unlink()  # a fresh container
        capsys.readouterr()
        history = History(folders / "checkpoints" / f"global_step_{checkpoint}")
        train(history, steps, reward)
        assert [row["step"] for row in history.trained] == steps
        assert capsys.readouterr().out.count("[metrics]") == len(steps)
    assert written(folders) == [(1, 0.1), (2, 0.1), (3, 0.2), (4, 0.2), (5, 0.3), (6, 0.3)]


def test_a_step_that_was_saved_and_not_logged_is_in_its_checkpoint(folders):
    train(History(None), [1, 2, 3], 0.1)  # the job ended after saving step 4, before verl logged it
    saved = folders / "checkpoints" / "global_step_4"
    saved.mkdir()
    step = json.loads(line(4, 0.2))
    write_step(saved, 4, {**step["data"], "actor/entropy": np.float32(0.5), "a text": "left out"})
    (folders / "output" / "history.jsonl").unlink()
    train(History(saved), [5, 6], 0.3)
    shutil.rmtree(saved)  # as verl does with older checkpoints
    (folders / "output" / "history.jsonl").unlink()
    History(folders / "checkpoints" / "global_step_6")
    assert written(folders) == [(1, 0.1), (2, 0.1), (3, 0.1), (4, 0.2), (5, 0.3), (6, 0.3)]


def test_a_cut_off_line_is_not_read(folders):
    (folders / "checkpoints" / "metrics_000000.jsonl").write_text(line(1, 0.1) + line(2, 0.1)[:-5])
    assert [row["step"] for row in History(folders / "checkpoints" / "global_step_2").rows] == [1]


def test_what_goes_wrong_while_reporting_is_raised(folders):
    history = History(None)
    with pytest.raises(json.JSONDecodeError):
        with history.following(steps=6):
            history.file.write_text("no metrics\n")
