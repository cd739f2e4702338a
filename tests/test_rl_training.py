"""Real (tiny) GRPO jobs in processes of their own: resume, history, summary, and what MLflow and W&B then hold."""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer
from rl.evaluation import Evaluation
from safetensors import safe_open

SCRIPT = Path(__file__).parent / "rl_train.py"
STEPS = 6
WANDB_KEY = "0123456789abcdef0123456789abcdef01234567"  # the shape of a W&B key


class Job:
    """Folders of one job, and its process with the environment that SageMaker would give it."""

    def __init__(self, folder: Path, checkpoints: Path | None = None):
        self.model, self.output, self.failure = folder / "model", folder / "output", folder / "failure"
        self.checkpoints = checkpoints or folder / "checkpoints"
        self.work = folder / "work"
        self.work.mkdir(parents=True)

    def start(self, *arguments: str, processes: int = 1, **environment: str) -> subprocess.Popen:
        here = str(SCRIPT.parent), str(SCRIPT.parent.parent / "scripts")
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("MLFLOW_", "WANDB_", "AWS_"))
        }
        launch = [sys.executable]
        if processes > 1:
            launch += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
        return subprocess.Popen(
            [*launch, str(SCRIPT), f"--max_steps={STEPS}", *arguments],
            cwd=self.work,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            env={
                **kept,
                "PYTHONPATH": os.pathsep.join(here),
                "OMP_NUM_THREADS": "1",
                "CUDA_VISIBLE_DEVICES": "",
                "SM_MODEL_DIR": str(self.model),
                "SM_OUTPUT_DATA_DIR": str(self.output),
                "SM_OUTPUT_FAILURE": str(self.failure),
                "SM_CHECKPOINT_DIR": str(self.checkpoints),
                **environment,
            },
        )

    def run(self, *arguments: str, **options) -> str:
        """Runs to the end and returns what was printed."""
        process = self.start(*arguments, **options)
        try:
            output, _ = process.communicate(timeout=240)
        finally:
            kill(process)
        assert process.returncode == 0, output
        return output

    def history(self) -> list[dict]:
        return [json.loads(line) for line in (self.output / "history.jsonl").read_text().splitlines()]

    def weights(self) -> dict:
        with safe_open(self.model / "model.safetensors", framework="np") as file:
            return {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118


def kill(process: subprocess.Popen) -> None:
    """Ends the process and its children, if they still run."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    process.wait(timeout=30)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """A job of six steps that nothing interrupts, and its output."""
    job = Job(tmp_path_factory.mktemp("uninterrupted"))
    return job, job.run()


@pytest.mark.timeout(300)
def test_metric_lines_and_history_show_every_step_once(uninterrupted):
    job, output = uninterrupted
    lines = re.findall(
        r"^\[metrics\] step=(\d+)/(\d+) reward=([-+0-9.eE]+) loss=", output, flags=re.MULTILINE
    )
    assert [(int(step), int(last)) for step, last, _ in lines] == [
        (step, STEPS) for step in range(1, STEPS + 1)
    ]
    history = job.history()
    assert [logs["step"] for logs in history] == list(range(1, STEPS + 1))
    assert [logs["reward"] for logs in history] == pytest.approx(
        [float(reward) for *_, reward in lines], rel=1e-3
    )
    assert {"loss", "entropy", "completions/mean_length", "rewards/accuracy/mean"} <= history[0].keys()


def test_summary_holds_the_record(uninterrupted):
    job, _ = uninterrupted
    record = json.loads((job.output / "summary.json").read_text())
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
    tokens = job.history()[-1]["num_tokens"]
    assert record["tokens_per_second"] == pytest.approx(tokens / record["train_seconds"], rel=0.01)
    assert record["versions"]["trl"].startswith("1.")
    for name in ("before", "after"):
        evaluation = Evaluation.load(job.output / f"evaluation_{name}.json")
        assert record["base" if name == "before" else "trained"]["greedy"]["value"] == evaluation.greedy.value


@pytest.mark.timeout(300)
def test_a_job_killed_in_the_middle_goes_on_to_the_same_weights(uninterrupted, tmp_path):
    first = Job(tmp_path / "first")
    process = first.start()
    try:
        for line in process.stdout:
            if line.startswith("[metrics] step=5/"):
                break
    finally:
        kill(process)
    # What a copy that was cut short leaves: the newest checkpoint has its marker, but not all of its bytes.
    newest = first.checkpoints / "checkpoint-4"
    with open(newest / "optimizer.pt", "r+b") as file:
        file.truncate(1000)

    second = Job(tmp_path / "second", checkpoints=first.checkpoints)
    output = second.run()
    assert "Skipping checkpoint-4, which is incomplete: optimizer.pt has 1000 of" in output
    assert "Going on from checkpoint-2." in output
    assert re.findall(r"^\[metrics\] step=(\d+)", output, flags=re.MULTILINE) == ["3", "4", "5", "6"]

    whole, _ = uninterrupted
    assert second.weights() == whole.weights()
    timing = {"step_time"}
    assert [{k: v for k, v in logs.items() if k not in timing} for logs in second.history()] == [
        {k: v for k, v in logs.items() if k not in timing} for logs in whole.history()
    ]
    record = json.loads((second.output / "summary.json").read_text())
    own_tokens = second.history()[-1]["num_tokens"] - second.history()[1]["num_tokens"]
    assert record["tokens_per_second"] == pytest.approx(own_tokens / record["train_seconds"], rel=0.01)


@pytest.mark.timeout(300)
def test_two_processes_resume_to_the_same_weights_and_report_once(tmp_path):
    first = Job(tmp_path / "first")
    output = first.run(processes=2)
    assert len(re.findall(r"\[metrics\] step=6/6", output)) == 1
    assert json.loads((first.output / "summary.json").read_text())["processes"] == 2
    marker = json.loads((first.checkpoints / "checkpoint-4" / "complete-0.json").read_text())
    assert {"rng_state_0.pth", "rng_state_1.pth"} <= marker["files"].keys()

    second = Job(tmp_path / "second")
    shutil.copytree(first.checkpoints / "checkpoint-4", second.checkpoints / "checkpoint-4")
    assert second.run(processes=2).count("Going on from checkpoint-4.") == 1
    assert second.weights() == first.weights()


@pytest.fixture(scope="module")
def tracked(tmp_path_factory):
    """A job on two processes that reports to MLflow and W&B, whose key is in (moto's) Secrets Manager."""
    import boto3

    folder = tmp_path_factory.mktemp("tracked")
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
    job = Job(folder / "job")
    try:
        output = job.run(
            "--report_to",
            '["mlflow", "wandb"]',
            "--experiment=tests",
            processes=2,
            MLFLOW_TRACKING_URI=f"sqlite:///{folder / 'store' / 'mlflow.db'}",
            WANDB_MODE="offline",
            WANDB_SECRET_NAME="wandb",
            WORKSHOP_GIT_REVISION="abc1234",
            **aws,
        )
    finally:
        server.stop()
    return folder, job, output


@pytest.mark.timeout(400)
def test_mlflow_run_can_be_read_back(tracked):
    from mlflow import MlflowClient

    folder, job, _ = tracked
    client = MlflowClient(f"sqlite:///{folder / 'store' / 'mlflow.db'}")
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
    _, job, _ = tracked
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
    folder, _, output = tracked
    assert WANDB_KEY not in output
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert any(path.suffix == ".wandb" for path in files)
    for path in files:
        assert WANDB_KEY.encode() not in path.read_bytes(), path


@pytest.mark.timeout(300)
def test_a_failing_job_says_why_and_its_run_does_not_look_finished(tracked, tmp_path):
    from mlflow import MlflowClient

    folder, _, _ = tracked
    store = f"sqlite:///{folder / 'store' / 'mlflow.db'}"
    job = Job(tmp_path)
    arguments = [
        "--report_to=mlflow",
        "--experiment=failing",
        "--reward_weights=[1.0]",
    ]  # there are three rewards
    process = job.start(*arguments, MLFLOW_TRACKING_URI=store)
    try:
        output, _ = process.communicate(timeout=200)
    finally:
        kill(process)
    assert process.returncode != 0, output
    reason = job.failure.read_text()[:1024]
    assert reason.startswith("ValueError: ")
    assert "reward weights" in reason
    assert "rl_train.py" in reason
    client = MlflowClient(store)
    runs = client.search_runs([client.get_experiment_by_name("failing").experiment_id])
    assert [run.info.status for run in runs] == ["FAILED"]
