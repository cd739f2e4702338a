"""The page docs/own-task.md says what is so: its code runs, and each spelling in its table is judged as it says."""

import re
import sys
from pathlib import Path

import pytest
from rl.answers import extract_answer
from rl.own_data import rows_from
from rl.tasks import read_rows
from rl.verifiers import VerifierError, get_verifier

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "own-task.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
TABLE = {
    name: re.findall(r"`([^`]+)`", spellings)
    for name, spellings in re.findall(r"^\| `(\w+)`[^|]*\| (.+) \|$", PAGE, re.MULTILINE)
}
GOLDS = {"choice": "B", "text": "Paris"}
NUMBERS = {"1,568": "1568", "1 568": "1568", "1/2": "0.5", "1e3": "1000", "50 %": "50"}


def test_its_reader_reads_such_a_file(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    lines = [f"Land {number},City {number},{number % 5}" for number in range(2400)]
    (tmp_path / "capitals.csv").write_text("\n".join(["country,capital,max_words", *lines]))
    exec(compile(BLOCKS[0], "own-task.md", "exec"), {})
    assert "2,000 train, 300 test" in capsys.readouterr().out
    row = read_rows(tmp_path / "build/data/capitals/train")[0]
    assert row["answer"] == row["question"].replace("Land", "City") and row["max_words"]


@pytest.mark.parametrize("name", ["number", "choice", "text"])
def test_each_spelling_of_the_table_is_right(name):
    assert len(TABLE[name]) >= 3
    for spelling in TABLE[name]:
        gold = GOLDS.get(name) or NUMBERS.get(spelling, "9")
        assert get_verifier(name)(spelling, gold), (name, spelling)
        assert not get_verifier(name)(spelling, "7" if name == "number" else "C")


def test_what_it_says_is_no_number_is_none():
    (sentence,) = re.findall(r"`number` does not accept these as numbers: (.+?)\. The beginning", PAGE)
    spellings = re.findall(r"`([^`]+)`", sentence)
    assert len(spellings) == 4
    for spelling in spellings:
        assert not get_verifier("number")(spelling, spelling)


def test_its_verdict_and_its_reward_work():
    names: dict = {}
    for block in BLOCKS[1:]:
        exec(compile(block, "own-task.md", "exec"), names)
    assert names["same_word"]("PARIS", "Paris") and not names["same_word"]("Rome", "Paris")
    said = [[{"role": "assistant", "content": text}] for text in ("one two", "one two three")]
    assert names["brevity"](said, max_words=["2", "2"]) == [1.0, 0.0]
    assert extract_answer("<think>a</think> <answer>Paris</answer>") == "Paris"


def test_each_reward_that_it_names_has_a_weight():
    named = re.findall(r"rewards[=:] ?\[([^]]+)\].*?reward_weights[=:] ?\[([^]]+)\]", PAGE)
    assert len(named) == PAGE.count("[accuracy, my_task.brevity]") == 2
    for rewards, weights in named:
        assert len(rewards.split(",")) == len([float(weight) for weight in weights.split(",")])


def test_the_reader_finds_its_verdict_where_it_says(tmp_path, monkeypatch):
    (tmp_path / "scripts").mkdir()
    (tmp_path / "scripts" / "my_task.py").write_text(BLOCKS[1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.delitem(sys.modules, "my_task", raising=False)
    asked = {"source": [{"question": "Which?", "answer": "Paris"}], "splits": {"train": 1}}
    with pytest.raises(VerifierError, match=r"no file my_task\.py"):
        rows_from(**asked, verifier="my_task.same_word")
    (statement,) = re.findall(r"`(sys\.path\.append\(.+?\))`", PAGE)
    exec(statement, {"sys": sys})
    assert rows_from(**asked, verifier="my_task.same_word")[1].unusable == 0
    monkeypatch.delitem(sys.modules, "my_task")
