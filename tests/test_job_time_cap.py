"""A job with a time cap ends by itself before it, with a checkpoint and a model, and another one goes on from there."""

import datetime
import json
import math
import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import ROOT, SHARED, ScriptJob
from job import time_cap
from job.time_cap import Pace, TimeCap, TimeCapError, reserve, seconds_left
from rl.tasks import make_splits, write_splits

STEPS = 8
STEP_S = 2.0  # how long a step takes at least, where the cap is to come first
# A reward that takes its time. The job that goes on is given none to take: it is not part of what a checkpoint is made of.
SLOW = """
import os, time

def at_leisure(completions, **kwargs):
    time.sleep(float(os.environ.get("REWARD_S", "0")))
    return [0.0] * len(completions)
"""
FEW = {
    "max_steps": STEPS,
    "rewards": ["accuracy", "slow_in_a_test.at_leisure"],
    "reward_weights": [1.0, 0.0],
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 32,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "save_steps": 100,
    "eval_problems": 4,
    "eval_samples": 1,
    "eval_max_new_tokens": 8,
    "report_to": "none",
}
MODULES = {  # one process, two of them, two with what they train in shards
    "02_grpo_trl_accelerate": None,
    "02_grpo_trl_accelerate on two": 2,
    "03_grpo_trl_fsdp": 2,
}


@pytest.fixture(autouse=True)
def fresh_start(monkeypatch):
    monkeypatch.delenv("TRAINING_JOB_NAME", raising=False)
    time_cap.started.cache_clear()
    yield
    time_cap.started.cache_clear()


@pytest.fixture(scope="module")
def new_job(tmp_path_factory):
    """new_job(module, checkpoints): a job of the module's train.py, and the environment in which it finds its reward."""
    own = tmp_path_factory.mktemp("own")
    (own / "slow_in_a_test.py").write_text(SLOW)
    data = write_splits(make_splits("chain_sum", {"train": 64, "test": 4}), tmp_path_factory.mktemp("data"))
    path = os.pathsep.join([str(own), str(SHARED)])

    def make(module: str, checkpoints: Path | None = None, **environment: str):
        script = ROOT / module.partition(" ")[0] / "scripts" / "train.py"
        job = ScriptJob(
            script, tmp_path_factory.mktemp("job"), data, FEW, checkpoints=checkpoints, timeout=240
        )
        return job, {"PYTHONPATH": path, **environment}

    return make


@pytest.mark.job
@pytest.mark.timeout(700)
@pytest.mark.parametrize("module", MODULES)
def test_it_ends_before_the_cap_and_another_goes_on_to_the_same_weights(module, new_job):
    processes, cap = MODULES[module], 15
    uninterrupted, environment = new_job(module)
    uninterrupted.run(processes=processes, environment=environment)
    assert "stopped_by" not in uninterrupted.output_json("summary.json")

    capped, environment = new_job(module, REWARD_S=str(STEP_S), JOB_MAX_SECONDS=str(cap))
    began = time.monotonic()
    capped.run(processes=processes, environment=environment)
    # The cap counts from the moment at which the script has its imports, here where no container says more.
    assert time.monotonic() - began < cap + 30
    done = len(capped.steps())
    assert 0 < done < STEPS
    assert capped.log.count(f"[time cap] Stopped after step {done} of {STEPS}: ") == 1
    assert "resume_from" in capped.log
    summary = capped.output_json("summary.json")
    assert (summary["stopped_by"], summary["steps"], summary["steps_asked"]) == ("time cap", done, STEPS)
    assert summary["trained"]["greedy"]["n"] == 4, "there was time for the evaluation, which is quick"
    assert [path.name for path in capped.checkpoints.glob("checkpoint-*")] == [f"checkpoint-{done}"]
    assert capped.weights() != uninterrupted.weights()

    second, environment = new_job(module, capped.checkpoints)
    second.run(processes=processes, environment=environment)
    assert f"Going on from checkpoint-{done}." in second.log
    assert second.steps() == list(range(done + 1, STEPS + 1))
    assert second.weights() == uninterrupted.weights()
    assert second.history() == uninterrupted.history()


@pytest.mark.job
@pytest.mark.timeout(300)
def test_a_cap_that_is_over_before_the_first_step_is_an_error_on_two_processes(new_job):
    job, environment = new_job("02_grpo_trl_accelerate", JOB_MAX_SECONDS="1")
    job.run(processes=2, environment=environment, fails=True)
    assert job.failure.read_text().startswith("TimeCapError: No step fits into this job's 1 s: ")
    assert "max_hours" in job.failure.read_text() and job.steps() == []


