"""A job's MLflow run is found again by the notebook, wherever it was kept: real runs, and a real server on loopback.

MLflow hosted by SageMaker is reached through sagemaker-mlflow, whose requests (signed with dummy credentials) are led to
that server by its own variable SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT. What AWS itself would answer is not tested.
"""

import hashlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import mlflow
import pytest
from job.tracking_uri import uri_problem
from job_requests import job_request
from local_sagemaker.hosts.hosts import free_port
from tracker_servers import mlflow_server
from workshop.checks.tracking_checks import check_tracking
from workshop.jobs.outputs import JobOutput
from workshop.views.tracked_runs import TrackedRunError, browse_runs, open_run, tracked_runs, tracking_store

SCRIPTS = Path(__file__).parents[1] / "scripts"
SERVER_ARN = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server/workshop"
APP_ARN = "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-ABCDEF123456"
# A job as far as tracking sees it: the run is opened, an evaluation and a step are logged, the run is closed.
JOB = """
import os
from types import SimpleNamespace
from job.arguments import RunArguments
from job.tracking import finish_tracking, log_evaluation, log_metrics, start_tracking
from rl.evaluation import score_completions
from rl.verifiers import get_verifier
config = SimpleNamespace(report_to=["mlflow"], run_name="a run")
start_tracking(RunArguments(), config, data_fingerprint="f00d")
print("tracking has started", flush=True)
said = {"index": 0, "question": "4 + 5", "answer": "9", "decoding": "greedy", "sample": 0, "tokens": 9,
        "completion": "<think></think><answer>9</answer>", "cut_off": False}
log_evaluation("after", score_completions([said, said | {"decoding": "sampled"}], get_verifier("number")))
log_metrics({"reward": float(os.environ["REWARD"])}, step=1)
finish_tracking()
"""


def start_job(
    name: str, folder: Path, *, reward: float = 0.5, **variables: str
) -> subprocess.CompletedProcess:
    """A job `name` whose output folder is `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    inherited = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "AWS_"))}
    own = {"SM_OUTPUT_DATA_DIR": str(folder), "TRAINING_JOB_NAME": name, "REWARD": str(reward)}
    return subprocess.run(
        [sys.executable, "-c", JOB],
        env={**inherited, "PYTHONPATH": str(SCRIPTS), **own, **variables},
        cwd=folder.parent,
        capture_output=True,
        text=True,
        timeout=180,
    )


def fetched(job: str, root: Path, **variables) -> JobOutput:
    """A job that ran in a container's folders, and whose output was fetched to another place."""
    done = start_job(job, root / "container" / job / "data", **variables)
    assert done.returncode == 0, done.stderr
    data = root / "jobs" / job / "data"
    data.parent.mkdir(parents=True)
    (root / "container" / job / "data").rename(data)
    return JobOutput(job, None, data)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("own stores")
    return fetched("job-a", root, reward=0.25), fetched("job-b", root, reward=0.75)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.job
def test_jobs_are_compared_from_the_stores_in_their_outputs(outputs):
    before = [content(output.data) for output in outputs]
    table = tracked_runs(outputs, None, ["status", "params.job.recipe", "metrics.reward", "params.nosuch"])
    assert table.index.tolist() == ["job-a", "job-b"]
    assert table["status"].tolist() == ["FINISHED", "FINISHED"]
    assert table["metrics.reward"].tolist() == [0.25, 0.75]
    assert table["params.nosuch"].isna().all()
    one = tracked_runs(outputs[0])
    assert (
        one.loc["job-a", "params.data_sha256"] == "f00d"
        and one.loc["job-a", "tags.mlflow.runName"] == "a run"
    )
    assert [content(output.data) for output in outputs] == before  # not even opened


@pytest.mark.job
def test_a_run_that_did_not_reach_the_server_is_found_in_the_output(tmp_path):
    nobody = f"http://127.0.0.1:{free_port()}"
    output = fetched("job-c", tmp_path, MLFLOW_TRACKING_URI=nobody)
    assert tracked_runs(output, nobody).loc["job-c", "metrics.reward"] == 0.5
    assert browse_runs(output, nobody).endswith(f"sqlite:///{output.data.parent}/mlflow.db")


@pytest.mark.job
def test_artifacts_are_found_where_they_were_fetched_to(outputs, tmp_path):
    assert not (outputs[0].data.parents[2] / "container" / "job-a" / "data").exists()
    with open_run(outputs[0]) as (client, run):
        assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["evaluation_after.json"]
        path = client.download_artifacts(run.info.run_id, "evaluation_after.json", str(tmp_path))
    assert json.loads(Path(path).read_text())["data"][0][1:3] == ["4 + 5", "9"]
    # The page of MLflow reads the same file.
    assert browse_runs(outputs[0]).endswith(
        f"--backend-store-uri sqlite:///{outputs[0].data.parent}/mlflow.db"
    )


