"""The results file never loses a record, and says what it cannot take."""

import json
import re
import subprocess
import sys

import pytest
from workshop.folders import SCRIPTS
from workshop.views.results import REQUIRED, ResultsError, append_result, read_results, results_table


def record(**changes) -> dict:
    measured = {"value": 0.5, "low": 0.44, "high": 0.56, "n": 300, "decoding": "greedy"}
    return {
        "module": "02_grpo_trl_accelerate",
        "recipe": "tiny",
        "mode": "local",
        "trainer": "TRL GRPOTrainer",
        "hosts": 2,
        "processes": 4,
        "seed": 42,
        "base": measured,
        "trained": {**measured, "value": 0.95, "low": 0.92, "high": 0.97},
        "train_seconds": 93.4,
        "peak_rss_mb": 1234.5,
        "tokens_per_second": 4321.0,
        "versions": {"trl": "1.16.0"},
        **changes,
    }


def test_records_are_kept_in_order(tmp_path):
    path = tmp_path / "build" / "results.json"
    for seed in range(3):
        append_result(record(seed=seed), path)
    assert [found["seed"] for found in read_results(path)] == [0, 1, 2]
    assert all(found["time"] for found in read_results(path))
    assert json.loads(path.read_text())[0]["trained"]["value"] == 0.95


@pytest.mark.parametrize("key", REQUIRED)
def test_an_incomplete_record_is_refused(tmp_path, key):
    incomplete = record()
    del incomplete[key]
    with pytest.raises(ResultsError, match=f"lacks: {key}"):
        append_result(incomplete, tmp_path / "results.json")
    assert not (tmp_path / "results.json").exists()


def test_a_measurement_without_its_interval_is_refused(tmp_path):
    with pytest.raises(ResultsError, match="trained as {value, low, high, n, decoding}"):
        append_result(record(trained={"value": 0.9}), tmp_path / "results.json")


def test_a_job_s_summary_is_taken_as_it_is(tmp_path):
    def both(value: float) -> dict:
        rate = {"value": value, "low": 0.0, "high": 1.0, "n": 3}
        return {name: {**rate, "decoding": name} for name in ("greedy", "sampled")}

    append_result(record(base=both(0.25), trained=both(0.75)), tmp_path / "results.json")
    (found,) = read_results(tmp_path / "results.json")
    assert (found["base"]["value"], found["base"]["decoding"]) == (0.25, "greedy")
    assert (found["trained_sampled"]["value"], found["trained_sampled"]["decoding"]) == (0.75, "sampled")


@pytest.mark.parametrize("content", ["", "{", '{"a": 1}', "[1]"])
def test_a_damaged_file_is_neither_read_nor_overwritten(tmp_path, content):
    path = tmp_path / "results.json"
    path.write_text(content)
    with pytest.raises(ResultsError, match="Move it away"):
        append_result(record(), path)
    assert path.read_text() == content


def test_notebooks_that_finish_at_once_both_leave_their_records(tmp_path):
    path = tmp_path / "results.json"
    code = (
        "import json, sys\nfrom workshop.views.results import append_result\n"
        "for number in range(10):\n    append_result({**json.loads(sys.argv[1]), 'seed': number}, sys.argv[2])\n"
    )
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", code, json.dumps(record(module=name)), str(path)], cwd=SCRIPTS
        )
        for name in ("01", "02", "03")
    ]
    try:
        assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    finally:
        for writer in writers:
            writer.kill()
    found = [(entry["module"], entry["seed"]) for entry in read_results(path)]
    assert sorted(found) == [(name, number) for name in ("01", "02", "03") for number in range(10)]


def test_the_table(tmp_path):
    sampled = {"value": 0.385, "low": 0.357, "high": 0.412, "n": 300, "decoding": "sampled"}
    greedy = record()["base"]
    both = {"base": {"greedy": greedy, "sampled": sampled}}
    append_result(record(trainer="<b>mine</b>", **both), tmp_path / "results.json")
    table = results_table(tmp_path / "results.json")
    text = repr(table)
    cells = re.split(r" {2,}", text.splitlines()[-1].strip())
    assert cells[5:9] == [
        "0.385 [0.357, 0.412]",
        "not measured",
        "0.500 [0.440, 0.560]",
        "0.950 [0.920, 0.970]",
    ]
    assert "2 x 2" in text and "93 s" in text and "4,321" in text
    assert "&lt;b&gt;mine" in table._repr_html_() and "<b>mine" not in table._repr_html_()


def test_the_table_says_which_completions_were_cut_off(tmp_path):
    cut = {"base": {"greedy": 0.875, "sampled": 0.5}, "trained": {"greedy": 0.0, "sampled": 0.0}}
    append_result(record(cut_off=cut), tmp_path / "results.json")
    text = repr(results_table(tmp_path / "results.json"))
    assert "0.500 [0.440, 0.560], 87.5% cut off" in text and text.count("cut off") == 1


def test_a_table_without_runs(tmp_path):
    assert "sampled pass@1 before" in repr(results_table(tmp_path / "results.json"))


def test_a_job_that_its_time_cap_ended_is_shown_as_such(tmp_path):
    capped = record(stopped_by="time cap", steps=12, steps_asked=80)
    append_result(capped, tmp_path / "results.json")
    append_result(
        {key: value for key, value in capped.items() if key != "trained"}, tmp_path / "results.json"
    )
    text = str(results_table(tmp_path / "results.json"))
    assert text.count("time cap after step 12 of 80") == 2 and text.count("not measured") == 2 + 2 + 1
