"""The command that records runs, with real (small) jobs, and its page."""

# ruff: noqa: F811  (fixtures are arguments)

import os
import re
import signal
import subprocess
import sys
import time

import pytest
import record_seeds
from endpoint_fixtures import describe, wait_until
from local_sagemaker import client
from recorded_module import EXPERIMENT, GRPO, ROOT, module, record, rows, settings, write_experiments  # noqa: F401
from seeds.experiments import Source, read_experiments
from seeds.machine import machine_name
from seeds.runs import settings_of
from seeds.tables import read_runs

COMMAND = ROOT / "scripts" / "record_seeds.py"
ENDPOINT_OPTIONS = ("--max-jobs", "2")


def test_a_wrong_command_line_or_file_starts_nothing(record):
    for options, message in [
        (["rats"], "07_example: unknown experiment 'rats'; did you mean 'rates'?"),
        (["--recipe", "tyni"], "no row 'tyni'"),
    ]:
        code, text = record(*options)
        assert code == 2 and message in text
    code, text = record("--list", "rates", "--seeds", "5")
    assert code == 0 and "rates, slow, seed 5" in text and "2 runs, 2 of them to make" in text


def test_the_runs_of_an_experiment_are_made_and_only_what_is_missing_is_made_again(
    endpoint, module, record, monkeypatch
):
    monkeypatch.setenv("LOCAL_SAGEMAKER_HOME", str(endpoint.home))
    variants = {
        "first": {"rate": 1.0},
        "second": {
            "rate": 2.0,
            "channels": {
                "first": "model of first",
                "note": "output of first/note.jsonl",
                "problems": "split train",
            },
        },
        "broken": {"breaks": True},
        "from broken": {"channels": {"first": "model of broken"}},
    }
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    code, text = record()
    assert code == 1, text
    assert "FAILED rates, broken, seed 1\n  AlgorithmError: this one breaks" in text, text
    assert "which failed: rates, broken, seed 1" in text
    first, second = rows(module)
    assert (first["variant"], first["after/pass_at_1_sampled"], first["before/pass_at_1_sampled"]) == (
        "first",
        "1",
        "0",
    )
    assert (first["train_seconds"], first["peak_rss_mb"], first["torch"]) == ("1.5", "12350", "9.9")
    assert first["machine"] == machine_name("local", "") and len(first["recorded"]) == len("2026-11-26")
    curves = read_runs(module / "recorded", "rates")
    assert curves["first", 1][1] == [{"step": "1", "reward": "2.333"}, {"step": "2", "reward": "2.667"}]
    assert curves["second", 1][1][0]["reward"] == "4.333", "the model of the first was there"
    assert len(list((module.parent / "build/seeds/07_example/data").iterdir())) == 1

    # Mended: only the two that failed are made, though the endpoint has forgotten nothing of the others.
    variants["broken"] = {"breaks": False}
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    code, text = record()
    assert code == 0 and "4 runs, 2 of them to make" in text, text
    assert text.index("recorded rates, broken") < text.index("started  rates, from broken")
    assert rows(module)[:2] == [first, second] and len(rows(module)) == 4

    # Other settings: said, and replaced, together with what starts from it.
    variants["first"] = {"rate": 5.0}
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    code, text = record()
    assert code == 0 and "first: recorded with other settings; its rows go (seeds 1)" in text, text
    assert "second: recorded with other settings" in text and "2 of them to make" in text
    assert read_runs(module / "recorded", "rates")["second", 1][1][0]["reward"] == "8.333"
    assert client.find_endpoint(endpoint.home), "an endpoint that was there is left running"


def test_an_interrupted_command_stops_its_jobs_and_goes_on_later(endpoint, module, record):
    variants = {"quick": {"rate": 0.1}, "endless": {"rate": 1000.0}}
    write_experiments(module, rates=EXPERIMENT | {"variants": variants, "seeds": [1]})
    running = subprocess.Popen(
        [sys.executable, COMMAND, "07", "--root", module.parent],
        env={**os.environ, "LOCAL_SAGEMAKER_HOME": str(endpoint.home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    deadline = time.monotonic() + 300
    while not (module / "recorded" / "rates.csv").exists():
        assert time.monotonic() < deadline and running.poll() is None
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    text, _ = running.communicate(timeout=120)
    assert running.returncode == 130 and "the same command goes on" in text and "Traceback" not in text, text
    (name,) = (line.split()[-1] for line in text.splitlines() if line.startswith("started  rates, endless"))
    wait_until(name, lambda job: job["TrainingJobStatus"] in ("Stopping", "Stopped"))
    assert describe(name)["TrainingJobStatus"] in ("Stopping", "Stopped")
    code, text = record("--list")
    assert code == 0 and "1 of them to make" in text and "endless" in text


def test_the_page_says_what_the_command_can(capsys):
    with pytest.raises(SystemExit):
        record_seeds.main(["--help"])
    options = set(re.findall(r"--[a-z-]+", capsys.readouterr().out)) - {"--help"}
    page = (ROOT / "docs" / "recorded-runs.md").read_text()
    assert options and {option for option in options if option not in page} == set()


def test_the_pages_example_is_an_experiment(module):
    page = (ROOT / "docs" / "recorded-runs.md").read_text()
    example = page[page.index("## experiments.yaml") :].partition("```yaml\n")[2].partition("```")[0]
    (module / "recorded" / "experiments.yaml").write_text(example)
    (experiment,) = read_experiments(module).values()
    assert settings_of(GRPO, experiment).keys() == {"reward model", "beta 0.05"}


def test_a_source_is_read_in_each_of_its_forms(module):
    variants = {
        "a of b": {},
        "x": {
            "channels": {
                "one": "model of a of b",
                "two": "output of a of b/deep/pairs.jsonl",
                "three": "training pairs of a of b",
                "four": "split test",
            }
        },
    }
    write_experiments(module, rates=EXPERIMENT | {"variants": variants})
    found = read_experiments(module)["rates"].variants["x"].channels
    assert found == {
        "one": Source("model", "a of b"),
        "two": Source("output", "a of b", "deep/pairs.jsonl"),
        "three": Source("training pairs", "a of b"),
        "four": Source("split", "test"),
    }
