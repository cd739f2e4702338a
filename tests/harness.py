"""A module's script in a process of its own, in the folders that SageMaker would give it; and code in a job's environment.

    job = ScriptJob(SCRIPTS / "train.py", tmp_path, {"train": ..., "test": ...}, {"max_steps": 4})
    job.run(processes=2, learning_rate=1e-3).history()

The tests that use it are marked `job`.
"""

import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import psutil
from forked_jobs import Command, ForkedJob, Preload, Ranks, fork_job
from job_variables import SHARED, job_variables
from local_sagemaker.environments import job_environment
from local_sagemaker.hosts.hosts import free_port
from safetensors import safe_open

ROOT = Path(__file__).resolve().parents[1]
Job = subprocess.Popen | ForkedJob
_TIMES = {"step_time"}  # of a history: no two runs agree on them


@dataclass
class ScriptJob:
    """One job of a module's script, which may be started more than once."""

    script: Path
    folder: Path
    channels: Mapping[str, Path] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)  # as --name=value in every start
    recipe: str | None = "tiny"
    python: Path = Path(sys.executable)
    preload: Preload | None = (
        None  # of an interpreter that is not the tests' own: what its jobs are forked from
    )
    checkpoints: Path | None = None  # its own, unless another job's are given
    timeout: float = 500

    def __post_init__(self) -> None:
        self.model, self.output = self.folder / "model", self.folder / "data"
        self.failure, self.log_file = self.folder / "failure", self.folder / "log"
        self.checkpoints = self.checkpoints or self.folder / "checkpoints"
        # Where the script is started: what it leaves there was not asked for.
        self.work = self.folder / "work"
        self.work.mkdir(parents=True, exist_ok=True)

    def start(
        self,
        *,
        processes: int | None = None,
        host: tuple[int, int, int] = (0, 1, 0),
        torchrun: bool = False,
        environment: Mapping[str, str] | None = None,
        **settings: Any,
    ) -> Job:
        """The script's process, or with `processes` so many that find one another; their output goes to `log_file`.

        They are forked from one that has imported the libraries, unless `torchrun` is to start them, as on SageMaker.
        `host`: its rank, how many there are, the port where they meet (0: any).
        """
        rank, hosts, port = host
        recipe = (
            ["--config", str(self.script.parent / "recipes" / f"{self.recipe}.yaml")] if self.recipe else []
        )
        given = [f"--{name}={_as_text(value)}" for name, value in {**self.settings, **settings}.items()]
        variables = job_variables(
            SM_MODEL_DIR=str(self.model),
            SM_OUTPUT_DATA_DIR=str(self.output),
            SM_OUTPUT_FAILURE=str(self.failure),
            SM_CHECKPOINT_DIR=str(self.checkpoints),
            HF_DATASETS_CACHE=str(self.folder / "cache"),
            **{f"SM_CHANNEL_{name.upper()}": str(path) for name, path in self.channels.items()},
            **(environment or {}),
        )
        ranks = Ranks(processes, rank, hosts, port or free_port()) if processes else None
        command = Command(self.script, [*recipe, *given], variables, self.work, self.log_file, ranks)
        return start_job(command, self.python, None if torchrun else self.preload or preload_of(self.python))

    def end(self, process: Job, *, fails: bool = False) -> Self:
        """Waits for the end, which must be a good one, or with `fails` a bad one."""
        try:
            process.wait(timeout=self.timeout)
        finally:
            kill(process)
        assert (process.returncode != 0) is fails, self.log[-5000:]
        return self

    def run(self, *, fails: bool = False, **options: Any) -> Self:
        """`start`, and to the end."""
        return self.end(self.start(**options), fails=fails)

    def kill_when(self, process: Job, reached: Callable[[], bool]) -> None:
        """Kills the job as soon as `reached()`, which must be before it ends."""
        deadline = time.monotonic() + self.timeout
        try:
            while not reached():
                assert process.poll() is None, f"it ended before it was interrupted: {self.log[-3000:]}"
                assert time.monotonic() < deadline, self.log[-3000:]
                time.sleep(0.001)
        finally:
            kill(process)

    @property
    def log(self) -> str:
        """What all processes have written so far."""
        return self.log_file.read_text(errors="replace")

    def steps(self) -> list[int]:
        """Steps of the [metrics] lines, in order."""
        return [int(step) for step in re.findall(r"\[metrics\] step=(\d+)/", self.log)]

    def history(self) -> list[dict]:
        """What was logged, without times."""
        lines = (self.output / "history.jsonl").read_text().splitlines()
        return [{k: v for k, v in json.loads(line).items() if k not in _TIMES} for line in lines]

    def output_json(self, name: str) -> Any:
        """A JSON file among the outputs."""
        return json.loads((self.output / name).read_text())

    def weights(self, file: str = "model.safetensors") -> dict[str, bytes]:
        """The saved tensors, byte for byte."""
        with safe_open(self.model / file, framework="np") as tensors:
            return {name: tensors.get_tensor(name).tobytes() for name in tensors.keys()}  # noqa: SIM118


