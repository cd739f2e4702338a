"""AccelerateLaunch: the command it makes, and real jobs over one and two hosts on the local endpoint."""

import json
import subprocess
import sys
import types
from pathlib import Path

import pytest
import yaml
from endpoint_fixtures import launch, log_lines, reported, wait_end
from launchers import AccelerateLaunch
from launchers.drivers import accelerate_driver, script_run

MODULE = Path(__file__).parents[1] / "02_grpo_trl_accelerate" / "scripts"
ENDPOINT_WITH_TORCH = True  # these jobs train on several processes
# Every process reports what it got and adds its rank + 1 to the others'.
SCRIPT = """
import argparse, pathlib
parser = argparse.ArgumentParser()
for name in ("mode", "names", "text", "rate"):
    parser.add_argument("--" + name)
arguments = parser.parse_args()
import torch
from accelerate import PartialState
state = PartialState(cpu=True)
total = torch.tensor([state.process_index + 1.0])
torch.distributed.all_reduce(total)
report(f"rank-{state.process_index}", {
    "world": state.num_processes, "backend": torch.distributed.get_backend(), "sum": total.item(),
    "host": os.environ["SM_CURRENT_HOST"], "use_cpu": os.environ["ACCELERATE_USE_CPU"], **vars(arguments),
})
state.wait_for_everyone()
if arguments.mode == "raise" and state.process_index == 1:
    raise RuntimeError("reward went NaN at step 5")
if arguments.mode == "own-reason" and state.is_main_process:
    pathlib.Path("/opt/ml/output/failure").write_text("DataError: line 7 of train.jsonl")
    sys.exit(3)
if arguments.mode == "killed":
    os.kill(os.getpid(), 9)
state.destroy_process_group()
"""
SETTINGS = dict(
    config_file="accelerate/cpu.yaml",
    use_cpu=True,
    processes_per_host=2,
    hosts=1,
    host_rank=0,
    main_address="algo-1",
    main_port=7777,
)


def command(**changes) -> str:
    return " ".join(accelerate_driver.accelerate_command("train.py", ["--a", "1"], **{**SETTINGS, **changes}))


def test_one_host_takes_any_free_port():
    assert command() == (
        "accelerate launch --config_file accelerate/cpu.yaml --num_processes 2 --num_machines 1 --machine_rank 0 "
        "--main_process_port 0 --multi_gpu train.py --a 1"
    )


def test_hosts_meet_at_the_first_one():
    assert command(hosts=2, host_rank=1) == (
        "accelerate launch --config_file accelerate/cpu.yaml --num_processes 4 --num_machines 2 --machine_rank 1 "
        "--main_process_ip algo-1 --main_process_port 7777 --same_network --multi_gpu train.py --a 1"
    )


def test_the_multi_process_launcher_is_forced_on_cpu_only_and_for_several_processes_only():
    assert "--multi_gpu" not in command(processes_per_host=1)
    assert "--multi_gpu" not in command(use_cpu=False)
    assert "--multi_gpu" in command(processes_per_host=1, hosts=2)


@pytest.mark.parametrize("content", [b"- 1\n", b"", b"use_cpu: [", b"use_cpu: caf\xe9\n"])
def test_a_file_that_is_no_mapping_is_the_reason_why_a_job_fails(tmp_path, content):
    (tmp_path / "mine.yaml").write_bytes(content)
    with pytest.raises(
        accelerate_driver.ConfigError, match="mine.yaml (must hold lines|is not valid YAML)"
    ) as said:
        accelerate_driver.read_config(tmp_path / "mine.yaml")
    assert script_run.last_error([f"ConfigError: {said.value}"]) == f"ConfigError: {said.value}"


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["Traceback (most recent call last):", "ValueError: bad", "exit"], "ValueError: bad"),
        (["[rank1]: torch.OutOfMemoryError: CUDA", "later"], "torch.OutOfMemoryError: CUDA"),
        (["KeyError: 'a'", "subprocess.CalledProcessError: Command '['x']' returned"], "KeyError: 'a'"),
        (
            ["KeyError: 1", "torch.distributed.elastic.multiprocessing.errors.ChildFailedError: "],
            "KeyError: 1",
        ),
        (["all is well", "no error here: none"], None),
        ([], None),
    ],
)
def test_the_last_error_in_a_log(lines, error):
    assert script_run.last_error(lines) == error


