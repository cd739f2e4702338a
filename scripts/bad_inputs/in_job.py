"""A case as a job runs it: the module's training script, in the folders that SageMaker would give it.

`Server` starts one process for each module, in the environment of the module's jobs, which imports the libraries once and
forks a child for each script that it runs: importing them takes longest. Run by itself this file is that process.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SECONDS = 150.0  # for one job; those of the recipe smoke take five
IMPORTS = {
    "01": ["job.models", "job.checkpoints", "trl.trainer.dpo_trainer", "trl.trainer.grpo_trainer"],
    "02": ["job.models", "job.checkpoints", "trl.trainer.grpo_trainer", "trl.trainer.dpo_trainer"],
    "03": ["job.models", "job.checkpoints", "trl.trainer.grpo_trainer"],
    "04": ["unsloth_first"],
    "05": ["torch", "ray", "transformers"],
}


def serve(modules: list[str]) -> None:
    """Requests come as JSON lines, {"source", "script", "arguments", "variables", "folder"}; answers go out likewise."""
    import importlib

    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    for name in modules:
        importlib.import_module(name)
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(_forked(json.loads(line))), file=answers, flush=True)


def _forked(asked: dict[str, Any]) -> int:
    """The exit code of the script; -1 if it did not end in time."""
    child = os.fork()
    if child == 0:
        _run(asked)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            _kill_group(child)
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.05)
    _kill_group(child)
    os.waitpid(child, 0)
    return -1


def _kill_group(leader: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def _run(asked: dict[str, Any]) -> None:
    import runpy

    os.setsid()
    log = os.open(f"{asked['folder']}/log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(log, 1), os.dup2(log, 2), os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.environ.update(asked["variables"])
    os.chdir(asked["source"])
    sys.path[0] = asked["source"]
    sys.argv = [asked["script"], *asked["arguments"]]
    code = 0
    try:
        runpy.run_path(asked["script"], run_name="__main__")
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1 if error.code else 0
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 1
    with contextlib.suppress(Exception):
        sys.stdout.flush(), sys.stderr.flush()
    os._exit(code)


class Server:
    """The process of one module, and the jobs that it runs one after the other."""

    def __init__(self, module: str, python: Path, source: Path, variables: dict[str, str]) -> None:
        self.process = subprocess.Popen(
            [str(python), __file__, *IMPORTS[module]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            cwd=source,
            env={**variables, "PYTHONPATH": str(source)},
            start_new_session=True,
        )
        assert self.process.stdout
        assert self.process.stdout.readline().strip() == "ready", (
            f"the libraries of {module} cannot be imported"
        )

    def run(
        self, source: Path, script: str, arguments: list[str], folder: Path, **variables: str
    ) -> tuple[int, str]:
        """(exit code, why it failed or the end of its log)."""
        asked = {
            "source": str(source),
            "script": script,
            "arguments": arguments,
            "folder": str(folder),
            "variables": {
                "SM_MODEL_DIR": str(folder / "model"),
                "SM_OUTPUT_DATA_DIR": str(folder / "output"),
                "SM_OUTPUT_FAILURE": str(folder / "failure"),
                "SM_CHECKPOINT_DIR": str(folder / "checkpoints"),
                "HF_DATASETS_CACHE": str(folder / "cache"),
                "TRAINING_JOB_NAME": "bad-input",
                "MASTER_PORT": str(_free_port()),
                **variables,
            },
        }
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(json.dumps(asked) + "\n")
        self.process.stdin.flush()
        code = int(self.process.stdout.readline())
        failure = folder / "failure"
        if failure.is_file():
            return code or 1, failure.read_text().splitlines()[0]
        log = (folder / "log").read_text(errors="replace").strip().splitlines()
        return code, " / ".join(log[-3:])

    def end(self) -> None:
        """Ends the process and what it has started."""
        _kill_group(self.process.pid)
        self.process.wait()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


if __name__ == "__main__":
    # This folder's files must not hide others of the same name.
    sys.path[:] = [path for path in sys.path if path != str(Path(__file__).parent)]
    serve(sys.argv[1:])
