"""machines.yaml: what a recipe runs on, with the notebook's changes."""

from pathlib import Path

import pytest
from workshop import read_machine
from workshop.session.machines import MachineError, read_machines

ROOT = Path(__file__).resolve().parents[1]
MODULES = sorted(ROOT.glob("[0-9][0-9]_*"))
ROW = """
tiny:
  instance_type: ml.c5.xlarge
  instance_count: 1
  process_count: 2
  task: chain_sum
  max_hours: 1
"""


def write(folder: Path, text: str = ROW) -> Path:
    path = folder / "machines.yaml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.name)
def test_every_recipe_has_a_row_and_every_row_a_recipe(module):
    recipes = {path.stem for path in (module / "scripts" / "recipes").glob("*.yaml")} - {
        "reward_model",
        "reward_model_gpu",
        "distilled",
        "letters",
    }
    assert set(read_machines(module / "machines.yaml")) == recipes
    for recipe in recipes:
        machine = read_machine(module / "machines.yaml", recipe)
        assert machine.requirements is None or (module / "scripts" / machine.requirements).is_file()
        assert not machine.accelerate_config or (module / "scripts" / machine.accelerate_config).is_file()


def test_changes_win_and_what_is_empty_changes_nothing(tmp_path):
    machine = read_machine(write(tmp_path), "tiny", task="", max_hours=None, instance_count=2)
    assert (machine.task, machine.max_hours, machine.instance_count) == ("chain_sum", 1, 2)
    assert read_machine(write(tmp_path), "tiny", max_hours=0.25).max_seconds == 900
    assert "ml.c5.xlarge" in str(machine) and "own_image" not in str(machine)
    assert "ml.c5.xlarge" in machine._repr_html_()


@pytest.mark.parametrize(
    "change, message",
    [
        ({"instance_tipe": "ml.g5.xlarge"}, "unknown key 'instance_tipe'"),
        ({"instance_count": "2"}, "instance_count is '2', which is no int"),
        ({"instance_count": True}, "instance_count is True"),
        ({"max_hours": -1}, "max_hours is -1: it must be above 0"),
        ({"process_count": 0}, "process_count is 0: it must be above 0"),
        ({"image": 3}, "image is 3"),
        ({"compression_type": "none"}, "compression_type is 'none': it must be GZIP or NONE"),
    ],
)
def test_a_wrong_change_is_refused(tmp_path, change, message):
    with pytest.raises(MachineError, match=message):
        read_machine(write(tmp_path), "tiny", **change)


@pytest.mark.parametrize(
    "text, message",
    [
        (ROW.replace("  task: chain_sum\n", ""), "tiny: task is missing"),
        (ROW + "  disk: 3\n", "unknown key 'disk'"),
        ("- tiny", "one mapping for each recipe"),
        ("tiny: 3", "one mapping for each recipe"),
        ("tiny: [", "cannot be read"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, text, message):
    with pytest.raises(MachineError, match=message):
        read_machine(write(tmp_path, text), "tiny")


def test_an_unknown_recipe_is_refused_with_those_that_there_are(tmp_path):
    with pytest.raises(MachineError, match="no row 'huge'. It has: tiny"):
        read_machine(write(tmp_path), "huge")
    with pytest.raises(MachineError, match="cannot be read"):
        read_machine(tmp_path / "other.yaml", "tiny")
