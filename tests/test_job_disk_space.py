"""A disk that is full when a job saves: FailureReason says so first, though its own file is on the same disk."""

from pathlib import Path

import pytest
import torch
from job.disk_space import no_space
from job.failure import report_failure
from safetensors.torch import save_file
from small_disks import fill, small_disk

SHOWN = 1024  # characters of the failure file that SageMaker shows


@pytest.fixture
def checkpoints(tmp_path, monkeypatch):
    """A job's checkpoint folder on a disk of 4 MB, with its failure file."""
    with small_disk(tmp_path / "ml", 4) as disk:
        folder = disk / "checkpoints"
        folder.mkdir()
        monkeypatch.setenv("SM_CHECKPOINT_DIR", str(folder))
        monkeypatch.setenv("SM_OUTPUT_FAILURE", str(disk / "output" / "failure"))
        monkeypatch.setenv("TRAINING_JOB_NAME", "job")
        yield folder


def in_chunks(path: Path) -> None:
    with open(path, "wb") as file:
        for _ in range(100):
            file.write(bytes(100_000))


WRITERS = {
    "torch.save, whose error names no cause": lambda path: torch.save(torch.zeros(4_000_000), path),
    "safetensors, in Rust": lambda path: save_file({"x": torch.zeros(4_000_000)}, path),
    "Python": in_chunks,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_the_failure_reason_begins_with_it(writer, checkpoints):
    with pytest.raises(Exception, match=r"."), report_failure():
        try:
            WRITERS[writer](checkpoints / "weights")
        finally:
            # Whatever the library removes: the failure has the room that was kept for it.
            fill(checkpoints / "more")
    shown = (checkpoints.parent / "output" / "failure").read_text()[:SHOWN]
    assert shown.startswith(f"No space left on {checkpoints} (0.0 of 4 MB are free). On SageMaker: raise"), (
        shown
    )
    assert "volume_size_in_gb" in shown and "\n  at tests/test_job_disk_space.py" in shown


def test_a_job_that_ends_well_leaves_no_reserve(checkpoints):
    with report_failure():
        assert (checkpoints.parent / "output" / "failure.room").stat().st_size > SHOWN
    assert list((checkpoints.parent / "output").iterdir()) == []


def test_other_errors_are_not_taken_for_it():
    assert no_space(RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")) is None
    assert no_space(OSError(13, "Permission denied")) is None
