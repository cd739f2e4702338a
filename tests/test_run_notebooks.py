"""The runner, as a process, on small notebooks made here: parameters, failures, Ctrl-C, the endpoint, two at once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import pytest
from local_sagemaker import client

ROOT = Path(__file__).resolve().parents[1]
RUNNER = ROOT / "scripts" / "run_notebooks.py"
SCRIPTS_ON_PATH = f"import sys; sys.path.insert(0, {str(ROOT / 'scripts')!r})\n"
START_ENDPOINT = SCRIPTS_ON_PATH + (
    "import json, os, pathlib\n"
    "from local_sagemaker import client\n"
    "endpoint = client.ensure_endpoint()\n"
    "pathlib.Path('pids.new').write_text(json.dumps({'kernel': os.getpid(), 'endpoint': endpoint.pid}))\n"
    "os.rename('pids.new', 'pids.json')"
)
RECORD = {
    "module": "02_example",
    "recipe": "tiny",
    "mode": "local",
    "trainer": "GRPOTrainer",
    "hosts": 1,
    "processes": 2,
    "seed": 42,
    "base": {"value": 0.5, "low": 0.44, "high": 0.56, "n": 300, "decoding": "greedy"},
    "trained": {"value": 0.95, "low": 0.92, "high": 0.97, "n": 300, "decoding": "greedy"},
    "train_seconds": 90.0,
    "peak_rss_mb": 800.0,
    "tokens_per_second": 1500.0,
    "versions": {},
}


def write_notebook(folder: Path, *cells: str, name: str = "example.ipynb") -> Path:
    """A notebook whose first cell is tagged as its parameters."""
    nodes = [nbformat.v4.new_code_cell(source) for source in cells]
    nodes[0].metadata["tags"] = ["parameters"]
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    nbformat.write(nbformat.v4.new_notebook(cells=nodes, metadata={"kernelspec": kernel}), folder / name)
    return folder / name


def start(notebook: Path | str, output: Path, *arguments: str, home: Path | None = None) -> subprocess.Popen:
    """Start the runner; its endpoints stay below `output`, or `home` if given."""
    return subprocess.Popen(
        [sys.executable, RUNNER, str(notebook), "--output", output, *arguments],
        env={**os.environ, "LOCAL_SAGEMAKER_HOME": str(home or output / "no-endpoint-here")},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(notebook: Path | str, output: Path, *arguments: str, home: Path | None = None) -> tuple[int, str]:
    runner = start(notebook, output, *arguments, home=home)
    text, _ = runner.communicate(timeout=180)
    return runner.returncode, text


def read_pids(folder: Path) -> dict[str, int]:
    return json.loads((folder / "pids.json").read_text())


def is_running(process_id: int) -> bool:
    try:
        return Path(f"/proc/{process_id}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)


@pytest.mark.notebook
def test_parameters_reach_the_notebook_with_their_types_and_results_are_shown(tmp_path):
    notebook = write_notebook(
        tmp_path,
        "seed = 1\nname = 'x'\nfast = False\nresults_path = 'somewhere.json'",
        "print(repr((seed + 1, name, fast)))",
        SCRIPTS_ON_PATH
        + f"from workshop.views.results import append_result\nappend_result({RECORD!r}, results_path);",
    )
    code, text = run(notebook, tmp_path / "out", "-p", "seed=41", "-p", "name=it's", "-p", "fast=true")
    assert code == 0, text
    assert """(42, "it's", True)""" in (tmp_path / "out/logs/example.log").read_text()
    assert "ok     " in text and "0.500 [0.440, 0.560]" in text and "0.950 [0.920, 0.970]" in text
    assert json.loads((tmp_path / "out/results.json").read_text())[0]["module"] == "02_example"
    assert not (tmp_path / "somewhere.json").exists()
    cells = nbformat.read(tmp_path / "out/notebooks/example.ipynb", as_version=4).cells
    assert all(cell.execution_count for cell in cells)


@pytest.mark.notebook
def test_a_failing_cell_is_named_with_its_source_and_error(tmp_path):
    notebook = write_notebook(
        tmp_path, "seed = 1", "ready = seed\nraise ValueError('no such model')", "print('never')"
    )
    code, text = run(notebook, tmp_path / "out")
    assert code == 1
    summary = text[text.index("FAILED") :]
    executed = tmp_path / "out/notebooks/example.ipynb"
    for part in (
        "In [2] failed",
        "    ready = seed",
        "ValueError: no such model",
        f"executed copy: {executed}",
    ):
        assert part in summary
    assert executed.exists() and "papermill/execute.py" not in (tmp_path / "out/logs/example.log").read_text()
    page = (tmp_path / "out/run.html").read_text()
    assert "1 of them failed" in page and "ValueError: no such model" in page


@pytest.mark.notebook
def test_one_failure_does_not_keep_the_next_notebook_from_running(tmp_path):
    bad = write_notebook(tmp_path, "seed = 1", "1 / 0", name="a.ipynb")
    good = write_notebook(tmp_path, "seed = 1", "print(seed)", name="b.ipynb")
    code, text = run(bad, tmp_path / "out", str(good))
    assert code == 1 and "a.ipynb" in text[text.index("FAILED ") :] and "ok     " in text


@pytest.mark.notebook
@pytest.mark.parametrize("end", ["import os; os._exit(0)", "import sys; sys.exit(0)"])
def test_a_cell_that_ends_the_kernel_is_a_failure(tmp_path, end):
    code, text = run(write_notebook(tmp_path, "seed = 1", end, "print(seed)"), tmp_path / "out")
    assert code == 1 and "FAILED" in text


def test_wrong_command_lines_are_refused_before_anything_runs(tmp_path, capsys, monkeypatch):
    import run_notebooks

    monkeypatch.setattr(signal, "signal", lambda *_: None)  # this process keeps its own handlers
    notebook = write_notebook(tmp_path, "seed = 1", "print(seed)")
    modules = ", ".join(sorted(path.parent.name for path in ROOT.glob("[0-9][0-9]_*/*.ipynb")))
    for arguments, message in [
        (["no-such-module"], f"No notebook 'no-such-module'. Modules with a notebook: {modules}."),
        (["-p", "sed=1"], "example.ipynb has no parameter 'sed'. Its parameters: seed"),
        (["-p", "seed"], "write it as name=value"),
        (["-p", "seed=[1"], "not valid YAML"),
        (["--at-once", "0"], "at least one notebook has to run"),
    ]:
        code = run_notebooks.main([str(notebook), "--output", str(tmp_path / "out"), *arguments])
        assert code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.notebook
def test_the_endpoint_of_a_run_is_stopped_with_it(tmp_path):
    code, text = run(write_notebook(tmp_path, "seed = 1", START_ENDPOINT + "; seed"), tmp_path / "out")
    assert code == 0, text
    wait_for(lambda: not is_running(read_pids(tmp_path)["endpoint"]), seconds=10)


@pytest.mark.endpoint
@pytest.mark.notebook
def test_an_endpoint_that_was_running_is_used_and_left_running(tmp_path):
    home = tmp_path / "home"
    endpoint = client.ensure_endpoint(home)
    try:
        code, text = run(write_notebook(tmp_path, "seed = 1", START_ENDPOINT), tmp_path / "out", home=home)
        assert code == 0, text
        assert read_pids(tmp_path)["endpoint"] == endpoint.pid
        assert client.find_endpoint(home) == endpoint
    finally:
        client.shutdown(home)


def begins(folder: Path, name: str, *cells: str) -> Path:
    """A notebook in a folder of its own that starts an endpoint, and then waits for the other's."""
    (folder / name).mkdir()
    waits = f"import time\nwhile not pathlib.Path('../{'b' if name == 'a' else 'a'}/pids.json').exists(): time.sleep(0.05)"
    return write_notebook(folder / name, "seed = 1", START_ENDPOINT, waits, *cells, name=f"{name}.ipynb")


