"""05_grpo_verl within a time cap: verl stops by itself, what it trained is merged and saved, and another job goes on."""

import os
from pathlib import Path

import pytest
from endpoint_fixtures import launch, log_lines, wait_end
from launchers import RayCluster
from rl.tasks import make_splits, write_splits
from safetensors.torch import load_file
from sagemaker.core.training.configs import CheckpointConfig, InputData, SourceCode, StoppingCondition
from workshop.jobs.outputs import fetch_output
from workshop.session.staging import stage_source

ROOT = Path(__file__).parents[1]
ENDPOINT_WITH_TORCH = True
CAP_S = 240  # of the first job; most of it passes before the first step where many jobs share the machine
STEPS = 1000


@pytest.mark.timeout(1800)  # the environment may have to be built first
def test_a_capped_job_is_completed_with_its_model_and_the_next_one_goes_on(make_trainer, tmp_path):
    source = stage_source(ROOT / "05_grpo_verl" / "scripts", build=tmp_path)
    folders = write_splits(make_splits("chain_sum", {"train": 64, "test": 20}), tmp_path / "data")
    channels = [InputData(channel_name=split, data_source=str(path)) for split, path in folders.items()]
    checkpoints = f"s3://{os.environ.get('BUCKET', 'sagemaker-us-east-1-123456789012')}/verl-time-cap"

    def run(steps: int, seconds: int, folder: str):
        overrides = [f"trainer.total_training_steps={steps}", "trainer.save_freq=999", "job.report_to=[]"]
        trainer = make_trainer(
            "",
            source_code=SourceCode(
                source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
            ),
            distributed=RayCluster(process_count_per_node=1),
            hyperparameters={
                "config": "recipes/tiny.yaml",
                "overrides": [*overrides, "job.eval_problems=20", "job.eval_samples=1"],
            },
            checkpoint_config=CheckpointConfig(s3_uri=checkpoints),
            stopping_condition=StoppingCondition(max_runtime_in_seconds=seconds),
            environment={"JOB_MAX_SECONDS": str(seconds)},
        )
        name = launch(trainer, input_data_config=channels)
        job = wait_end(name, timeout_s=1200)
        lines = log_lines(name)
        assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines[-40:])
        return fetch_output(name, tmp_path / folder, model=True), lines

    capped, lines = run(STEPS, CAP_S, "capped")
    done = capped.summary["steps"]
    assert 0 < done < STEPS
    assert (capped.summary["stopped_by"], capped.summary["steps_asked"]) == ("time cap", STEPS)
    assert sum(f"[time cap] Stopped after step {done} of {STEPS}: " in line for line in lines) == 1
    assert [row["step"] for row in capped.history] == list(range(1, done + 1))
    assert capped.history[-1]["timing_s/save_checkpoint"] > 0

    further, lines = run(done + 1, 1500, "further")
    assert f"Going on from global_step_{done}." in lines
    assert further.summary["steps"] == done + 1 and "stopped_by" not in further.summary
    assert [row["step"] for row in further.history] == list(range(1, done + 2))
    first, second = (load_file(output.model / "model.safetensors") for output in (capped, further))
    assert any((first[name] != second[name]).any() for name in first), "one step more"
