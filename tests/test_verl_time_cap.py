"""05_grpo_verl within a time cap, on a task of one's own with its data, verdict and reward.

verl stops by itself, what it trained is merged and saved, and another job goes on. The same two jobs show both.
"""

import math
import os
import time
from pathlib import Path

import pytest
from endpoint_fixtures import describe, launch, log_lines, wait_end
from launchers import RayCluster
from lesson.verl_checks import check_verl_recipe
from rl.tasks import make_splits, write_splits
from safetensors.torch import load_file
from sagemaker.core.training.configs import CheckpointConfig, InputData, SourceCode, StoppingCondition
from workshop.checks.preflight import preflight
from workshop.jobs.outputs import JobOutput, fetch_output
from workshop.session.staging import stage_source

ROOT = Path(__file__).parents[1]
ENDPOINT_WITH_TORCH = True
CAP_S = 90  # of the first job, from its first step on
LONGEST_S = 1500
STEPS = 1000
OVERRIDES = [
    "trainer.save_freq=999",
    "data.train_batch_size=3",
    "actor_rollout_ref.actor.ppo_mini_batch_size=3",
    "actor_rollout_ref.rollout.n=4",
    "actor_rollout_ref.actor.ppo_micro_batch_size_per_gpu=12",
    "actor_rollout_ref.rollout.log_prob_micro_batch_size_per_gpu=12",
    "job.rewards=[accuracy, my_task.brevity]",
    "job.reward_weights=[1.0, 0.5]",
    "job.verifier=my_task.same_word",
    "job.eval_problems=20",
    "job.eval_samples=1",
    "job.report_to=[]",
]
OWN_TASK = '''
DIGITS = "zero one two three four five six seven eight nine".split()

def in_words(number):
    return " ".join("minus" if c == "-" else DIGITS[int(c)] if c in "0123456789" else c for c in number)

def same_word(given, gold):
    return gold in (given, in_words(given))

def brevity(completions, allowed, **kwargs):
    """1.0 up to so many characters as the row allows; no opinion where it says nothing."""
    texts = [completion[0]["content"] for completion in completions]
    return [None if most is None else float(len(text) <= int(most)) for text, most in zip(texts, allowed)]
'''
OWN: dict = {}
exec(OWN_TASK, OWN)


def in_words(split: list[dict]) -> list[dict]:
    """The rows with their answers in words, and a column of numbers that some rows lack."""
    allowed = [60, 30, None]
    return [
        {**row, "answer": OWN["in_words"](row["answer"]), "allowed": allowed[number % 3]}
        for number, row in enumerate(split)
    ]


def hold_the_cap(folder: Path, name: str) -> float:
    """Wait for the job's first step, and have its cap begin anew until then. Returns when it began, in seconds (Unix time).

    How long verl takes to start depends on what else the machine does. A spot job's cap counts from the time of the files
    that its container is made with.
    """
    while not any(line.startswith("[metrics] step=1/") for line in log_lines(name)):
        status = describe(name)["TrainingJobStatus"]
        assert status == "InProgress", (status, log_lines(name)[-40:])
        began = time.time()
        for file in folder.glob("attempt-1/algo-1/ml/input/config/*.json"):
            os.utime(file, (began, began))
        time.sleep(1)
    return began


@pytest.mark.timeout(1800)  # the environment may have to be built first
def test_a_capped_job_is_completed_with_its_model_and_the_next_one_goes_on(endpoint, make_trainer, tmp_path):
    """With three rows an epoch is one step, so both take more steps than the data holds."""
    source = stage_source(ROOT / "05_grpo_verl" / "scripts", build=tmp_path)
    (source / "my_task.py").write_text(OWN_TASK)
    splits = make_splits("chain_sum", {"train": 3, "test": 20})
    folders = write_splits({name: in_words(rows) for name, rows in splits.items()}, tmp_path / "data")
    channels = [InputData(channel_name=split, data_source=str(path)) for split, path in folders.items()]
    checkpoints = f"s3://{os.environ.get('BUCKET', 'sagemaker-us-east-1-123456789012')}/verl-time-cap"

    def trainer_of(steps: int, **arguments):
        return make_trainer(
            "",
            source_code=SourceCode(
                source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
            ),
            distributed=RayCluster(process_count_per_node=1),
            hyperparameters={
                "config": "recipes/tiny.yaml",
                "overrides": [f"trainer.total_training_steps={steps}", *OVERRIDES],
            },
            checkpoint_config=CheckpointConfig(s3_uri=checkpoints),
            spot=True,
            stopping_condition=StoppingCondition(
                max_runtime_in_seconds=LONGEST_S, max_wait_time_in_seconds=LONGEST_S
            ),
            **arguments,
        )

    def finish(name: str, folder: str) -> tuple[JobOutput, list[str], dict]:
        job = wait_end(name, timeout_s=LONGEST_S)
        lines = log_lines(name)
        assert job["TrainingJobStatus"] == "Completed", (job.get("FailureReason"), lines[-40:])
        return fetch_output(name, tmp_path / folder, model=True), lines, job

    name = launch(trainer_of(STEPS, environment={"JOB_MAX_SECONDS": str(CAP_S)}), input_data_config=channels)
    began = hold_the_cap(endpoint.job_folder(name), name)
    capped, lines, job = finish(name, "capped")
    assert job["TrainingEndTime"].timestamp() < began + CAP_S
    done = capped.summary["steps"]
    assert 0 < done < STEPS
    assert (capped.summary["stopped_by"], capped.summary["steps_asked"]) == ("time cap", STEPS)
    assert sum(f"[time cap] Stopped after step {done} of {STEPS}: " in line for line in lines) == 1
    assert [row["step"] for row in capped.history] == list(range(1, done + 1))
    assert capped.history[-1]["timing_s/save_checkpoint"] > 0

    trainer = trainer_of(done + 4)
    checks = str(preflight(trainer, channels, recipe=check_verl_recipe))
    assert f"{done + 4} steps of 3 of the 3 prompts: {done + 4} times through them" in checks
    further, lines, _ = finish(launch(trainer, input_data_config=channels), "further")
    assert f"Going on from global_step_{done}." in lines
    assert further.summary["steps"] == done + 4 and "stopped_by" not in further.summary
    assert [row["step"] for row in further.history] == list(range(1, done + 5))
    first, second = (load_file(output.model / "model.safetensors") for output in (capped, further))
    assert any((first[name] != second[name]).any() for name in first), "four steps more"
    check_rewards(further)
    check_verdicts(further)


def check_rewards(output: JobOutput) -> None:
    for row in output.history:  # the reward has an opinion on two rows of three
        parts = row["rewards/accuracy/mean"] + 0.5 * row["rewards/my_task.brevity/mean"] * 2 / 3
        assert math.isclose(row["reward"], parts, abs_tol=1e-5)
    assert any(row["rewards/accuracy/mean"] > 0 for row in output.history)
    assert 0 < sum(row["rewards/my_task.brevity/mean"] for row in output.history) < len(output.history)


def check_verdicts(output: JobOutput) -> None:
    for evaluation, rates in ((output.before, "base"), (output.after, "trained")):
        right = [
            item["extracted"] is not None and OWN["same_word"](item["extracted"], item["answer"])
            for item in evaluation.completions
        ]
        assert [item["correct"] for item in evaluation.completions] == right
        assert output.summary[rates]["greedy"]["value"] == evaluation.greedy.value
    assert output.before.greedy.value > 0, "the verdict on words is not that of the evaluation"
