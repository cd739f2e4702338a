"""What a job wrote as it went and was killed: the whole lines are used, and it is said that the last was cut off."""

import json

import pytest
from job.metrics import HISTORY
from rl.evaluation import Evaluation, score_completions
from rl.verifiers import number
from workshop.jobs.json_lines import read_json_lines
from workshop.jobs.outputs import OutputError, _read_jsonl, _read_parts

LINES = b'{"step": 1}\n\n{"step": 2, "x": "\xc3\xa9"}\n'


@pytest.mark.parametrize("cut", [b'{"step": 3', b'{"step": 3, "x": "\xc3', b"\xff"])
def test_a_last_line_that_was_cut_off_is_left_out_and_said(tmp_path, capsys, cut):
    (tmp_path / HISTORY).write_bytes(LINES + cut)
    assert [row["step"] for row in _read_jsonl(tmp_path / HISTORY)] == [1, 2]
    assert "history.jsonl: its last line was cut off" in (said := capsys.readouterr().out)
    assert "the 2 whole lines before it are there" in said


def test_whole_lines_are_read_without_a_word(tmp_path, capsys):
    for content in (LINES, LINES[:-1], b""):  # a whole object is whole without its end of line too
        (tmp_path / "a").write_bytes(content)
        assert len(read_json_lines(tmp_path / "a")) == (2 if content else 0)
    assert capsys.readouterr().out == ""


def test_a_damaged_line_among_others_is_refused(tmp_path):
    (tmp_path / HISTORY).write_bytes(b'{"step": 1}\n{"step"\n{"step": 3}\n')
    with pytest.raises(OutputError, match="line 2 is no JSON"):
        _read_jsonl(tmp_path / HISTORY)


def test_a_part_that_was_cut_off_keeps_no_other_from_being_used(tmp_path, capsys):
    texts = {"index": 0, "question": "0 + 1?", "completion": "<answer>1</answer>", "answer": "1", "tokens": 3}
    items = [{**texts, "decoding": kind, "sample": 0, "cut_off": False} for kind in ("greedy", "sampled")]
    score_completions(items, number).save(tmp_path / "evaluation_before.json")
    (tmp_path / "summary.json").write_text('{"module": "0')
    (tmp_path / "evaluation_after.json").write_bytes((tmp_path / "evaluation_before.json").read_bytes()[:-9])
    parts = _read_parts(tmp_path)
    assert list(parts) == ["before"] and isinstance(parts["before"], Evaluation)
    said = capsys.readouterr().out
    assert "summary.json is damaged" in said and "evaluation_after.json is damaged" in said
    (tmp_path / "summary.json").write_text(json.dumps({"module": "02"}))
    assert _read_parts(tmp_path)["summary"] == {"module": "02"}
