"""Steps that never end: the watch's clock, and a real job of two processes in one of which a reward sleeps for ever."""

import os
import threading
import time

import pytest
from harness import ROOT, ScriptJob
from job import stalls
from job.stalls import LEAST_S, StallError, StepClock, least_seconds
from job_variables import SHARED
from rl.tasks import make_splits, write_splits
from workshop.jobs.display import JobView
from workshop.jobs.live import _take_log

SLEEPER = """
import os, time

calls = []

def sleeper(completions, **kwargs):
    calls.append(1)
    if len(calls) == 3 and os.environ["RANK"] == "1":
        time.sleep(10_000)
    return [float(len(set(map(str, completions))))] * len(completions)
"""


@pytest.mark.parametrize(("text", "seconds"), [("", LEAST_S), ("60", 60.0), ("0", 0.0)])
def test_how_long_a_job_waits(text, seconds, monkeypatch):
    monkeypatch.setenv("JOB_STALL_SECONDS", text)
    assert least_seconds() == seconds


@pytest.mark.parametrize("text", ["soon", "-1", "nan", "inf"])
def test_no_number_of_seconds_is_said(text, monkeypatch):
    monkeypatch.setenv("JOB_STALL_SECONDS", text)
    with pytest.raises(StallError, match="write a number of seconds, such as 1500, or 0 for none"):
        StepClock()


def test_slow_steps_and_what_lies_between_steps_may_take_longer(monkeypatch):
    monkeypatch.setenv("JOB_STALL_SECONDS", "100")
    clock, now = StepClock(), [0.0]
    monkeypatch.setattr(stalls.time, "monotonic", lambda: now[0])
    assert clock.limits() == (80, 400)  # before the first step
    clock.step_begins()
    assert clock.limits() == (80, 400)  # which may compile
    now[0] = 50.0
    clock.step_ends(1)
    assert clock.limits() == (4 * 500, 4 * 1500)
    clock.step_begins()
    assert clock.limits() == (500, 1500)
    for step in range(2, 5):
        clock.step_begins()
        now[0] += 1
        clock.step_ends(step)
    clock.step_begins()
    assert clock.limits() == (20, 100)


def test_no_thread_where_nothing_is_watched(monkeypatch):
    monkeypatch.setenv("JOB_STALL_SECONDS", "0")
    before = threading.active_count()
    StepClock().begins()
    assert threading.active_count() == before


def test_watch_shows_what_the_job_says_until_the_next_step():
    class Reader:
        def new_events(self, everything):
            return [(time.time(), line) for line in lines]

    view = JobView("job")
    lines = [
        "[algo-1] [stall] No step for 301 s after step 3. It is in rewards.py:7, sleeper: time.sleep(9)."
    ]
    _take_log(view, Reader(), everything=True)
    assert view.stall == lines[0].removeprefix("[algo-1] ")
    lines = ["[metrics] step=4/9 reward=0.5"]
    _take_log(view, Reader(), everything=True)
    assert view.stall == ""


@pytest.mark.job
@pytest.mark.timeout(500)
def test_a_reward_that_sleeps_for_ever_in_one_of_two_processes_ends_the_job(tmp_path):
    data = write_splits(make_splits("chain_sum", {"train": 32, "test": 2}), tmp_path / "data")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "stalling_rewards.py").write_text(SLEEPER)
    job = ScriptJob(
        ROOT / "02_grpo_trl_accelerate" / "scripts" / "train.py",
        tmp_path,
        channels=data,
        settings={
            "max_steps": 6,
            "per_device_train_batch_size": 4,
            "num_generations": 4,
            "max_completion_length": 8,
            "eval_problems": 2,
            "eval_samples": 1,
            "eval_max_new_tokens": 4,
            "report_to": "none",
            "rewards": ["stalling_rewards.sleeper"],
            "reward_weights": [1.0],
        },
        timeout=400,
    )
    job.run(
        processes=2,
        fails=True,
        environment={
            "JOB_STALL_SECONDS": "20",
            "PYTHONPATH": os.pathsep.join(map(str, [tmp_path / "work", SHARED])),
        },
    )
    assert job.steps() == [1, 2]
    reason = job.failure.read_text()
    assert reason.startswith("JobStalled: Process 1 of 2: no step for "), reason[:300]
    assert "after step 2" in reason and "It is in work/stalling_rewards.py:" in reason
    assert "sleeper: time.sleep(10_000)" in reason[:600]
    # The other says where it waits, too.
    assert "[stall] Process 0 of 2: no step for " in job.log and "torch/distributed" in job.log


def test_a_process_in_a_collective_waits_for_others():
    place: dict = {}
    exec(compile("def gather(seen): return seen()", "/lib/torch/distributed/c10d.py", "exec"), place)
    assert place["gather"](stalls._waits_for_others)
    assert not stalls._waits_for_others()
