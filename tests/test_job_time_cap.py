"""A job with a time cap ends by itself before it, with a checkpoint and a model, and another one goes on from there."""

import datetime
import json
import math
import os
import re
import subprocess
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from harness import ROOT, ScriptJob
from job import time_cap
from job.time_cap import Pace, TimeCap, TimeCapError, reserve, seconds_left
from job_variables import SHARED
from rl.preferences import read_pairs
from rl.tasks import make_splits, write_splits

STEPS = 10
STEP_S = 2.0  # how long a step takes at least, where the cap is to come first
CAP = 100
# A reward that takes its time. The others are given none to take.
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
MODULES = [  # one process, and two with what they train in shards
    ("02_grpo_trl_accelerate", None),
    ("03_grpo_trl_fsdp", 2),
]


@pytest.fixture(autouse=True)
def fresh_start(monkeypatch):
    monkeypatch.delenv("TRAINING_JOB_NAME", raising=False)
    time_cap._described_start.cache_clear()
    yield
    time_cap._described_start.cache_clear()


class CappedJob:
    """A job, and the configuration file whose time says when its container was made: the test moves it."""

    def __init__(self, job: ScriptJob, path: str) -> None:
        self.job, self._path = job, path
        self._config = job.folder / "config" / "resourceconfig.json"
        self._config.parent.mkdir()
        self._config.write_text("{}")
        self.leave(600)

    def leave(self, seconds: float) -> None:
        """From now on so many seconds are left."""
        self.ends = time.time() + seconds
        os.utime(self._config, (self.ends - CAP,) * 2)

    def start(self, processes: int | None) -> subprocess.Popen:
        environment = {"PYTHONPATH": self._path, "SM_INPUT_CONFIG_DIR": str(self._config.parent)}
        environment |= {"JOB_MAX_SECONDS": str(CAP), "REWARD_S": str(STEP_S)}
        return self.job.start(processes=processes, environment=environment)

    def run(self, processes: int | None, *, after_step: int, left: float) -> ScriptJob:
        """To its end, with `left` seconds from the moment at which the log shows a step."""
        process = self.start(processes)
        while after_step not in self.job.steps():
            assert process.poll() is None, self.job.log[-3000:]
            time.sleep(0.1)
        self.leave(left)
        return self.job.end(process)


@pytest.fixture(scope="module")
def new_job(tmp_path_factory):
    """new_job(module, checkpoints): a job of the module's train.py; and where it finds its reward, as PYTHONPATH."""
    own = tmp_path_factory.mktemp("own")
    (own / "slow_in_a_test.py").write_text(SLOW)
    data = write_splits(make_splits("chain_sum", {"train": 64, "test": 4}), tmp_path_factory.mktemp("data"))
    path = os.pathsep.join([str(own), str(SHARED)])

    def make(module: str, checkpoints: Path | None = None) -> tuple[ScriptJob, str]:
        script = ROOT / module / "scripts" / "train.py"
        folder = tmp_path_factory.mktemp("job")
        return ScriptJob(script, folder, data, FEW, checkpoints=checkpoints, timeout=400), path

    return make


@pytest.mark.job
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(("module", "processes"), MODULES)
def test_it_ends_before_the_cap_and_another_goes_on_to_the_same_weights(module, processes, new_job):
    uninterrupted, path = new_job(module)
    uninterrupted.run(processes=processes, environment={"PYTHONPATH": path})
    assert "stopped_by" not in uninterrupted.output_json("summary.json")

    capped = CappedJob(*new_job(module))
    job = capped.run(processes, after_step=2, left=20)
    done = len(job.steps())
    assert 2 < done < STEPS
    said = rf"^\[time cap\] Stopped after step {done} of {STEPS}: .* resume_from .*$"
    assert len(re.findall(said, job.log, flags=re.MULTILINE)) == 1
    summary = job.output_json("summary.json")
    assert (summary["stopped_by"], summary["steps"], summary["steps_asked"]) == ("time cap", done, STEPS)
    assert summary["trained"]["greedy"]["n"] == 4, "there was time for the evaluation, which is quick"
    assert (job.output / "summary.json").stat().st_mtime < capped.ends, "the cap came before the end"
    assert [each.name for each in job.checkpoints.glob("checkpoint-*")] == [f"checkpoint-{done}"]
    assert job.weights() != uninterrupted.weights()

    second, path = new_job(module, job.checkpoints)
    second.run(processes=processes, environment={"PYTHONPATH": path})
    assert f"Going on from checkpoint-{done}." in second.log
    assert second.steps() == list(range(done + 1, STEPS + 1))
    assert second.weights() == uninterrupted.weights()
    assert second.history() == uninterrupted.history()