@pytest.mark.job
def test_a_copy_that_is_there_is_used_again(outputs):
    copy = Path(tracking_store(outputs[0]).removeprefix("sqlite:///"))
    first = copy.stat().st_mtime_ns
    assert tracked_runs(outputs[0]).shape == tracked_runs(outputs[0], "").shape
    assert copy.stat().st_mtime_ns == first
    assert sorted(path.name for path in copy.parent.iterdir()) == ["data", "mlflow.db"]


@pytest.mark.job
def test_the_kernel_keeps_the_tracking_uri_it_had(outputs, monkeypatch, tmp_path):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    other = f"sqlite:///{tmp_path / 'other.db'}"
    mlflow.set_tracking_uri(other)
    tracked_runs(outputs[0])
    assert mlflow.get_tracking_uri() == other
    mlflow.set_tracking_uri(None)
    tracked_runs(outputs[0])
    assert not mlflow.is_tracking_uri_set()


def test_the_run_of_this_job_is_found_and_not_the_latest(tmp_path):
    store = f"sqlite:///{tmp_path / 'shared.db'}"
    client = mlflow.MlflowClient(store)
    experiment = client.create_experiment("tests", artifact_location=tmp_path.as_uri())
    # job-1 was interrupted and went on.
    for moment, (job, status) in enumerate([("job-1", "FAILED"), ("job-1", "FINISHED"), ("job-2", "FAILED")]):
        run = client.create_run(experiment, start_time=1000 * (moment + 1)).info.run_id
        client.log_param(run, "job_name", job)
        client.set_terminated(run, status)
    one = JobOutput("job-1", None, None)
    assert tracked_runs(one, store)["status"].tolist() == ["FINISHED"]
    assert tracked_runs([JobOutput("job-2", None, None), one], store)["status"].tolist() == [
        "FAILED",
        "FINISHED",
    ]
    with pytest.raises(TrackedRunError, match="shared.db has no run of job-3: does the recipe's report_to"):
        tracked_runs(JobOutput("job-3", None, None), store)


def test_an_output_without_a_store_says_where_the_run_may_be(tmp_path):
    for data in (None, tmp_path):
        with pytest.raises(TrackedRunError, match="job-1 kept no MLflow run .* tracking_uri="):
            tracked_runs(JobOutput("job-1", None, data))


@pytest.mark.parametrize(
    "uri",
    [
        "arn:aws:sagemaker:us-east-1:123456789012:mlflow-tracking-server",
        "arn:aws:sagemaker:us-east-1:12345:mlflow-app/app-A",
        "arn:aws:iam::123456789012:role/mlflow",
        "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/",
        "mlflow.example.com",
        "build/mlflow.db",
    ],
)
def test_a_malformed_uri_is_named_before_anything_is_asked(uri):
    with pytest.raises(TrackedRunError, match="is not the ARN of an MLflow|is not a tracking URI"):
        tracked_runs(JobOutput("job-1", None, None), uri)


def test_proper_uris_are_taken():
    for uri in (
        SERVER_ARN,
        APP_ARN,
        "https://mlflow.example.com",
        "http://127.0.0.1:5000",
        "sqlite:////tmp/a.db",
    ):
        assert uri_problem(uri) is None
    hint = browse_runs(JobOutput("job-1", None, None), APP_ARN)
    assert "Studio" in hint and hint.endswith("app-ABCDEF123456")
    assert browse_runs(JobOutput("job-1", None, None), "http://127.0.0.1:5000").endswith(
        "http://127.0.0.1:5000"
    )


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with mlflow_server(tmp_path_factory.mktemp("server")) as (url, _):
        yield url


def aws_variables(custom_endpoint: str) -> dict[str, str]:
    return {
        "SAGEMAKER_MLFLOW_CUSTOM_ENDPOINT": custom_endpoint,
        "AWS_ACCESS_KEY_ID": "dummy",
        "AWS_SECRET_ACCESS_KEY": "dummy",
        "AWS_REGION": "us-east-1",
    }