@pytest.mark.notebook
def test_notebooks_side_by_side_have_an_endpoint_each_and_one_that_fails_leaves_the_other(tmp_path):
    append = SCRIPTS_ON_PATH + "from workshop.views.results import append_result\n"
    append += f"append_result({RECORD | {'module': 'a'}!r}, '{tmp_path}/out/results.json')"
    first, second = begins(tmp_path, "a", append), begins(tmp_path, "b", "1 / 0")
    code, text = run(first, tmp_path / "out", str(second), "--at-once", "2")
    assert code == 1, text
    assert [line[:9] for line in text.splitlines() if line.startswith(("ok ", "FAILED"))] == [
        "ok     a/",
        "FAILED b/",
    ]
    pids = [read_pids(tmp_path / name) for name in "ab"]
    assert pids[0]["endpoint"] != pids[1]["endpoint"]
    for process_id in [pid for both in pids for pid in both.values()]:
        wait_for(lambda pid=process_id: not is_running(pid), seconds=10)
    page = (tmp_path / "out/run.html").read_text()
    assert page.index('<h2 id="a">') < page.index("Before and after training") < page.index('<h2 id="b">')
    assert page.count("Before and after training") == 1 and page.count("It wrote no results.") == 1


def test_as_many_at_once_as_have_cores_memory_and_an_endpoint_of_their_own(monkeypatch):
    import run_notebooks

    notebooks = [Path("a.ipynb"), Path("b.ipynb")]
    monkeypatch.setattr(run_notebooks.os, "cpu_count", lambda: 64)
    memory = run_notebooks.psutil.virtual_memory()
    for free, expected in ((2, 1), (15, 1), (16, 2), (64, 2)):
        monkeypatch.setattr(
            run_notebooks.psutil, "virtual_memory", lambda free=free: memory._replace(available=free * 2**30)
        )
        assert run_notebooks.side_by_side(notebooks) == expected
    monkeypatch.setattr(run_notebooks.os, "cpu_count", lambda: 3)
    assert run_notebooks.side_by_side(notebooks) == 1
    monkeypatch.setattr(run_notebooks.os, "cpu_count", lambda: 4)
    assert run_notebooks.side_by_side(notebooks) == 2
    monkeypatch.setattr(run_notebooks.client, "find_endpoint", lambda: "one")
    assert run_notebooks.side_by_side(notebooks) == 1
    run_notebooks.check_at_once(1)
    with pytest.raises(run_notebooks.UsageError, match="an endpoint is running already"):
        run_notebooks.check_at_once(2)