@pytest.mark.job
@pytest.mark.timeout(500)
def test_a_cap_that_is_over_before_the_first_step_is_an_error_on_two_processes(new_job):
    capped = CappedJob(*new_job("02_grpo_trl_accelerate"))
    capped.leave(-10)
    job = capped.job.end(capped.start(processes=2), fails=True)
    assert job.failure.read_text().startswith(f"TimeCapError: No step fits into this job's {CAP} s: ")
    assert "max_hours" in job.failure.read_text() and job.steps() == []


@pytest.mark.job
@pytest.mark.timeout(500)
def test_where_time_has_run_out_the_model_is_saved_and_the_evaluation_left_out(new_job):
    job = CappedJob(*new_job("02_grpo_trl_accelerate")).run(None, after_step=1, left=0)
    assert job.steps() == [1, 2]
    assert "[evaluation] after: left out" in job.log
    summary = job.output_json("summary.json")
    assert summary["stopped_by"] == "time cap" and "trained" not in summary and summary["base"]
    assert summary["completion_length"].keys() == summary["cut_off"].keys() == {"base"}
    assert not (job.output / "evaluation_after.json").exists()
    assert job.weights() and [each.name for each in job.checkpoints.glob("checkpoint-*")] == ["checkpoint-2"]


@pytest.mark.job
@pytest.mark.timeout(500)
def test_pairs_are_made_of_what_was_answered_before_the_cap(tmp_path):
    write_splits(make_splits("chain_sum", {"problems": 520}), tmp_path)
    script = ROOT / "01_dpo_trl" / "scripts" / "pairs_sampled.py"
    settings = {"pair_problems": 520, "pair_samples": 2, "pair_batch_size": 500, "eval_max_new_tokens": 64}
    capped = CappedJob(
        ScriptJob(script, tmp_path, {"problems": tmp_path / "problems"}, settings, timeout=400), str(SHARED)
    )
    capped.leave(0)
    capped.job.end(capped.start(processes=None))
    assert "[time cap] 500 of 520 problems are answered; there is no time for more." in capped.job.log
    indices = {pair["index"] for pair in read_pairs(capped.job.output / "pairs.jsonl")}
    assert indices and max(indices) < 500


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


def spot(*phases: tuple[str, float]) -> dict:
    """A spot job with these SecondaryStatusTransitions: each with how many seconds ago it began, and until the next.

    Seconds before now: when the test runs, and not when it was collected.
    """
    now = datetime.datetime.now(datetime.UTC)
    starts = [now - datetime.timedelta(seconds=ago) for _, ago in phases]
    transitions = [
        {"Status": status, "StartTime": start} | ({"EndTime": end} if end else {})
        for (status, _), start, end in zip(phases, starts, [*starts[1:], None], strict=False)
    ]
    return {"EnableManagedSpotTraining": True, "SecondaryStatusTransitions": transitions}


ATTEMPT = ("Starting", 700), ("Downloading", 600), ("Training", 580), ("Interrupted", 300)
DESCRIBED = {
    "on demand": (dict, 900),
    "spot, not yet described": (spot, 1000),
    "spot, which has waited": (lambda: spot(("Starting", 700), ("Downloading", 60), ("Training", 30)), 940),
    "spot, interrupted": (
        lambda: spot(*ATTEMPT, ("Starting", 290), ("Downloading", 50), ("Training", 40)),
        650,
    ),
    "spot, interrupted twice": (
        lambda: spot(*ATTEMPT, ("Starting", 290), ("Training", 200), ("Interrupted", 100), ("Training", 5)),
        595,
    ),
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
        return {"TrainingStartTime": begun, **more()}

    service = SimpleNamespace(describe_training_job=describe_training_job)
    monkeypatch.setattr(boto3, "client", lambda *_, **__: service)
    monkeypatch.setenv("TRAINING_JOB_NAME", "grpo-1")
    monkeypatch.setenv("SM_INPUT_CONFIG_DIR", str(tmp_path))
    monkeypatch.setenv("JOB_MAX_SECONDS", "1000")
    (tmp_path / "resourceconfig.json").write_text(json.dumps({}))
    assert seconds_left() == pytest.approx(expected, abs=5)
    assert seconds_left() and asked == ["grpo-1"], "it is asked once"


@pytest.mark.parametrize(("seconds", "there_is"), [(94.0, True), (96.0, False)])
def test_what_is_planned_leaves_the_reserve(seconds, there_is, monkeypatch):
    monkeypatch.setenv("JOB_MAX_SECONDS", "100")
    monkeypatch.setattr(time_cap, "seconds_left", lambda: 100.0)
    assert reserve() == 5.0 and time_cap.time_for(seconds) is there_is


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
