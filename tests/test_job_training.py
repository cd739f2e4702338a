"""02's train.py in short real jobs: resume, history, summary, and what MLflow and W&B then hold."""

import json
import re
import shutil
import struct
from pathlib import Path

import pytest
from harness import ROOT, ScriptJob
from moto.server import ThreadedMotoServer
from own_task import FEW as OWN_TASK
from own_task import check_own_task, write_own_task
from rl.evaluation import Evaluation
from rl.tasks import make_splits, write_splits

pytestmark = pytest.mark.job
SCRIPT = ROOT / "02_grpo_trl_accelerate" / "scripts" / "train.py"
STEPS = 6
FEW = {
    "max_steps": STEPS,
    "per_device_train_batch_size": 8,
    "num_generations": 4,
    "max_completion_length": 32,
    "learning_rate": 1e-3,
    "warmup_steps": 0,
    "save_steps": 2,
    "eval_problems": 4,
    "eval_samples": 1,
    "eval_max_new_tokens": 8,
    "report_to": "none",
}
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"  # the shape of a W&B key


@pytest.fixture(scope="module")
def new_job(tmp_path_factory):
    """new_job(**ScriptJob fields): a job of 02's script with folders of its own, and the same few problems for each."""
    data = write_splits(make_splits("chain_sum", {"train": 64, "test": 4}), tmp_path_factory.mktemp("data"))

    def make(**fields):
        given = {"channels": data, "settings": FEW, "timeout": 240, **fields}
        return ScriptJob(SCRIPT, tmp_path_factory.mktemp("job"), **given)

    return make


@pytest.fixture(scope="module")
def uninterrupted(new_job) -> ScriptJob:
    """A job of six steps that nothing interrupts."""
    return new_job().run()


@pytest.mark.timeout(300)
def test_metric_lines_and_history_show_every_step_once(uninterrupted):
    lines = re.findall(
        r"^\[metrics\] step=(\d+)/(\d+) reward=([-+0-9.eE]+) loss=", uninterrupted.log, flags=re.MULTILINE
    )
    assert [(int(step), int(last)) for step, last, _ in lines] == [
        (step, STEPS) for step in range(1, STEPS + 1)
    ]
    history = uninterrupted.history()
    assert [logs["step"] for logs in history] == list(range(1, STEPS + 1))
    assert [logs["reward"] for logs in history] == pytest.approx(
        [float(reward) for *_, reward in lines], rel=1e-3
    )
    assert {"loss", "entropy", "completions/mean_length", "rewards/accuracy/mean"} <= history[0].keys()
    assert any(logs["grad_norm"] > 0 for logs in history), "nothing was trained"


def test_summary_holds_the_record(uninterrupted):
    record = uninterrupted.output_json("summary.json")
    assert (record["trainer"], record["processes"], record["hosts"], record["steps"]) == (
        "trl.GRPOTrainer",
        1,
        1,
        STEPS,
    )
    assert record["base"]["greedy"].keys() == {"value", "low", "high", "n", "decoding"}
    assert record["trained"]["sampled"]["n"] == 4
    assert record["train_seconds"] > 0
    assert 100 < record["peak_rss_mb"] < 5000  # torch alone takes more than 100 MB
    tokens = uninterrupted.history()[-1]["num_tokens"]
    assert record["tokens_per_second"] == pytest.approx(tokens / record["train_seconds"], rel=0.01)
    assert record["versions"]["trl"].startswith("1.")
    assert record["cut_off"]["base"]["greedy"] > 0, "8 tokens are too few for an answer"
    for name in ("before", "after"):
        evaluation = Evaluation.load(uninterrupted.output / f"evaluation_{name}.json")
        assert record["base" if name == "before" else "trained"]["greedy"]["value"] == evaluation.greedy.value


@pytest.mark.timeout(300)
def test_a_job_killed_in_the_middle_goes_on_to_the_same_weights(uninterrupted, new_job):
    first = new_job()
    first.kill_when(first.start(), lambda: 5 in first.steps())
    # The newest checkpoint has its marker and its size, but what is at the end of a file was never written.
    weights = first.checkpoints / "checkpoint-4" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000] + bytes(1000))

    second = new_job(checkpoints=first.checkpoints).run()
    assert (
        "Skipping checkpoint-4, which is not whole: model.safetensors has changed since it was written."
        in second.log
    )
    assert "Going on from checkpoint-2." in second.log
    assert second.steps() == [3, 4, 5, 6]

    assert second.weights() == uninterrupted.weights()
    assert second.history() == uninterrupted.history()
    record = second.output_json("summary.json")
    own_tokens = second.history()[-1]["num_tokens"] - second.history()[1]["num_tokens"]
    assert record["tokens_per_second"] == pytest.approx(own_tokens / record["train_seconds"], rel=0.01)


