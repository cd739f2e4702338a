"""Watching real jobs and fetching what they leave, in a terminal, a notebook, and when things go wrong."""

import os
import queue
import signal
import subprocess
import sys
import textwrap
import time

import boto3
import nbformat
import papermill
import pytest
from endpoint_fixtures import SCRIPTS, describe, launch, wait_end, wait_line
from jupyter_client.manager import start_new_kernel
from local_sagemaker import client
from sagemaker.core.training.configs import StoppingCondition
from workshop.jobs import outages
from workshop.jobs.live import JobFailed, readable, watch
from workshop.jobs.outages import ConnectionLost
from workshop.jobs.status import JobNotFound, LogReader

STEPS = """
import time
for step in range(1, 11):
    print(f"[metrics] step={step}/10 reward={0.4 + step / 20:.4f} loss=-1e-05 completions/mean_length={20 + step}", flush=True)
    time.sleep(0.05)
pathlib.Path(os.environ["SM_MODEL_DIR"], "config.json").write_text("{}")
out = pathlib.Path(os.environ["SM_OUTPUT_DATA_DIR"])
(out / "history.jsonl").write_text('{"step": 1, "reward": 0.45}\\n{"step": 2, "reward": 0.5}\\n')
(out / "summary.json").write_text('{"module": "02"}')
"""
WAIT = "import time; print('waiting', flush=True); time.sleep(300)"


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        ("  plain  ", "  plain"),
        (" 10%|# | 1/10\r100%|##| 10/10\r", "100%|##| 10/10"),
        ("\x1b[1;31mred\x1b[0m\x1b[A", "red"),
        ("\r  ", ""),
    ],
)
def test_a_log_line_as_a_terminal_leaves_it(line, shown):
    assert readable(line) == shown


def test_watching_in_a_terminal_returns_the_metrics(make_trainer, capsys):
    trainer = make_trainer(STEPS)
    launch(trainer)
    history = watch(trainer, refresh=0.2)
    assert [entry["step"] for entry in history] == list(range(1, 11))
    assert history[-1] == {
        "step": 10,
        "reward": 0.9,
        "loss": -1e-05,
        "completions/mean_length": 30.0,
    }
    shown = capsys.readouterr().out
    assert "Training" in shown and "Completed" in shown and "10/10" in shown
    assert "++ echo" not in shown, "the start script's trace belongs to no learner's screen"


def test_a_job_that_ended_can_be_watched_by_name(make_trainer):
    name = launch(make_trainer(STEPS))
    wait_end(name)
    assert len(watch(name)) == 10


def test_a_failed_job_raises_its_reason_and_its_last_lines(make_trainer):
    trainer = make_trainer(
        """
        print("loading the model", flush=True)
        pathlib.Path("/opt/ml/output/failure").write_text("DataError: train.jsonl, line 7")
        sys.exit(1)
        """
    )
    launch(trainer)
    with pytest.raises(JobFailed) as failed:
        watch(trainer, refresh=0.2)
    assert failed.value.reason.startswith("AlgorithmError: DataError: train.jsonl, line 7")
    assert "loading the model" in failed.value.log
    assert "loading the model" in str(failed.value) and f"local_sagemaker logs {failed.value.name}" in str(
        failed.value
    )


def test_a_job_at_its_time_limit_says_which(make_trainer):
    trainer = make_trainer(WAIT, stopping_condition=StoppingCondition(max_runtime_in_seconds=1))
    launch(trainer)
    with pytest.raises(JobFailed, match="limit of 1 s: raise max_runtime_in_seconds"):
        watch(trainer, refresh=0.2)


def test_a_job_stopped_on_purpose_is_no_failure(make_trainer, capsys):
    trainer = make_trainer(STEPS + "\ntime.sleep(300)")
    name = launch(trainer)
    wait_line(name, "step=10/10")
    trainer._latest_training_job.stop()
    assert len(watch(name, refresh=0.2)) == 10
    assert "Stopped" in capsys.readouterr().out


