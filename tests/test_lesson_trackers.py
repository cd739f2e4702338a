"""What trackers kept is read back as it was logged: real runs, made here, of MLflow and of W&B offline."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from lesson.trackers import (
    TrackerError,
    compare_trackers,
    completion_steps,
    completions_at,
    plot_system,
    read_mlflow,
    read_wandb,
)
from workshop.jobs.outputs import JobOutput
from workshop.views.tracked_runs import TrackedRunError

ONE, OTHER = JobOutput("job-1", None, None), JobOutput("job-2", None, None)

LOGS = [{"reward": 0.25, "entropy": 0.5}, {"reward": 0.75, "entropy": 0.25}]
# As transformers' WandbCallback logs, in a process of its own; the table is TRL's log_completions.
OFFLINE_RUN = """
import json, sys, time
import wandb
run = wandb.init(project="tests", name="a run", dir=sys.argv[1], mode="offline",
                 settings=wandb.Settings(silent=True, x_stats_sampling_interval=0.5, disable_git=True))
for step, logs in enumerate(json.loads(sys.argv[2]), start=1):
    wandb.log({f"train/{key}": value for key, value in logs.items()} | {"train/global_step": step})
    said, asked = f"<answer>{step}</answer>", "1 + 1 ="
    if step == 2:  # conversational
        said = [{"role": "assistant", "content": said}]
        asked = [{"role": "system", "content": "be brief"}, {"role": "user", "content": asked}]
    rows = [[str(step), asked, said, 1.0, 0.5], [str(step), asked, said, 0.0, -0.5]]
    wandb.log({"completions": wandb.Table(["step", "prompt", "completion", "accuracy", "advantage"], rows)})
time.sleep(2)
wandb.log({"after/pass_at_1_greedy": 0.9})
wandb.finish()
"""


@pytest.fixture(scope="module")
def wandb_data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    subprocess.run([sys.executable, "-c", OFFLINE_RUN, folder, json.dumps(LOGS)], check=True, timeout=120)
    return folder


@pytest.fixture(scope="module")
def mlflow_store(tmp_path_factory):
    import mlflow

    folder = tmp_path_factory.mktemp("mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.create_experiment("tests", artifact_location=folder.as_uri())
    run = client.create_run(experiment, run_name="a run").info.run_id
    client.log_param(run, "job_name", "job-1")
    for step, logs in enumerate(LOGS, start=1):
        for key, value in logs.items():
            client.log_metric(run, key, value, step=step)
    client.log_metric(run, "after/pass_at_1_greedy", 0.9)
    for moment, value in ((10_000, 0.0), (15_000, 20.0), (20_000, 60.0)):
        client.log_metric(run, "system/cpu_utilization_percentage", value, timestamp=moment)
    client.log_metric(run, "system/disk_usage_percentage", 5.0)
    return f"sqlite:///{folder / 'mlflow.db'}"


def test_both_trackers_give_the_same_history_and_metrics(wandb_data, mlflow_store):
    runs = {"MLflow": read_mlflow(ONE, mlflow_store), "W&B": read_wandb(wandb_data)}
    for run in runs.values():
        assert run.name == "a run"
        logged = [entry for entry in run.history if "reward" in entry]
        assert logged == [{"step": step, **logs} for step, logs in enumerate(LOGS, start=1)]
    table = compare_trackers(runs, ["reward", "entropy", "after/pass_at_1_greedy"])
    assert table["MLflow"].tolist() == table["W&B"].tolist() == [0.75, 0.25, 0.9]


def test_the_load_of_the_machine_is_read_from_both(wandb_data, mlflow_store):
    mlflow_run, wandb_run = read_mlflow(ONE, mlflow_store), read_wandb(wandb_data)
    assert mlflow_run.system == [{"step": 0.0, "cpu": 20.0}, {"step": 5.0, "cpu": 60.0}]
    memory = [sample["memory"] for sample in wandb_run.system if "memory" in sample]
    assert memory and all(0 < value < 100 for value in memory)
    plot = plot_system({"MLflow": mlflow_run, "W&B": wandb_run})
    assert [axes.get_title(loc="left") for axes in plot.figure.axes] == ["CPU", "Memory of the machine"]


def test_completions_of_a_step(wandb_data):
    for step in (1, 2):
        rows = completions_at(wandb_data, step)
        assert rows.columns.tolist() == ["prompt", "completion", "accuracy", "advantage"]
        assert rows["completion"].tolist() == [f"<answer>{step}</answer>"] * 2
        assert rows["prompt"].tolist() == ["1 + 1 ="] * 2
    with pytest.raises(TrackerError, match="completions of step 9 .* steps 1 to 2 are"):
        completions_at(wandb_data, 9)


def test_completions_of_a_job_that_went_on_from_a_checkpoint(wandb_data, tmp_path):
    """It has no step 1; nor, where the checkpoint held all steps, any other."""
    assert completion_steps(wandb_data) == [1, 2]
    shutil.copytree(wandb_data / "wandb", tmp_path / "wandb")
    for table in tmp_path.rglob("completions_*.table.json"):
        if json.loads(table.read_text())["data"][0][0] == "1":
            table.unlink()
    assert completion_steps(tmp_path) == [2]
    with pytest.raises(TrackerError, match="completions of step 1 .* steps 2 to 2 are"):
        completions_at(tmp_path, 1)
    for table in tmp_path.rglob("completions_*.table.json"):
        table.unlink()
    for ask in (completion_steps, lambda data: completions_at(data, 1)):
        with pytest.raises(
            TrackerError, match="log_completions: true. A job whose checkpoint held all steps did none"
        ):
            ask(tmp_path)


def test_the_notebook_asks_for_steps_that_are_there():
    notebook = Path(__file__).resolve().parents[1] / "03_grpo_trl_fsdp/03_grpo_trl_fsdp.ipynb"
    asked = re.findall(r"completions_at\(output\.data, (\w+)", notebook.read_text(encoding="utf-8"))
    assert asked == ["kept_steps", "kept_steps"]


def test_a_run_that_went_online_is_read_as_well(wandb_data, tmp_path):
    [offline] = (wandb_data / "wandb").glob("offline-run-*")
    shutil.copytree(offline, tmp_path / "wandb" / offline.name.removeprefix("offline-"))
    assert read_wandb(tmp_path).metrics == read_wandb(wandb_data).metrics
    assert len(completions_at(tmp_path, 1)) == 2


def test_what_is_not_there_is_said(tmp_path, mlflow_store):
    with pytest.raises(TrackedRunError, match="no run of job-2: does the recipe's report_to name mlflow"):
        read_mlflow(OTHER, mlflow_store)
    with pytest.raises(TrackerError, match="0 W&B runs .* report_to name wandb"):
        read_wandb(tmp_path)
    log = tmp_path / "wandb" / "offline-run-1" / "run-1.wandb"
    log.parent.mkdir(parents=True)
    log.write_bytes(b"no such log")
    with pytest.raises(TrackerError, match="cannot read"):
        read_wandb(tmp_path)
