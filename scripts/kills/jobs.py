"""Short jobs of the modules on a local endpoint of their own, started as the notebooks start them."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
from launchers import AccelerateLaunch, RayCluster
from local_sagemaker import client
from rl.preferences import write_pairs
from rl.tasks import make_splits, write_splits
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training.configs import (
    CheckpointConfig,
    Compute,
    InputData,
    SourceCode,
    StoppingCondition,
)
from sagemaker.train import ModelTrainer
from sagemaker.train.distributed import DistributedConfig, Torchrun
from workshop.checks.images import CPU_IMAGE
from workshop.folders import REPOSITORY
from workshop.session.staging import stage_source

SPLITS = {"train": 64, "test": 8}
LONGEST_S = 900
STOP_GRACE_S = 2.0  # SageMaker's are 120: a job of six steps would be over
STEPS, SAVE_STEPS = 6, 2
SHORT: dict[str, Any] = {
    "max_steps": STEPS,
    "save_steps": SAVE_STEPS,
    "per_device_train_batch_size": 8,
    "eval_problems": 8,
    "eval_samples": 1,
    "report_to": "none",
}
SHORT_GRPO = {**SHORT, "max_completion_length": 32}
SHORT_VERL = [
    f"trainer.total_training_steps={STEPS}",
    f"trainer.save_freq={SAVE_STEPS}",
    "data.max_response_length=32",
    "job.eval_problems=8",
    "job.eval_samples=1",
    "job.report_to=[]",
]
DISTRIBUTED = {
    "01": lambda: Torchrun(process_count_per_node=2),
    "02": lambda: AccelerateLaunch(config_file="accelerate/cpu.yaml", process_count_per_node=2),
    "03": lambda: Torchrun(process_count_per_node=2),
    "04": lambda: None,
    "05": lambda: RayCluster(process_count_per_node=2),
}


class Workplace:
    """An endpoint with a home of its own, and what the jobs on it are given."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / "endpoint"
        self.home.mkdir()
        self._sources: dict[str, Path] = {}
        self._count = 0
        self._begin()
        problems = make_splits("chain_sum", SPLITS)
        self._data = write_splits(problems, folder / "data")
        for name, rows in (("train", problems["train"]), ("validation", problems["test"])):
            pairs: Any = [row | {"chosen": _answer(row["answer"]), "rejected": _answer("99")} for row in rows]
            write_pairs(pairs, folder / "pairs" / name / "pairs.jsonl")

    def _begin(self) -> None:
        """Starts an endpoint, which this process is connected to from now on."""
        with open(self.folder / "endpoint.log", "ab") as log:
            self._process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "local_sagemaker",
                    "serve",
                    "--max-jobs",
                    "1",
                    "--stop-grace",
                    str(STOP_GRACE_S),
                ],
                env=os.environ
                | {"LOCAL_SAGEMAKER_HOME": str(self.home), "PYTHONPATH": str(REPOSITORY / "scripts")},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + 60
        while (found := client.find_endpoint(self.home)) is None:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"The endpoint did not start: see {self.folder / 'endpoint.log'}")
            time.sleep(0.1)
        self.endpoint = found
        client.connect(found)

    def begin_again(self) -> None:
        """After the endpoint was killed: the next one in the same home."""
        self._process.wait(timeout=30)
        self._begin()

    def end(self) -> None:
        client.shutdown(self.home)
        self._process.wait(timeout=60)

    def start(
        self,
        module: str,
        checkpoints: str,
        *,
        spot: bool = False,
        recipe: str = "smoke",
        distributed: DistributedConfig | None = None,
        **settings: Any,
    ) -> "Job":
        """Creates a job; it goes on from what is in `checkpoints` (a prefix in S3). `distributed`: in place of the module's."""
        scripts = next(REPOSITORY.glob(f"{module}_*")) / "scripts"
        if module not in self._sources:
            self._sources[module] = stage_source(scripts, build=self.folder)
        self._count += 1
        if module == "05":
            changed = [f"{key}={value}" for key, value in settings.items()]
            given: dict[str, Any] = {"overrides": SHORT_VERL + changed}
        else:
            given = (SHORT if module == "01" else SHORT_GRPO) | settings
        if module == "01":
            pairs = {name: self.folder / "pairs" / name for name in ("train", "validation")}
            channels = {**pairs, "test": self._data["test"]}
        else:
            channels = self._data
        trainer = ModelTrainer(
            sagemaker_session=Session(),
            role=client.ROLE_ARN,
            base_job_name=f"kill-{module}-{self._count}",
            training_image=CPU_IMAGE,
            source_code=SourceCode(
                source_dir=str(self._sources[module]),
                entry_script="train.py",
                requirements="requirements.txt",
            ),
            distributed=distributed or DISTRIBUTED[module](),
            compute=Compute(
                instance_type="ml.c5.xlarge", instance_count=1, enable_managed_spot_training=spot or None
            ),
            stopping_condition=StoppingCondition(
                max_runtime_in_seconds=LONGEST_S, max_wait_time_in_seconds=2 * LONGEST_S if spot else None
            ),
            checkpoint_config=CheckpointConfig(s3_uri=checkpoints),
            hyperparameters={"config": f"recipes/{recipe}.yaml", **given},
            environment={"OMP_NUM_THREADS": "1"},
        )
        inputs = [InputData(channel_name=name, data_source=str(path)) for name, path in channels.items()]
        trainer.train(input_data_config=inputs, wait=False, logs=False)
        return Job(trainer._latest_training_job.training_job_name, self.home)


@dataclass(frozen=True)
class Job:
    """A job by its name, and what it has written so far."""

    name: str
    home: Path

    @property
    def ml(self) -> Path:
        """/opt/ml of its host, in the latest attempt."""
        attempts = sorted((self.home / "jobs" / self.name).glob("attempt-*"))
        return (attempts[-1] if attempts else Path("/nonexistent")) / "algo-1" / "ml"

    @property
    def log(self) -> str:
        file = self.home / "jobs" / self.name / "logs" / "algo-1.log"
        return file.read_text(errors="replace") if file.is_file() else ""

    def describe(self) -> dict[str, Any]:
        return boto3.client("sagemaker").describe_training_job(TrainingJobName=self.name)

    @property
    def is_over(self) -> bool:
        """As its file says, which takes no request."""
        file = self.home / "jobs" / self.name / "job.json"
        return file.is_file() and json.loads(file.read_text())["status"] in ("Completed", "Failed", "Stopped")

    def wait(self, seconds: float) -> bool:
        """Whether it ends within that time."""
        deadline = time.monotonic() + seconds
        while not self.is_over and time.monotonic() < deadline:
            time.sleep(0.2)
        return self.is_over


def _answer(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": f"<think></think><answer>{text}</answer>"}]