def test_an_image_without_accelerate_is_the_reason_why_a_job_fails(tmp_path, monkeypatch):
    (tmp_path / "cpu.yaml").write_text("use_cpu: true\n")
    launcher = {"config_file": str(tmp_path / "cpu.yaml"), "process_count_per_node": 1}
    variables = {
        "DISTRIBUTED_CONFIG": json.dumps(launcher),
        "NETWORK_INTERFACE_NAME": "lo",
        "ENTRY_SCRIPT": "train.py",
        "HPS": "{}",
        "HOST_COUNT": "1",
        "CURRENT_HOST_RANK": "0",
        "MASTER_ADDR": "algo-1",
        "MASTER_PORT": "7777",
    }
    for name, value in variables.items():
        monkeypatch.setenv(f"SM_{name}", value)
    monkeypatch.setenv("PATH", str(tmp_path))
    own = {"get_process_count": lambda count: count, "hyperparameters_to_cli_args": lambda values: []}
    monkeypatch.setitem(sys.modules, "common", types.ModuleType("common"))
    monkeypatch.setitem(sys.modules, "common.utils", types.SimpleNamespace(**own))
    monkeypatch.setitem(accelerate_driver.write_failure.__globals__, "FAILURE_FILE", tmp_path / "failure")
    assert accelerate_driver.main() == 127
    assert (
        "the image has no `accelerate`: name it in the job's requirements"
        in (tmp_path / "failure").read_text()
    )