@pytest.mark.notebook
@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_nothing_running(tmp_path, number, code, at_once):
    sleeps = ("import time; time.sleep(600)",)
    notebooks = [begins(tmp_path, name, *sleeps) for name in "ab"] if at_once == 2 else []
    notebooks = notebooks or [write_notebook(tmp_path, "seed = 1", START_ENDPOINT, *sleeps)]
    runner = start(notebooks[0], tmp_path / "out", *map(str, notebooks[1:]), "--at-once", str(at_once))
    wait_for(lambda: all((path.parent / "pids.json").exists() for path in notebooks), seconds=90)
    time.sleep(1)  # into the sleeping cell
    runner.send_signal(number)
    text, _ = runner.communicate(timeout=60)
    assert runner.returncode == code, text
    assert "Traceback" not in text
    assert (tmp_path / "out/run.html").read_text().count("interrupted") == at_once
    for process_id in [pid for path in notebooks for pid in read_pids(path.parent).values()]:
        wait_for(lambda pid=process_id: not is_running(pid), seconds=10)
    assert {path.name for path in (tmp_path / "out/notebooks").iterdir()} == {path.name for path in notebooks}


@pytest.mark.notebook
def test_two_runs_at_once_do_not_meet(tmp_path):
    notebook = write_notebook(
        tmp_path,
        "number = 0\nresults_path = ''",
        SCRIPTS_ON_PATH
        + "from local_sagemaker import client\nimport time\nendpoint = client.ensure_endpoint(); time.sleep(3)\n"
        + "assert client.find_endpoint() == endpoint\n"
        + "from workshop.views.results import append_result\n"
        + f"append_result({RECORD!r} | {{'seed': number}}, results_path)\n"
        + "open(f'endpoint-{number}', 'w').write(str(endpoint.pid))",
    )
    runners = [start(notebook, tmp_path / "out", "-p", f"number={number}") for number in (1, 2)]
    texts = [runner.communicate(timeout=180)[0] for runner in runners]
    assert [runner.returncode for runner in runners] == [0, 0], "\n".join(texts)
    records = json.loads((tmp_path / "out/results.json").read_text())
    assert sorted(record["seed"] for record in records) == [1, 2]
    assert len({path.read_text() for path in tmp_path.glob("endpoint-*")}) == 2
    nbformat.validate(nbformat.read(tmp_path / "out/notebooks/example.ipynb", as_version=4))
