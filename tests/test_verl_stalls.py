"""A reward that never returns, inside verl: the job ends in the stated time, and its log has where each process waits."""

import re
import time
from pathlib import Path

import pytest
from endpoint_fixtures import describe, launch, log_lines, wait_line, wait_until
from launchers import RayCluster
from rl.tasks import make_splits, write_splits
from sagemaker.core.training.configs import InputData, SourceCode
from test_local_sagemaker_process import processes_of
from workshop.session.staging import stage_source

ENDPOINT_WITH_TORCH = True
SCRIPTS = Path(__file__).parents[1] / "05_grpo_verl" / "scripts"
STALL_S = 6
END_S = 4 * STALL_S  # of the first step
# In the script's own process each reward is tried before verl begins.
STUCK = """
import os, time

def stuck(completions, **kwargs):
    if "RAY_RAYLET_PID" in os.environ:
        time.sleep(10_000)
    return [1.0] * len(completions)
"""
OVERRIDES = [
    "trainer.total_training_steps=1",
    "trainer.save_freq=1",
    "data.train_batch_size=2",
    "data.max_response_length=8",
    "actor_rollout_ref.actor.ppo_mini_batch_size=2",
    "actor_rollout_ref.rollout.n=2",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=4",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=4",
    "job.rewards=[stalling.stuck]",
    "job.reward_weights=[1.0]",
    "job.eval_problems=2",
    "job.eval_samples=1",
    "job.eval_max_new_tokens=4",
    "job.report_to=[]",
]


@pytest.mark.timeout(1800)  # the environment may have to be built first
def test_a_reward_that_never_returns_ends_the_job_and_each_process_says_where_it_waits(
    make_trainer, endpoint, tmp_path
):
    source = stage_source(SCRIPTS, build=tmp_path)
    (source / "stalling.py").write_text(STUCK)
    data = write_splits(make_splits("chain_sum", {"train": 8, "test": 2}), tmp_path / "data")
    trainer = make_trainer(
        "",
        source_code=SourceCode(
            source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
        ),
        distributed=RayCluster(process_count_per_node=1),
        hyperparameters={"config": "recipes/smoke.yaml", "overrides": OVERRIDES},
        environment={"JOB_STALL_SECONDS": str(STALL_S)},
    )
    channels = [InputData(channel_name=name, data_source=str(path)) for name, path in data.items()]
    name = launch(trainer, input_data_config=channels)
    wait_line(name, "[stall] No step for", timeout_s=1500)
    began = time.monotonic()
    ended = wait_until(name, lambda job: job["TrainingJobStatus"] != "InProgress", timeout_s=120)
    # The warning came after a fifth; Ray has to be ended too, on a machine that may be busy.
    assert time.monotonic() - began < END_S + 45
    reason, log = ended["FailureReason"], "\n".join(log_lines(name))
    assert ended["TrainingJobStatus"] == "Failed"
    assert re.match(r"AlgorithmError: JobStalled: No step for \d+ s after step 0\.? ", reason), reason
    assert "JOB_STALL_SECONDS" in reason and "It is in " in reason
    # The one that hangs, and those that wait for it.
    assert re.search(r"Stacks of [1-9]\d* processes on 1 hosts follow; 0 hosts are silent\.", log)
    assert re.search(r'stalling\.py", line \d+ in stuck', log), log[-6000:]
    assert not processes_of(name) and describe(name)["TrainingJobStatus"] == "Failed"
