"""Trackers that cannot be reached, fall silent or are lost: the job goes on at its pace, ends well, and says what they lack.

The clients of MLflow and W&B are the real ones, in a process of their own, and so are sockets, locks and deleted files.
"""

import json
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import ExitStack, closing, contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from job.tracker_thread import Tracker
from job_variables import SHARED, job_variables
from local_sagemaker.hosts.hosts import free_port
from tracker_servers import WandbServer

pytestmark = [pytest.mark.job, pytest.mark.timeout(400)]
STEPS, SECONDS = 20, 0.05  # of the script, and a step's
# One try of a second for each request of MLflow; the job itself waits as long as it does by default, unless a test says less.
QUICK = {"MLFLOW_HTTP_REQUEST_TIMEOUT": "1", "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}
# A job without a trainer: what 05 does. `go` is awaited after half of the steps.
JOB = """
import json, sys, time
from pathlib import Path
from types import SimpleNamespace
from job.arguments import RunArguments
from job.container import output_data_dir
from job.tracking import finish_tracking, log_metrics, start_tracking

began = time.monotonic()
start_tracking(RunArguments(), SimpleNamespace(report_to=sys.argv[1:], run_name="run"), data_fingerprint="0")
print("STARTED", time.monotonic() - began, flush=True)
longest = 0.0
for step in range(1, STEPS + 1):
    if step == STEPS // 2:
        print("HALF", flush=True)
        sys.stdin.readline()
    began = time.monotonic()
    log_metrics({"reward": step / 10}, step)
    longest = max(longest, time.monotonic() - began)
    time.sleep(SECONDS)
output_data_dir().mkdir(parents=True, exist_ok=True)
(output_data_dir() / "summary.json").write_text("{}")
print("LONGEST", longest, flush=True)
finish_tracking()
""".replace("STEPS", str(STEPS)).replace("SECONDS", str(SECONDS))


def run_job(folder: Path, *trackers: str, half=lambda: None, **variables: str) -> tuple[dict, str]:
    """Runs it; gives not_tracked of its summary and its log. It must end well, and no step wait for a tracker."""
    settings = QUICK | {"SM_OUTPUT_DATA_DIR": str(folder / "data")} | variables
    process = subprocess.Popen(
        [sys.executable, "-c", JOB, *trackers],
        env=job_variables(SHARED, **settings),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
    )
    log = ""
    try:
        for line in process.stdout:
            log += line
            if line == "HALF\n":
                half()
                process.stdin.write("go\n")
                process.stdin.flush()
        process.wait(timeout=200)
    finally:
        process.kill()
    assert process.returncode == 0, log[-3000:]
    words = {
        line.split()[0]: float(line.split()[1])
        for line in log.splitlines()
        if line[:7] in ("STARTED", "LONGEST")
    }
    assert words["LONGEST"] < 3, "a step has waited for a tracker"
    return json.loads((folder / "data" / "summary.json").read_text()).get("not_tracked", {}), log


@contextmanager
def silent_port():
    """A port that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def knocked_only():
    """A server that says that it is there, and never answers what it is asked."""
    done = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_POST(self) -> None:
            done.wait(60)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        done.set()
        server.shutdown()


def rewards(store: Path) -> list[float]:
    """What the store has of its runs, in the order of steps."""
    with closing(sqlite3.connect(f"file:{store}?mode=ro", uri=True)) as database:
        return [
            row[0] for row in database.execute("SELECT value FROM metrics WHERE key = 'reward' ORDER BY step")
        ]


def wait_for_first_half(store: Path) -> None:
    while True:
        with suppress(sqlite3.OperationalError):  # the tables are yet to come
            if len(rewards(store)) >= STEPS // 2 - 1:
                return
        time.sleep(0.1)


@contextmanager
def refusing_port():
    yield f"http://127.0.0.1:{free_port()}"


def fail() -> None:
    raise ConnectionError("refused")


def test_a_run_that_cannot_be_opened_is_not_tried_again_and_says_so(capsys):
    tracker, made = Tracker("mlflow"), []
    tracker.open(fail)
    tracker.send(lambda: made.append(1), 1)
    tracker.close(lambda: made.append("end"))
    assert made == [] and tracker.trouble == {"reason": "ConnectionError: refused", "from_step": 0}
    said = capsys.readouterr().out
    assert said.endswith("all metrics are in history.jsonl, and the tracker is not tried again.\n")


def test_a_call_that_fails_is_followed_by_others_and_says_so(capsys):
    tracker, made = Tracker("mlflow"), []
    tracker.open(lambda: None)
    tracker.send(fail, 1)
    tracker.send(lambda: made.append(2), 2)
    tracker.close(lambda: made.append("end"))
    assert made == [2, "end"]
    assert "and the tracker is tried again now and then." in capsys.readouterr().out


ALL = [step / 10 for step in range(1, STEPS + 1)]


@pytest.mark.parametrize("server", [refusing_port, silent_port])
def test_servers_that_are_not_there_move_both_runs_into_the_jobs_output(server, tmp_path):
    with server() as url:
        variables = {"MLFLOW_TRACKING_URI": url, "WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40}
        found, log = run_job(tmp_path, "mlflow", "wandb", **variables)
    assert {name: item["from_step"] for name, item in found.items()} == {"mlflow": 0, "wandb": 0}
    assert found["mlflow"]["kept_in"] == str(tmp_path / "data" / "mlflow.db")
    assert "[warning] mlflow: MLflow at " in log and "[warning] wandb: W&B cannot be used: " in log
    assert rewards(tmp_path / "data" / "mlflow.db") == ALL
    assert list((tmp_path / "data" / "wandb").glob("offline-run-*/run-*.wandb"))


def test_a_wandb_server_that_falls_silent_after_the_knock(tmp_path):
    with knocked_only() as url:
        variables = {"WANDB_BASE_URL": url, "WANDB_API_KEY": "0" * 40, "JOB_TRACKING_SECONDS": "6"}
        found, _ = run_job(tmp_path, "wandb", **variables)
    assert found["wandb"]["from_step"] == 0 and found["wandb"]["reason"]


def test_a_wandb_server_that_ends_in_mid_run(tmp_path):
    server = WandbServer()
    variables = {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40, "JOB_TRACKING_SECONDS": "10"}
    found, log = run_job(tmp_path, "wandb", half=server.close, **variables)
    assert "UpsertBucket" in server.asked, "the run was never online"
    assert found["wandb"]["from_step"] == 0 and "kept_in" not in found["wandb"], log
    (kept,) = (tmp_path / "data" / "wandb").glob("run-*/run-*.wandb")
    assert f"`wandb sync {kept.parent}`" in found["wandb"]["reason"] and kept.stat().st_size > 0


def test_a_store_that_is_deleted_in_mid_run(tmp_path):
    store = tmp_path / "data" / "mlflow.db"

    def delete() -> None:
        wait_for_first_half(store)
        store.unlink()

    found, log = run_job(tmp_path, "mlflow", half=delete)
    assert found["mlflow"]["from_step"] >= STEPS // 2 - 1, log
    assert f"{store} is no longer there" in found["mlflow"]["reason"]
    assert log.count("[warning] mlflow: what happens from step ") == 1


def test_a_store_that_another_process_holds_locked_in_mid_run_and_from_the_start(tmp_path):
    store = tmp_path / "data" / "mlflow.db"
    with ExitStack() as stack:

        def lock(seconds: float = 3) -> None:
            wait_for_first_half(store)
            held = sqlite3.connect(store, check_same_thread=False)
            held.execute("BEGIN EXCLUSIVE")
            timer = threading.Timer(seconds, held.close)
            stack.callback(timer.join)
            stack.callback(timer.cancel)
            timer.start()

        found, _ = run_job(tmp_path, "mlflow", half=lock)
        assert found == {} and rewards(store) == ALL  # what has waited came too

        lock(seconds=100)
        (tmp_path / "second").mkdir()
        variables = {"MLFLOW_TRACKING_URI": f"sqlite:///{store}", "JOB_TRACKING_SECONDS": "6"}
        found, log = run_job(tmp_path / "second", "mlflow", **variables)
    assert found["mlflow"]["from_step"] == 0 and found["mlflow"]["reason"], log
