"""What `make bench` computes of what it measures. The measurements themselves are no test."""

import json
import sys

import pytest
import torch
from bench import first_run, growth, library, scaling
from bench.__main__ import main
from bench.measure_step import config_of, measure
from bench.page import write_page
from bench.phases import Speeds, Step, Work, step_work
from bench.roofline import on_paper, step_of
from bench.rows import Row, by_case, here, paired_ratios, read_rows, write_rows
from runs.times import keep_times
from test_import_directions import SCRIPTS, imported
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForCausalLM
from workshop.checks.memory import ModelShape

SHAPE = ModelShape(2, 32, 64, 4, 2, 8, 100)


def test_rows_come_back_as_they_were_written(tmp_path):
    rows = [here(Row("a case, with a comma", "time", 1.5, "s")), here(Row("another", "memory", 2000.0, "MB"))]
    write_rows("some", rows, tmp_path)
    assert read_rows("some", tmp_path) == rows
    assert rows[0].machine and "torch" in rows[0].versions and float(rows[0].load) >= 0
    assert read_rows("never run", tmp_path) == []
    assert by_case(rows, "time") == {"a case, with a comma": [1.5]}


def test_each_run_is_compared_with_the_one_beside_it():
    assert paired_ratios([1.0, 10.0, 3.0], [1.0, 10.0, 1.0]) == [1.0, 1.0, 3.0]
    with pytest.raises(ValueError):
        paired_ratios([1.0], [1.0, 2.0])


def test_ours_is_over_plain():
    rows = [
        Row(f"m, {variant}, {who}", "peak memory", value, "MB")
        for variant, who, value in [
            ("a", "ours", 3.0),
            ("a", "plain", 2.0),
            ("b", "plain", 5.0),
            ("b", "ours", 4.0),
        ]
    ]
    assert list(library.ratios(rows)) == [("m, a", "peak memory", [1.5]), ("m, b", "peak memory", [0.8])]


@pytest.mark.parametrize("power", [0.5, 1, 2])
def test_an_exponent_is_that_of_what_is_more_than_at_the_smallest_size(power):
    rows = [Row(f"{n:,} rows", "time", 2 + 1e-3 * n**power, "s") for n in (1, 10_000, 100_000, 1_000_000)]
    assert growth.exponents(rows, "time")["rows"] == pytest.approx(power, abs=0.02)


def test_what_does_not_grow_has_no_exponent():
    rows = [Row(f"{n} hosts", "peak memory", 100 + n, "MB") for n in (1, 2, 4, 8)]
    assert growth.exponents(rows, "peak memory") == {}


def test_efficiency_is_of_the_fastest_runs():
    times = {"processes: 1": [1.0, 3.0], "processes: 2": [0.8, 0.625]}
    rows = [Row(f"{scaling.GRPO}, {case}", "step", value, "s") for case in times for value in times[case]]
    assert scaling.efficiency(rows) == {scaling.GRPO: 0.8}


def test_a_phase_takes_what_is_longest():
    work = Work(operations=10.0, bytes=20.0, received=30.0)
    assert (work.seconds(Speeds(1.0, 10.0, 10.0)), work.limit(Speeds(1.0, 10.0, 10.0))) == (
        10.0,
        "operations",
    )
    assert (work.seconds(Speeds(10.0, 1.0)), work.limit(Speeds(10.0, 1.0))) == (20.0, "memory")
    assert (work.seconds(Speeds(10.0, 10.0, 1.0)), work.limit(Speeds(10.0, 10.0, 1.0))) == (30.0, "link")


def test_the_operations_are_those_that_torch_counts():
    step = Step(sequences=4, prompt=16, answer=16)
    model = AutoModelForCausalLM.from_config(config_of(SHAPE), attn_implementation="eager")
    texts = torch.zeros(step.sequences, step.prompt + step.answer, dtype=torch.long)
    counter = FlopCounterMode(display=False)
    with counter:
        model(texts, logits_to_keep=step.answer, use_cache=False)
    forward = counter.get_total_flops()
    with counter:
        model(texts, logits_to_keep=step.answer, use_cache=False).logits.sum().backward()
    # The count takes attention for whole; we leave out the half that the causal mask hides.
    length, heads = step.prompt + step.answer, SHAPE.heads * SHAPE.head_size
    hidden = step.sequences * 2 * SHAPE.layers * heads * length * length
    work = step_work(SHAPE, step)
    assert work["log-probabilities"].operations + hidden == pytest.approx(forward, rel=0.01)
    assert work["update"].operations + 3 * hidden == pytest.approx(counter.get_total_flops(), rel=0.01)