@pytest.mark.job
@pytest.mark.parametrize("kind", ["http", "tracking-server", "app"])
def test_a_run_on_a_server_is_found(server, kind, tmp_path, monkeypatch):
    uri = {"http": server, "tracking-server": SERVER_ARN, "app": APP_ARN}[kind]
    variables = {} if kind == "http" else aws_variables(server)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    done = start_job(f"job-{kind}", tmp_path / "data", MLFLOW_TRACKING_URI=uri, **variables)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr  # sagemaker-mlflow warns at each request to another server
    assert not (tmp_path / "data" / "mlflow.db").exists()
    table = tracked_runs(JobOutput(f"job-{kind}", None, None), uri)
    assert table.loc[f"job-{kind}", ["status", "metrics.reward"]].tolist() == ["FINISHED", 0.5]
    with open_run(JobOutput(f"job-{kind}", None, None), uri) as (client, run):
        path = client.download_artifacts(run.info.run_id, "evaluation_after.json", str(tmp_path))
    assert json.loads(Path(path).read_text())["columns"]


@pytest.mark.job
@pytest.mark.parametrize("kind", ["http", "app"])
def test_a_server_that_does_not_answer_is_said_at_once(kind, tmp_path, monkeypatch):
    nobody = f"http://127.0.0.1:{free_port()}"
    uri, variables = (nobody, {}) if kind == "http" else (APP_ARN, aws_variables(nobody))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    started = time.monotonic()
    done = start_job("job-1", tmp_path / "data", MLFLOW_TRACKING_URI=uri, **variables)
    assert time.monotonic() - started < 120  # by itself MLflow would wait for four minutes
    assert done.returncode == 0 and "tracking has started" in done.stdout, done.stderr
    assert f"[warning] mlflow: MLflow at {uri} cannot be used: " in done.stdout
    assert (
        f"The run is kept in the job's own output instead, in {tmp_path / 'data' / 'mlflow.db'}."
        in done.stdout
    )
    with pytest.raises(TrackedRunError, match="cannot be used: .*\n.*Without a tracking_uri"):
        tracked_runs(JobOutput("job-1", None, None), uri)


@pytest.mark.job
def test_a_malformed_arn_ends_a_job_at_its_start(tmp_path):
    done = start_job(
        "job-1", tmp_path / "data", MLFLOW_TRACKING_URI="arn:aws:sagemaker:us-east-1:123456789012:mlflow-app"
    )
    assert done.returncode != 0
    assert "TrackingError: MLFLOW_TRACKING_URI: arn:aws:sagemaker" in done.stderr
    assert "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app/app-ABC123" in done.stderr


@pytest.mark.parametrize(
    ("uri", "changes", "said"),
    [
        (None, {}, []),
        (APP_ARN, {}, [("ok", "MLflow: mlflow-app/app-ABCDEF123456")]),
        (APP_ARN, {"region": "eu-west-1"}, [("warning", "runs in eu-west-1, its MLflow is in us-east-1")]),
        ("https://mlflow.example.com", {}, [("ok", "MLflow: https://mlflow.example.com")]),
        (
            "arn:aws:sagemaker:us-east-1:123456789012:mlflow-app",
            {},
            [("problem", "is not the ARN of an MLflow")],
        ),
        ("http://localhost:5000", {}, [("problem", "is the job's own machine")]),
        ("http://localhost:5000", {"local": True}, [("ok", "MLflow: http://localhost:5000")]),
        ("sqlite:////home/me/build/mlflow.db", {}, [("problem", "is a file of this machine")]),
        (
            "sqlite:////home/me/build/mlflow.db",
            {"local": True},
            [("ok", "MLflow: sqlite:////home/me/build/mlflow.db")],
        ),
        (
            "sqlite:////opt/ml/output/data/mine.db",
            {},
            [("ok", "MLflow: sqlite:////opt/ml/output/data/mine.db")],
        ),
    ],
)
def test_preflight_sees_a_uri_that_a_job_cannot_use(uri, changes, said):
    environment = {"MLFLOW_TRACKING_URI": uri} if uri else {}
    checks = list(check_tracking(job_request(**{"local": False, "environment": environment, **changes})))
    assert len(checks) == len(said)
    for check, (status, words) in zip(checks, said, strict=True):
        assert check.status == status and words in check.detail


def test_preflight_sees_that_an_arn_needs_the_plugin(tmp_path):
    (tmp_path / "requirements.txt").write_text("mlflow==3.17.2\n")
    request = job_request(local=False, source_dir=tmp_path, environment={"MLFLOW_TRACKING_URI": APP_ARN})
    (check,) = check_tracking(request)
    assert (
        check.status == "problem"
        and "needs sagemaker-mlflow, which requirements.txt does not install" in check.detail
    )
    (tmp_path / "requirements.txt").write_text("mlflow==3.17.2\nsagemaker-mlflow==0.5.0\n")
    assert [check.status for check in check_tracking(request)] == ["ok"]