@pytest.mark.timeout(500)
def test_two_processes_resume_to_the_same_weights_and_report_once(tracked, new_job):
    assert tracked.log.count("[metrics] step=6/6") == 1
    assert tracked.output_json("summary.json")["processes"] == 2
    marker = json.loads((tracked.checkpoints / "checkpoint-4" / "complete-0.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= marker["files"].keys()

    second = new_job()
    shutil.copytree(tracked.checkpoints / "checkpoint-4", second.checkpoints / "checkpoint-4")
    assert second.run(processes=2).log.count("Going on from checkpoint-4.") == 1
    assert second.weights() == tracked.weights()


@pytest.mark.timeout(300)
def test_a_job_started_again_after_its_last_step_only_evaluates_and_saves(uninterrupted, new_job):
    from mlflow import MlflowClient

    again = new_job(checkpoints=uninterrupted.checkpoints)
    again.run(report_to="mlflow", experiment="again", environment={"MLFLOW_TRACKING_URI": store_of(again)})
    assert "does not say which" not in again.log, "the checkpoint lacks a part of what it was made of"
    assert "checkpoint-6 holds all 6 steps: nothing is left to train." in again.log
    assert again.steps() == []
    assert again.weights() == uninterrupted.weights()
    assert again.history() == uninterrupted.history()
    record, first = again.output_json("summary.json"), uninterrupted.output_json("summary.json")
    assert (record["steps"], record["tokens_per_second"]) == (STEPS, 0.0)
    for key in ("base", "trained", "cut_off", "completion_length"):
        assert record[key] == first[key]
    assert sorted(path.name for path in again.checkpoints.glob("checkpoint-*")) == [
        "checkpoint-4",
        "checkpoint-6",
    ]
    client = MlflowClient(store_of(again))
    (run,) = client.search_runs([client.get_experiment_by_name("again").experiment_id])
    assert run.info.status == "FINISHED"
    assert {
        "before/pass_at_1_greedy",
        "after/pass_at_1_greedy",
        "after/cut_off_greedy",
    } <= run.data.metrics.keys()
    assert "reward" not in run.data.metrics


@pytest.mark.timeout(300)
def test_a_checkpoint_of_other_data_is_refused_before_anything_is_computed(uninterrupted, new_job, tmp_path):
    data = write_splits(make_splits("chain_sum", {"train": 64, "test": 4}, seed=7), tmp_path)
    job = new_job(checkpoints=uninterrupted.checkpoints, channels=data).run(fails=True)
    reason = job.failure.read_text()
    assert reason.startswith("CheckpointError: checkpoint-6 was made with data ")
    assert "give the job a checkpoint folder of its own, or the data back" in reason
    assert "[evaluation]" not in job.log


@pytest.mark.timeout(300)
def test_a_reward_model_is_learned_by_an_own_verdict_on_two_processes(tmp_path):
    channels, environment = write_own_task(tmp_path)
    few = {key: OWN_TASK[key] for key in ("verifier", "report_to")}
    few |= {
        "max_steps": 3,
        "save_steps": 3,
        "eval_problems": 64,
        "eval_samples": 4,
        "eval_max_new_tokens": 96,
    }
    script = SCRIPT.with_name("train_reward_model.py")
    job = ScriptJob(script, tmp_path / "job", channels, few, recipe="reward_model", timeout=240)
    job.run(processes=2, environment=environment)
    assert job.steps() == [1, 2, 3, 3]  # the last line is that of the evaluation
    assert "score.weight" in job.weights()
    made_of = json.loads((job.checkpoints / "checkpoint-3" / "complete-0.json").read_text())["fingerprints"]
    assert made_of.keys() == {"data", "base", "seed", "verdict", "pairs"}
    assert made_of["verdict"].startswith("words_in_a_test.same_word (own code ")


@pytest.mark.timeout(300)
def test_own_rewards_of_every_kind_and_an_own_verdict_train_adapters(new_job, tmp_path):
    channels, environment = write_own_task(tmp_path)
    others = {"in_numpy": 0.5, "in_a_tensor": 0.25, "without_opinion": 1.0, "at_leisure": 0.75, "never": 0.0}
    names = [f"words_in_a_test.{name}" for name in others]
    job = new_job(channels=channels, settings=OWN_TASK).run(
        environment=environment,
        max_steps=5,
        lora_rank=4,
        rewards=[*OWN_TASK["rewards"], *names],
        reward_weights=[*OWN_TASK["reward_weights"], *[0.0] * len(names)],
    )
    check_own_task(job.history(), job.output_json("evaluation_before.json"))
    adapters = job.weights("adapter/adapter_model.safetensors")
    assert any(any(value) for name, value in adapters.items() if "lora_B" in name), "nothing was trained"
    for name, value in others.items():
        assert {logs[f"rewards/words_in_a_test.{name}/mean"] for logs in job.history()} == {value}, name
    warned = [line for line in job.log.splitlines() if line.startswith("[warning]")]
    assert len(warned) == 2, warned
    assert "words_in_a_test.never was 0 for every completion of the first 5 steps" in warned[0]
    assert "wrote '<think>" in warned[1]

    broken = new_job(channels=channels, settings=OWN_TASK)
    broken.run(environment=environment, rewards=["accuracy", "words_in_a_test.payed"], fails=True)
    assert broken.failure.read_text().startswith("RewardError: ")
    assert "words_in_a_test.py" in broken.failure.read_text() and "[evaluation]" not in broken.log


@pytest.fixture(scope="module")
def tracked(new_job):
    """A job on two processes that reports to MLflow and W&B, whose key is in (moto's) Secrets Manager."""
    import boto3

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    aws = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    client = boto3.client(
        "secretsmanager",
        endpoint_url=aws["AWS_ENDPOINT_URL"],
        region_name="us-east-1",
        aws_access_key_id="test",
        aws_secret_access_key="test",
    )
    client.create_secret(Name="wandb", SecretString=json.dumps({"WANDB_API_KEY": WANDB_KEY}))
    job = new_job()
    trackers = {
        "MLFLOW_TRACKING_URI": store_of(job),
        "WANDB_MODE": "offline",
        "WANDB_SECRET_NAME": "wandb",
        "WORKSHOP_GIT_REVISION": "abc1234",
    }
    try:
        job.run(
            processes=2, report_to=["mlflow", "wandb"], experiment="tests", environment={**aws, **trackers}
        )
    finally:
        server.stop()
    return job


def store_of(job: ScriptJob) -> str:
    """Where a job's MLflow run is kept: beside what it leaves."""
    return f"sqlite:///{job.folder / 'store' / 'mlflow.db'}"


@pytest.mark.timeout(400)
def test_mlflow_run_can_be_read_back(tracked):
    from mlflow import MlflowClient

    job = tracked
    client = MlflowClient(store_of(job))
    experiment = client.get_experiment_by_name("tests")
    (run,) = client.search_runs([experiment.experiment_id])  # one run, though two processes trained
    assert run.info.status == "FINISHED"
    params = run.data.params
    assert params["git_revision"] == "abc1234"
    assert re.fullmatch("[0-9a-f]{64}", params["data_sha256"])
    assert (params["job.experiment"], params["learning_rate"]) == ("tests", "0.001")
    rewards = [metric.value for metric in client.get_metric_history(run.info.run_id, "reward")]
    assert rewards == [logs["reward"] for logs in job.history()]
    evaluation = Evaluation.load(job.output / "evaluation_before.json")
    assert run.data.metrics["before/pass_at_1_greedy_high"] == evaluation.greedy.high
    tables = {artifact.path for artifact in client.list_artifacts(run.info.run_id)}
    assert {"evaluation_before.json", "evaluation_after.json"} <= tables
    table = json.loads(Path(client.download_artifacts(run.info.run_id, "evaluation_before.json")).read_text())
    assert len(table["data"]) == len(evaluation.completions)
    assert "completion" in table["columns"]
    assert not (job.work / "mlruns").exists()


def wandb_records(path: Path):
    """Records of a .wandb file: a 7-byte header, then LevelDB's log format (blocks of 32 KiB, records in pieces)."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, place, pieces = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while place + 7 <= len(data):
        if 32768 - place % 32768 < 7:  # no room for a piece's header: the rest of the block is padding
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, place + 4)
        pieces += data[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last piece of one
            yield Record.FromString(pieces)
            pieces = b""


@pytest.mark.timeout(400)
def test_wandb_run_can_be_read_back(tracked):
    job = tracked
    (log,) = (job.output / "wandb").glob("offline-run-*/run-*.wandb")  # one run, though two processes trained
    rewards, config = [], {}
    for record in wandb_records(log):
        history = {"/".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
        if "train/reward" in history:
            rewards.append(json.loads(history["train/reward"]))
        for item in (*record.run.config.update, *record.config.update):
            config["/".join(item.nested_key) or item.key] = json.loads(item.value_json)
    assert rewards == [logs["reward"] for logs in job.history()]
    assert config["git_revision"] == "abc1234"
    assert config["job"]["experiment"] == "tests"
    assert config["learning_rate"] == 0.001
    (table,) = (
        json.loads(path.read_text()) for path in log.parent.glob("files/media/table/before/*.table.json")
    )
    assert len(table["data"]) == 8  # four problems, greedy and one sample


def test_no_secret_is_written_or_printed(tracked):
    assert WANDB_KEY not in tracked.log
    files = [path for path in tracked.folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        assert WANDB_KEY.encode() not in path.read_bytes(), path


@pytest.mark.timeout(300)
def test_a_failing_job_says_why_and_its_run_does_not_look_finished(tracked, new_job):
    from mlflow import MlflowClient

    job, store = new_job(), store_of(tracked)
    job.run(
        report_to="mlflow",
        experiment="failing",
        reward_weights=[1.0],  # there are two rewards
        environment={"MLFLOW_TRACKING_URI": store},
        fails=True,
    )
    reason = job.failure.read_text()[:1024]
    assert reason.startswith("ValueError: ")
    assert "reward weights" in reason
    assert "train.py" in reason
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("failing").experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]
