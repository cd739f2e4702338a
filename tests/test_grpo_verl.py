"""05_grpo_verl as it runs on AWS: spot jobs of two hosts, interrupted, resumed, merged and evaluated.

The notebook trains on one host with two processes; here each host has one, so that weights, gradients and the shards
of a checkpoint have to cross from host to host: those of FSDP2, and the stages of a pipeline.
"""

import math
import os
import time
from pathlib import Path

import psutil
import pytest
from endpoint_fixtures import describe, launch, log_lines, s3_keys, wait_end
from launchers import RayCluster
from rl.tasks import make_splits, write_splits
from safetensors.torch import load_file
from sagemaker.core.training.configs import CheckpointConfig, InputData, SourceCode, StoppingCondition
from workshop.jobs.outputs import JobOutput, fetch_output
from workshop.session.staging import stage_source

ROOT = Path(__file__).parents[1]
STEPS = 5
ENDPOINT_WITH_TORCH = True
OVERRIDES = [
    f"trainer.total_training_steps={STEPS}",
    "trainer.save_freq=2",
    "actor_rollout_ref.actor.optim.lr_warmup_steps=4",
    "job.eval_problems=20",
    "job.eval_samples=1",
    "job.report_to=[]",
]


def wait_for(reached, name: str, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not reached():
        assert time.monotonic() < deadline, log_lines(name)[-40:]
        assert (job := describe(name))["TrainingJobStatus"] == "InProgress", job.get("FailureReason")
        time.sleep(1)


def prepared(recipe: str, checkpoints: str, folder: Path) -> tuple[Path, dict, list[InputData]]:
    """The staged source, what make_trainer is given, and the channels of a job."""
    source = stage_source(ROOT / "05_grpo_verl" / "scripts", build=folder)
    folders = write_splits(make_splits("chain_sum", {"train": 64, "test": 20}), folder / "data")
    settings = dict(
        spot=True,
        source_code=SourceCode(
            source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
        ),
        distributed=RayCluster(process_count_per_node=1),
        hyperparameters={"config": f"recipes/{recipe}.yaml", "overrides": OVERRIDES},
        checkpoint_config=CheckpointConfig(s3_uri=checkpoints),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=1400, max_wait_time_in_seconds=1400),
    )
    return (
        source,
        settings,
        [InputData(channel_name=split, data_source=str(path)) for split, path in folders.items()],
    )


def interrupted(name: str, checkpoints: str, endpoint, output: Path) -> JobOutput:
    """Interrupts a job of two hosts once both have kept step 2, and gives what it left after it went on to its end."""

    def whole_checkpoint() -> bool:
        return {f"complete-{host}.json" for host in (0, 1)} <= {
            Path(key).name for key in s3_keys(f"{checkpoints}/global_step_2")
        }

    wait_for(whole_checkpoint, name, timeout_s=900)
    done = endpoint.command("interrupt", name)
    assert done.returncode == 0, done.stderr
    job = wait_end(name, timeout_s=900)
    lines = log_lines(name)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines[-40:])
    assert "Interrupted" in [change["Status"] for change in job["SecondaryStatusTransitions"]]
    assert sum(line.startswith("Going on from global_step_") for line in lines) == 1
    assert not any("does not say which" in line for line in lines), "lacks a part of what it was made of"
    left = fetch_output(name, output, model=True)
    assert [row["step"] for row in left.history] == list(range(1, STEPS + 1))
    for row in left.history:  # the rollout has the actor's weights, to the last digits of float32
        assert row["training/rollout_actor_probs_pearson_corr"] >= 0.9999
    rates = [
        row["learning_rate"] for row in left.history
    ]  # a warm-up of four steps, which goes on where it was
    assert rates == sorted(rates) and len(set(rates)) >= 4
    summary = left.summary
    assert (summary["hosts"], summary["processes"], summary["steps"]) == (2, 2, STEPS)
    assert summary["base"]["greedy"]["n"] == summary["trained"]["greedy"]["n"] == 20
    return left