@pytest.mark.job
@pytest.mark.timeout(300)
def test_the_evaluation_is_left_out_and_the_model_saved_where_the_last_step_took_the_time(new_job):
    cap = 12
    job, environment = new_job("02_grpo_trl_accelerate", REWARD_S=str(cap), JOB_MAX_SECONDS=str(cap))
    job.run(environment=environment)
    assert job.steps() == [1]
    assert "[evaluation] after: left out" in job.log
    summary = job.output_json("summary.json")
    assert summary["stopped_by"] == "time cap" and "trained" not in summary and summary["base"]
    assert summary["completion_length"].keys() == summary["cut_off"].keys() == {"base"}
    assert not (job.output / "evaluation_after.json").exists()
    assert job.weights()


def test_without_the_variable_there_is_no_cap(monkeypatch):
    monkeypatch.delenv("JOB_MAX_SECONDS", raising=False)
    assert seconds_left() == math.inf and time_cap.time_for(1e9) and not Pace(1e9, saves=2).is_short()


@pytest.mark.parametrize("text", ["an hour", "0", "-5", "inf", "nan"])
def test_what_is_no_number_of_seconds_is_refused(text, monkeypatch):
    monkeypatch.setenv("JOB_MAX_SECONDS", text)
    with pytest.raises(TimeCapError, match="write the job's MaxRuntimeInSeconds"):
        TimeCap(None)


def test_the_reserve_is_a_share_of_the_cap_up_to_ten_minutes(monkeypatch):
    for cap, expected in ((100, 5.0), (3600, 180.0), (28800, 600.0)):
        monkeypatch.setenv("JOB_MAX_SECONDS", str(cap))
        assert reserve() == expected


def test_the_oldest_configuration_file_says_when_the_container_was_made(tmp_path, monkeypatch):
    for name, age in (("resourceconfig", 500), ("hyperparameters", 300)):
        (tmp_path / f"{name}.json").write_text("{}")
        os.utime(tmp_path / f"{name}.json", (time.time() - age,) * 2)
    monkeypatch.setenv("SM_INPUT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("JOB_MAX_SECONDS", "1000")
    assert seconds_left() == pytest.approx(500, abs=5)


DESCRIBED = {
    "on demand": ({}, 900),
    "spot, which has waited": ({"EnableManagedSpotTraining": True}, 1000),
    "not allowed": (None, 1000),
}


@pytest.mark.parametrize("case", DESCRIBED)
def test_the_service_knows_when_the_job_began(case, tmp_path, monkeypatch):
    """It began 100 s ago, the container is as good as new."""
    import boto3
    from botocore.exceptions import ClientError

    more, expected = DESCRIBED[case]
    asked = []

    def describe_training_job(TrainingJobName):
        asked.append(TrainingJobName)
        if more is None:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, "DescribeTrainingJob")
        begun = datetime.datetime.now(datetime.UTC) - datetime.timedelta(seconds=100)
        return {"TrainingStartTime": begun, **more}

    service = SimpleNamespace(describe_training_job=describe_training_job)
    monkeypatch.setattr(boto3, "client", lambda *_, **__: service)
    monkeypatch.setenv("TRAINING_JOB_NAME", "grpo-1")
    monkeypatch.setenv("SM_INPUT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("JOB_MAX_SECONDS", "1000")
    (tmp_path / "resourceconfig.json").write_text(json.dumps({}))
    assert seconds_left() == pytest.approx(expected, abs=5)
    assert seconds_left() and asked == ["grpo-1"], "it is asked once"


def test_a_step_needs_time_for_itself_and_for_the_ending(monkeypatch):
    """At a pace of 10 s a step and 4 s a save, with 20 s of evaluation, a step and the end take 38 s."""
    now = 0.0
    monkeypatch.setattr(time_cap.time, "perf_counter", lambda: now)
    pace = Pace(20.0, saves=2)
    for end in (10.0, 12.0):  # the slowest counts
        now = end
        pace.step_ended()
    assert pace.ending() == 2 * 10 + 20, "before the first save, one is taken to last as long as a step"
    pace.save_begins()
    now += 4.0
    pace.save_ended()
    monkeypatch.setenv("JOB_MAX_SECONDS", "1000")
    for spare, short in ((-1.0, True), (1.0, False)):
        left = 10 + 2 * 4 + 20 + reserve() + spare
        monkeypatch.setattr(time_cap, "started", lambda left=left: time.time() - 1000 + left)
        assert pace.is_short() is short