def run_driver(script: str, settings: str = "") -> subprocess.CompletedProcess[bytes]:
    """script_run.run of a Python script, as a driver calls it, in a process of its own that exits as the script did."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import script_run as driver\n"
        f"{settings}\n"
        f"code, lines = driver.run([sys.executable, '-c', {script!r}]); sys.exit(code)\n"
    )
    folder = Path(accelerate_driver.__file__).parent
    return subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, timeout=60)


def test_output_passes_through_byte_for_byte_and_signals_become_exit_codes():
    done = run_driver(
        'import os, sys; sys.stdout.buffer.write(bytes([255, 10]) + b"  indented\\n"); sys.stdout.flush(); '
        "os.kill(os.getpid(), 15)"
    )
    assert (done.returncode, done.stdout, done.stderr) == (128 + 15, b"\xff\n  indented\n", b"")


def test_a_process_left_behind_keeps_no_job_alive():
    script = 'import subprocess; subprocess.Popen(["sleep", "25"]); print("done")'
    done = run_driver(script, "driver.HELD_S = 1")
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, lines[0]) == (0, "done") and "is not waited for" in lines[1] and not done.stderr


def test_a_reason_of_the_script_is_never_overwritten(tmp_path, monkeypatch):
    monkeypatch.setattr(script_run, "FAILURE_FILE", tmp_path / "failure")
    script_run.write_failure(1, ["accelerate"], ["ValueError: from the log"])
    assert (
        (tmp_path / "failure")
        .read_text()
        .startswith("ValueError: from the log\n(exit code 1 of: accelerate)")
    )
    script_run.write_failure(1, ["accelerate"], ["KeyError: later"])
    assert "KeyError" not in (tmp_path / "failure").read_text()
    (tmp_path / "failure").write_text("")
    script_run.write_failure(137, ["accelerate"], [])
    assert "out of memory" in (tmp_path / "failure").read_text()
    for report in ("died with <Signals.SIGKILL: 9>.", "  exitcode  : -9 (pid: 11580)  (SIGKILL)"):
        (tmp_path / "failure").write_text("")
        script_run.write_failure(1, ["accelerate"], ["Traceback ...", report, "====="])
        assert (tmp_path / "failure").read_text().startswith("killed (SIGKILL), most likely because")


def test_without_a_python_error_the_reason_is_the_end_of_the_log(tmp_path, monkeypatch):
    monkeypatch.setattr(script_run, "FAILURE_FILE", tmp_path / "failure")
    script_run.write_failure(1, ["accelerate"], ["usage: train.py", "", "error: no such option"])
    assert (tmp_path / "failure").read_text().splitlines()[1:3] == [
        "usage: train.py",
        "error: no such option",
    ]


def test_the_sdk_can_serialise_it_and_finds_its_driver():
    distributed = AccelerateLaunch(config_file="accelerate/cpu.yaml", process_count_per_node=2)
    assert json.loads(json.dumps(distributed.model_dump())) == {
        "config_file": "accelerate/cpu.yaml",
        "process_count_per_node": 2,
    }
    assert (Path(distributed.driver_dir) / distributed.driver_script).is_file()
    with pytest.raises(ValueError, match="proces_count"):
        AccelerateLaunch(config_file="accelerate/cpu.yaml", proces_count=2)


@pytest.fixture
def run(make_trainer, tmp_path):
    """run(mode, hosts, processes) -> description and name of the ended job."""

    def run_job(mode: str, hosts: int, processes: int) -> dict:
        trainer = make_trainer(
            SCRIPT,
            hosts=hosts,
            # the module's own list, so that the environment is the one that its notebook uses
            requirements=(MODULE / "requirements.txt").read_text(),
            distributed=AccelerateLaunch(config_file="accelerate/cpu.yaml", process_count_per_node=processes),
            hyperparameters={
                "mode": mode,
                "names": ["accuracy", "f\u00f6rmat"],
                "text": 'he said "\u2713 $HOME"',
                "rate": 1e-05,
            },
        )
        source = Path(trainer.source_code.source_dir)
        (source / "accelerate").mkdir(exist_ok=True)
        (source / "accelerate" / "cpu.yaml").write_text((MODULE / "accelerate" / "cpu.yaml").read_text())
        return wait_end(launch(trainer), timeout_s=800)  # the environment may have to be built first

    return run_job


@pytest.mark.parametrize(("hosts", "processes"), [(1, 2), (2, 1)])
def test_processes_join_and_get_their_hyperparameters(run, hosts, processes):
    job = run("fine", hosts, processes)
    name = job["TrainingJobName"]
    assert job["TrainingJobStatus"] == "Completed", log_lines(name)[-40:]
    seen = {key: value for n in range(1, hosts + 1) for key, value in reported(name, f"algo-{n}").items()}
    assert sorted(seen) == ["rank-0", "rank-1"]
    for rank in range(2):
        found = seen[f"rank-{rank}"]
        assert (found["world"], found["sum"], found["backend"], found["use_cpu"]) == (2, 3.0, "gloo", "true")
        assert found["host"] == f"algo-{rank + 1 if hosts == 2 else 1}"
        assert json.loads(found["names"]) == ["accuracy", "f\u00f6rmat"]
        assert (found["text"], found["rate"]) == ('he said "\u2713 $HOME"', "1e-05")


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("raise", "RuntimeError: reward went NaN at step 5"),
        ("own-reason", "DataError: line 7 of train.jsonl"),
    ],
)
def test_a_failing_script_fails_the_job_with_its_reason(run, mode, reason):
    job = run(mode, 1, 2)
    assert job["TrainingJobStatus"] == "Failed"
    assert job["FailureReason"].startswith(f"AlgorithmError: {reason}"), job["FailureReason"]


def test_a_killed_process_fails_the_job_with_that_reason(run):
    job = run("killed", 1, 2)
    assert job["TrainingJobStatus"] == "Failed"
    reason = job["FailureReason"]
    assert reason.startswith("AlgorithmError: SIGKILL ended process ") and "killed (SIGKILL)" in reason, (
        reason
    )


def test_a_config_file_that_is_not_there_is_the_reason(make_trainer):
    trainer = make_trainer(
        "",
        requirements=(MODULE / "requirements.txt").read_text(),
        distributed=AccelerateLaunch(config_file="no.yaml"),
    )
    job = wait_end(launch(trainer), timeout_s=800)
    assert "no.yaml is not in source_dir" in job["FailureReason"]


def test_the_yaml_files_of_the_module_are_ones_that_the_driver_understands():
    for path in (MODULE / "accelerate").glob("*.yaml"):
        assert isinstance(yaml.safe_load(path.read_text()).get("use_cpu", False), bool), path