def test_rollouts_read_weights_and_cache_for_each_token():
    step = Step(sequences=2, prompt=10, answer=20)
    cache = 2 * SHAPE.layers * SHAPE.kv_heads * SHAPE.head_size * 2 * (10 + 10) * 2
    assert step_work(SHAPE, step)["rollout"].bytes == 20 * (2 * SHAPE.parameters + cache)


def test_sharded_weights_come_over_the_link():
    alone, shared = (step_work(SHAPE, Step(8, 10, 20, 2, devices=devices)) for devices in (1, 4))
    assert alone["update"].received == 0
    assert shared["update"].received == 2 * 2 * 2 * SHAPE.parameters * 3 / 4  # micro batches, passes, bytes
    assert shared["rollout"].received == 0


def test_the_full_recipes_are_on_paper():
    runs = list(on_paper())
    assert {run.module for run in runs} == {
        "02_grpo_trl_accelerate",
        "03_grpo_trl_fsdp",
        "04_grpo_unsloth",
    }
    for run in runs:
        assert 0.05 < run.hours < 24 and run.dollars == pytest.approx(run.hours * run.price)
    recipe = {"per_device_train_batch_size": 8, "gradient_accumulation_steps": 4, "max_completion_length": 9}
    step = step_of(recipe | {"lora_rank": 2, "quantization": None}, SHAPE, 4)
    assert (step.sequences, step.devices, step.trained) == (32, 1, SHAPE.adapter_parameters(2))


def test_a_step_is_measured_on_this_machine():
    found = measure(
        "tiny", Step(4, 8, 4, 2, bytes_each=4), "cpu", torch.float32, Speeds(1e12, 1e12), repeats=1
    )
    assert list(found["phases"]) == ["rollout", "log-probabilities", "update"]
    for phase in found["phases"].values():
        assert 0 < phase["least_seconds"] < phase["median_seconds"]
    assert found["peak_bytes"] > 1e6
    json.dumps(found)


def test_measuring_a_step_needs_nothing_of_the_workshop_that_has_to_be_installed():
    names = imported((SCRIPTS / "bench" / "measure_step.py").read_text())
    assert names - set(sys.stdlib_module_names) == {"torch", "transformers", "workshop", "bench"}


def test_the_page_is_made_of_what_there_is(tmp_path):
    rows = [Row(f"{n:,} rows read", "time", n / 1000, "s") for n in (10, 100, 1000)]
    rows += [Row(f"{n:,} rows read", "peak memory", 100.0, "MB") for n in (10, 100, 1000)]
    write_rows("growth", [here(row) for row in rows], tmp_path)
    write_page(tmp_path / "page.md", tmp_path)
    text = (tmp_path / "page.md").read_text()
    assert "1.00, linear | 100 to 100 MB | does not grow" in text and "Beside plain TRL" not in text


def test_a_bench_that_is_none_is_refused(capsys):
    assert main(["grwoth"]) == 2
    assert (
        "no bench 'grwoth': choose of first_run, library, learning, growth, scaling, page"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize(
    "given", [{}, {"MAKEFLAGS": "k -- ARGS=first_run", "MAKELEVEL": "1", "ARGS": "first_run"}]
)
def test_the_first_runs_make_has_no_arguments_of_the_one_around_it(given, tmp_path, monkeypatch):
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "clone").mkdir()
    (tmp_path / "clone" / "Makefile").write_text("run:\n\t@test -z '$(ARGS)' && test '$(MAKELEVEL)' = 0\n")
    first_run._make("run", tmp_path)
    with pytest.raises(RuntimeError, match="make jump in a new clone failed"):
        first_run._make("jump", tmp_path)


def test_the_first_run_and_the_second_stand_side_by_side(tmp_path):
    keep_times(tmp_path, "01_dpo_trl/01_dpo_trl.ipynb", [0.0, 12.5, 200.0])
    keep_times(tmp_path, "02_grpo/02_grpo.ipynb", [0.0, 340.0])
    again = list(first_run.notebook_rows(tmp_path, "again"))
    assert [(row.case, row.value) for row in again] == [
        ("01_dpo_trl, again", 200.0),
        ("02_grpo, again", 340.0),
    ]
    first = [
        Row(row.case.replace("again", "from empty caches"), "wall time", 2 * row.value, "s") for row in again
    ]
    write_rows("first_run", [*first, *again, Row("what the jobs leave", "disk", 3210.0, "MB")], tmp_path)
    write_page(tmp_path / "bench.md", tmp_path)
    lines = (tmp_path / "bench.md").read_text().splitlines()
    assert "|  | from empty caches | again |" in lines
    assert "| 02_grpo | 11 min 20 s | 5 min 40 s |" in lines
    assert "| all | 18 min 00 s | 9 min 00 s |" in lines
    assert "Disk: what the jobs leave 3.2 GB." in lines