@pytest.mark.timeout(2400)  # the environment may have to be built first
def test_two_hosts_go_on_after_an_interruption(make_trainer, endpoint, tmp_path):
    checkpoints = f"s3://{os.environ.get('BUCKET', 'sagemaker-us-east-1-123456789012')}/verl-checkpoints"
    source, settings, channels = prepared("tiny", checkpoints, tmp_path)
    name = launch(make_trainer("", hosts=2, **settings), input_data_config=channels)
    output = interrupted(name, checkpoints, endpoint, tmp_path / "output")
    saved = {
        part for key in s3_keys(checkpoints) for part in Path(key).parts if part.startswith("global_step_")
    }
    assert saved == {
        "global_step_4",
        "global_step_5",
    }  # max_actor_ckpt_to_keep: 2, that before the interruption counted
    summary = output.summary
    for row in output.history:
        assert math.isclose(
            row["reward"], row["rewards/accuracy/mean"] + 0.25 * row["rewards/format/mean"], abs_tol=1e-5
        )
    assert summary["peak_rss_mb"] > 100 and summary["tokens_per_second"] > 0

    trained, base = (
        load_file(output.model / "model.safetensors"),
        load_file(source / "assets/tiny/model.safetensors"),
    )
    assert set(trained) == set(base)
    for weight, values in base.items():
        if values.ndim == 2:  # verl's merger rounds to bfloat16, in which a norm near 1.0 has not moved yet
            halves = zip(
                trained[weight].chunk(2), values.bfloat16().to(trained[weight].dtype).chunk(2), strict=True
            )
            assert all((after != before).any() for after, before in halves), weight  # of both processes

    # Started again when all is done, as after an interruption in the last evaluation: nothing is left to train. One host is
    # enough for that, although the checkpoint is of two.
    again = launch(make_trainer("", **settings), input_data_config=channels)
    job = wait_end(again, timeout_s=900)
    lines = log_lines(again)
    assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines[-40:])
    assert f"global_step_{STEPS} holds all {STEPS} steps: nothing is left to train." in lines
    assert not any(line.startswith("[metrics]") for line in lines)
    repeated = fetch_output(again, tmp_path / "again", model=True)
    assert repeated.summary["steps"] == STEPS
    assert [row["step"] for row in repeated.history] == list(range(1, STEPS + 1))
    weights = load_file(repeated.model / "model.safetensors")
    assert all((weights[name] == values).all() for name, values in trained.items())
    assert repeated.summary["trained"] == summary["trained"]


@pytest.mark.timeout(1800)
def test_a_process_that_is_killed_ends_the_job_within_a_minute(make_trainer, endpoint, tmp_path):
    """verl would wait for the completions of that process for ever."""
    _, settings, channels = prepared("tiny", "s3://sagemaker-us-east-1-123456789012/verl-killed", tmp_path)
    settings = {name: value for name, value in settings.items() if name not in ("spot", "stopping_condition")}
    settings["hyperparameters"]["overrides"] = [*OVERRIDES, "trainer.total_training_steps=400"]
    name = launch(make_trainer("", **settings), input_data_config=channels)
    wait_for(lambda: any(line.startswith("[metrics]") for line in log_lines(name)), name, timeout_s=900)
    (agents,) = [
        process
        for process in psutil.Process(endpoint.process.pid).children(recursive=True)
        if process.name().startswith("ray::AgentLoop")
    ]
    agents.kill()
    job = wait_end(name, timeout_s=90)
    reason = job["FailureReason"]
    assert job["TrainingJobStatus"] == "Failed"
    assert reason.startswith("AlgorithmError: ProcessLost: agent_loop_worker"), reason
    assert "died without a word" in reason and "memory ran out" in reason


@pytest.mark.timeout(2400)
def test_a_pipeline_over_two_hosts_goes_on_after_an_interruption(make_trainer, endpoint, tmp_path):
    """Each host has two of the four layers; what it left is one model again, with all of them trained."""
    checkpoints = f"s3://{os.environ.get('BUCKET', 'sagemaker-us-east-1-123456789012')}/pipeline-checkpoints"
    source, settings, channels = prepared("tiny_pipeline", checkpoints, tmp_path)
    name = launch(make_trainer("", hosts=2, **settings), input_data_config=channels)
    output = interrupted(name, checkpoints, endpoint, tmp_path / "output")
    trained, base = (
        load_file(output.model / "model.safetensors"),
        load_file(source / "assets/tiny/model.safetensors"),
    )
    assert set(trained) == set(base)
    assert all((trained[weight] != values).any() for weight, values in base.items())
    assert all(trained[weight].shape == values.shape for weight, values in base.items())
