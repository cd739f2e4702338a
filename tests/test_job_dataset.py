"""job.dataset: trainers get rows as they were written."""

import pytest
from datasets import Dataset
from job.dataset import as_dataset, as_table
from rl.tasks import make_splits, read_rows, write_splits

OWN = [
    {"tests": {"f(1)": 2, "tolerance": 1e-12}, "turns": [{"from": "a"}, {"to": ["b"]}], "level": 1},
    {"tests": {"g(0)": 3, "unit": None}, "turns": [], "level": 2.5},
    {"tests": None, "turns": None, "level": None},
]


@pytest.fixture(params=["jsonl", "parquet"])
def rows(request, tmp_path):
    """Rows with objects, as a job reads them of either kind of file."""
    made = [
        {**row, **own} for row, own in zip(make_splits("chain_sum", {"train": 3})["train"], OWN, strict=True)
    ]
    if request.param == "jsonl":
        return read_rows(write_splits({"train": made}, tmp_path)["train"])
    pytest.importorskip("pandas").DataFrame(made).to_parquet(tmp_path / "train.parquet")
    return read_rows(tmp_path / "train.parquet")


def test_trainers_get_what_is_read(rows):
    data = as_dataset(rows)
    assert list(data) == rows
    assert data.__getitems__([2, 0]) == [rows[2], rows[0]], "a batch, as PyTorch's loader asks for it"
    assert [type(row["level"]) for row in data] == [type(row["level"]) for row in rows]


def test_what_a_reward_does_to_its_arguments_changes_no_row(rows):
    data = as_dataset(rows)
    data[0]["tests"].clear()
    data[0]["prompt"].append("more")
    assert data[0] == rows[0] and rows[0]["tests"]


def test_a_table_gives_no_call_the_arguments_of_another():
    turns = [
        [{"role": "assistant", "content": "", "tool_calls": [{"name": "f", "arguments": arguments}]}]
        for arguments in ({"a": 1}, {"b": 0.5})
    ]
    turns.append([{"role": "user", "content": "hi"}])
    assert as_table([{"prompt": prompt} for prompt in turns])["prompt"][:] == turns
    plain = make_splits("chain_sum", {"train": 2})["train"]
    assert as_table(plain).features == Dataset.from_list(plain).features, "of others it is the usual one"