def test_lines_of_several_hosts_name_theirs_and_come_once(make_trainer):
    name = launch(make_trainer("print('I am here', flush=True)", hosts=2))
    wait_end(name)
    reader = LogReader(name)
    lines = [line for _, line in reader.new_events()]
    assert sorted(line for line in lines if "I am here" in line) == [
        "[algo-1] I am here",
        "[algo-2] I am here",
    ]
    assert reader.new_events() == []


def test_no_such_job(endpoint, make_trainer):
    with pytest.raises(JobNotFound, match="no training job 'gone'"):
        watch("gone")
    with pytest.raises(JobNotFound, match="no job yet"):
        watch(make_trainer(STEPS))


def test_an_endpoint_that_no_longer_answers(monkeypatch):
    restore = client.connect("http://127.0.0.1:9")
    monkeypatch.setattr(outages, "LOCAL_PATIENCE_S", 0.5)
    try:
        with pytest.raises(ConnectionLost, match="No answer"):
            watch("any", refresh=0.1)
    finally:
        restore()


def test_ctrl_c_in_a_terminal_leaves_the_job_running(endpoint, make_trainer):
    name = launch(make_trainer(WAIT))
    wait_line(name, "waiting")
    code = (
        f"from local_sagemaker import client; client.connect({endpoint.url!r})\n"
        f"from workshop.jobs.live import watch; print('watching', flush=True); watch({name!r}, refresh=0.2)"
    )
    watcher = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while "Training" not in watcher.stdout.readline():
            assert watcher.poll() is None
        watcher.send_signal(signal.SIGINT)
        _, error = watcher.communicate(timeout=30)
    finally:
        watcher.kill()
    assert f"the job goes on. Watch it again: watch('{name}')" in error and "stop_training_job" in error
    assert describe(name)["TrainingJobStatus"] == "InProgress"
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    wait_end(name)


def notebook(*cells: str) -> nbformat.NotebookNode:
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell(textwrap.dedent(cell).strip()) for cell in cells],
        metadata={"kernelspec": kernel},
    )


def prelude(endpoint) -> str:
    return f"""
    import sys
    sys.path.insert(0, {str(SCRIPTS)!r})
    from local_sagemaker import client
    restore = client.connect({endpoint.url!r})
    from workshop.jobs.live import watch
    """


@pytest.mark.notebook
def test_an_executed_notebook_keeps_one_small_output(endpoint, make_trainer, tmp_path):
    name = launch(make_trainer(STEPS))
    nbformat.write(
        notebook(prelude(endpoint), f"history = watch({name!r}, refresh=0.2)"), tmp_path / "in.ipynb"
    )
    papermill.execute_notebook(tmp_path / "in.ipynb", tmp_path / "out.ipynb", progress_bar=False)
    outputs = nbformat.read(tmp_path / "out.ipynb", 4).cells[-1].outputs
    assert [output.output_type for output in outputs] == ["display_data"]
    page, text = outputs[0].data["text/html"], outputs[0].data["text/plain"]
    assert len(page) < 40_000 and page.count("data:image/png;base64,") == 1
    assert "10/10" in page and "Completed" in page and "10/10" in text
    assert text.count("\n") < 15


@pytest.mark.notebook
def test_the_stop_button_of_a_notebook_leaves_the_job_running(endpoint, make_trainer):
    name = launch(make_trainer(WAIT))
    wait_line(name, "waiting")
    manager, kernel = start_new_kernel(kernel_name="python3")
    try:
        kernel.execute_interactive(
            textwrap.dedent(prelude(endpoint)), timeout=60, output_hook=lambda message: None
        )
        kernel.execute(f"watch({name!r}, refresh=0.2)")
        _message(kernel, "display_data")
        manager.interrupt_kernel()
        error = _message(kernel, "error")
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel(now=True)
    assert len(error["traceback"]) == 1 and "the job goes on" in error["traceback"][0]
    assert describe(name)["TrainingJobStatus"] == "InProgress"
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    wait_end(name)


def _message(kernel, kind: str) -> dict:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            message = kernel.get_iopub_msg(timeout=1)
        except queue.Empty:
            continue
        if message["msg_type"] == kind:
            return message["content"]
    raise AssertionError(f"no {kind} message")