def preload_of(python: Path) -> Preload | None:
    """The tests' own interpreter's jobs are forked; macOS's libraries do not stand it."""
    own = sys.platform == "linux" and python == Path(sys.executable)
    return Preload(python) if own else None


def unsloth_preload(python: Path) -> Preload | None:
    """What 04's jobs may be forked from: Unsloth has to be imported before all others."""
    scripts = ROOT / "04_grpo_unsloth" / "scripts"
    modules = ("unsloth_first", "trl", "datasets", "mlflow", "wandb")
    return Preload(python, modules, (scripts, SHARED)) if sys.platform == "linux" else None


def start_job(command: Command, python: Path, preload: Preload | None) -> Job:
    """A command as one process, or as the ranks of a host: forked from the preloaded libraries or by torchrun."""
    if preload:
        return fork_job(preload, command)
    launch = [str(python)]
    if ranks := command.ranks:
        launch += ["-m", "torch.distributed.run", f"--nproc_per_node={ranks.processes}"]
        launch += [f"--nnodes={ranks.hosts}", f"--node_rank={ranks.host_rank}"]
        launch += ["--master_addr=127.0.0.1", f"--master_port={ranks.port}"]
    with open(command.log, "w") as file:
        return subprocess.Popen(
            [*launch, str(command.script), *command.arguments],
            cwd=command.folder,
            stdout=file,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=command.variables,
        )


def run_two_processes(
    script: Path, *arguments: str, folder: Path, fails: bool = False, **variables: str
) -> str:
    """What a script of the tests' own writes that two processes run, which find one another; it sees the tests' modules."""
    log, tests = folder / "two-processes.log", Path(__file__).parent
    python = Path(sys.executable)
    variables = job_variables(tests, HF_DATASETS_CACHE=str(folder / "cache"), **variables)
    command = Command(script, arguments, variables, folder, log, Ranks(2, 0, 1, free_port()))
    job = start_job(command, python, preload_of(python))
    try:
        code = job.wait(timeout=180)
    finally:
        kill(job)
    assert (code != 0) is fails, log.read_text()[-5000:]
    return log.read_text()


def run_hosts(hosts: Sequence[ScriptJob], **settings: Any) -> None:
    """One job on several hosts, each of one process and with folders of its own, to its end."""
    running, port = [], free_port()
    for rank, host in enumerate(hosts):
        own = {"SM_HOST_COUNT": str(len(hosts)), "SM_CURRENT_HOST_RANK": str(rank)}
        place = (rank, len(hosts), port)
        running.append((host, host.start(processes=1, host=place, environment=own, **settings)))
    try:
        for host, process in running:
            host.end(process)
    finally:
        for _, process in running:
            kill(process)


def kill(process: Job) -> None:
    """Ends the process and all that it started: torchrun's workers have sessions of their own."""
    family = []
    with suppress(psutil.NoSuchProcess):
        family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    for child in family:
        with suppress(psutil.NoSuchProcess):
            child.kill()
    process.wait(timeout=30)


def module_python(scripts: Path) -> Path:
    """The interpreter of a module's jobs; their environment is built from requirements.txt as it stands."""
    return job_environment(scripts / "requirements.txt", log=print) / "bin" / "python"


def run_code(
    code: str, *arguments: str, scripts: Path, python: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Runs code beside a module's scripts, in the environment of its jobs unless `python` is another one's."""
    return subprocess.run(
        [python or module_python(scripts), "-c", code, *arguments],
        cwd=scripts,
        env=job_variables(scripts, **variables),
        capture_output=True,
        text=True,
        timeout=600,
    )


def answer_of(code: str, *arguments: str, scripts: Path, python: Path | None = None, **variables: str) -> Any:
    """`run_code`, and what the code passed to print("ANSWER " + json.dumps(...))."""
    done = run_code(code, *arguments, scripts=scripts, python=python, **variables)
    lines = [line for line in done.stdout.splitlines() if line.startswith("ANSWER ")]
    assert lines, done.stdout[-1000:] + done.stderr[-3000:]
    return json.loads(lines[-1].removeprefix("ANSWER "))


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
