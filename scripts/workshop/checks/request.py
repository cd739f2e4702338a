"""A training job as preflight sees it: read from the ModelTrainer, before anything is sent."""

import importlib.util
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import boto3
from job.arguments import Script
from sagemaker.core.training.configs import InputData
from sagemaker.core.utils.utils import Unassigned
from sagemaker.train import ModelTrainer

from workshop.checks.alone import run_alone
from workshop.folders import SCRIPTS

# The shared code lies beside it in a staged source, else where this file has it.
_IMPORT = "import sys; sys.path.append(sys.argv[1]); import arguments; print('imported')"
IMPORT_SECONDS = 20.0  # for arguments.py, which takes a third of one
OK, NOTE, WARNING, PROBLEM = "ok", "note", "warning", "problem"


@dataclass(frozen=True)
class Check:
    """One finding: what was looked at, how it stands (OK, NOTE, WARNING, PROBLEM), and in words what to do."""

    name: str
    status: str
    detail: str


@dataclass
class JobRequest:
    """What a ModelTrainer is about to ask for, in plain values."""

    local: bool  # the local endpoint, not AWS
    region: str
    boto_session: boto3.Session
    source_dir: Path | None  # None when the source lies in S3 or in an archive
    entry_script: str | None
    command: str | None
    requirements: str | None
    hyperparameters: dict[str, Any]
    environment: dict[str, str]
    launcher: dict[str, Any]  # the fields of distributed=...
    channels: list[tuple[str, Any]]  # (name, data source)
    instance_type: str | None
    hosts: int
    gpus: int | None  # of one instance; None: not known
    max_runtime_s: int
    max_wait_s: int | None
    spot: bool
    checkpoints: bool
    script: Script | None  # what the entry script reads; None: arguments.py beside it does not say
    script_problem: str | None = None  # why arguments.py cannot be read
    keep_alive_s: int | None = None  # how long the instances are kept for the next job
    training_plan: str | None = None  # ARN of reserved capacity
    volume_gb: int | None = None
    volume_key: str | None = None  # KMS key of the volume
    image: str | None = None
    job_name: str | None = None  # what it begins with
    numbers: dict[str, float | None] = field(
        default_factory=dict
    )  # as they were asked for, by the SDK's names
    network_isolation: bool = False
    vpc: bool = False
    model_config: dict[str, Any] | None = (
        None  # config.json of the base model, once check_model has opened it
    )

    @property
    def processes_per_host(self) -> int:
        """As the drivers count them: what the launcher says, else one a GPU, else one."""
        wanted = self.launcher.get("process_count_per_node")
        return wanted or (0 if self.local or not self.launcher else self.gpus or 0) or 1


def read_request(trainer: ModelTrainer, channels: list[InputData]) -> JobRequest:
    """Take what the checks need out of the SDK's objects, and the script's arguments out of the staged source."""
    from workshop.checks.instances import gpu_count

    source, compute, networking = trainer.source_code, trainer.compute, trainer.networking
    session = trainer.sagemaker_session
    source_dir = Path(source.source_dir) if source and source.source_dir else None
    source_dir = source_dir if source_dir and source_dir.is_dir() else None
    all_channels = {
        channel.channel_name: channel for channel in [*(trainer.input_data_config or []), *channels]
    }
    instance_type = _set(compute.instance_type)
    script, script_problem = None, None
    if source_dir and source.entry_script:
        try:
            script = read_script(source_dir, source.entry_script)
        except ImportError as error:  # as read_script says it
            script_problem = f"arguments.py cannot be imported: {error}"
        except Exception as error:  # whatever its code raises, the learner is told
            script_problem = f"arguments.py cannot be imported: {type(error).__name__}: {error}"
    return JobRequest(
        local=session.sagemaker_client.meta.endpoint_url.startswith("http://127.0.0.1"),
        region=session.boto_region_name,
        boto_session=session.boto_session,
        source_dir=source_dir,
        entry_script=source.entry_script if source else None,
        command=source.command if source else None,
        requirements=source.requirements if source else None,
        hyperparameters=dict(trainer.hyperparameters or {}),
        environment=dict(trainer.environment or {}),
        launcher=trainer.distributed.model_dump() if trainer.distributed else {},
        channels=[(name, getattr(channel, "data_source", None)) for name, channel in all_channels.items()],
        instance_type=instance_type,
        hosts=_set(compute.instance_count) or 1,
        job_name=trainer.base_job_name,
        numbers={
            "instance_count": _set(compute.instance_count),
            "volume_size_in_gb": _set(compute.volume_size_in_gb),
            "keep_alive_period_in_seconds": _set(compute.keep_alive_period_in_seconds),
            "max_runtime_in_seconds": _set(
                getattr(trainer.stopping_condition, "max_runtime_in_seconds", None)
            ),
            "process_count_per_node": getattr(trainer.distributed, "process_count_per_node", None),
        },
        gpus=gpu_count(instance_type, session.boto_region_name) if instance_type else None,
        max_runtime_s=trainer.stopping_condition.max_runtime_in_seconds,
        max_wait_s=_set(trainer.stopping_condition.max_wait_time_in_seconds),
        spot=bool(_set(compute.enable_managed_spot_training)),
        checkpoints=trainer.checkpoint_config is not None,
        script=script,
        script_problem=script_problem,
        keep_alive_s=_set(compute.keep_alive_period_in_seconds),
        training_plan=_set(compute.training_plan_arn),
        volume_gb=_set(compute.volume_size_in_gb),
        volume_key=_set(compute.volume_kms_key_id),
        image=trainer.training_image,
        network_isolation=bool(networking and _set(networking.enable_network_isolation)),
        vpc=bool(networking and _set(networking.subnets)),
    )


def read_script(source_dir: Path, entry_script: str) -> Script | None:
    """What an entry script reads, from SCRIPTS in the file arguments.py beside it; None if there is no such entry."""
    path = source_dir / "arguments.py"
    if not path.is_file():
        if os.path.lexists(path):
            raise ImportError(
                "it is no file that can be read: a folder, a pipe, a device or a link to nowhere"
            )
        return None
    if problem := _import_problem(source_dir, _sources(source_dir)):
        raise ImportError(problem)
    spec = importlib.util.spec_from_file_location("staged_arguments", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.path.append(str(source_dir))  # it may import what lies beside it
    sys.modules[spec.name] = module  # dataclasses look their module up
    before = set(sys.modules)
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(source_dir))
        for name in {spec.name, *(set(sys.modules) - before)}:
            if _lies_in(source_dir, sys.modules[name]):
                del sys.modules[name]  # the next job's file of that name is another
    return getattr(module, "SCRIPTS", {}).get(entry_script)


def _sources(source_dir: Path) -> tuple[bytes, ...]:
    """What the Python files beside arguments.py hold, which decides whether it can be imported."""
    return tuple(path.read_bytes() for path in sorted(source_dir.glob("*.py")) if path.is_file())


_IMPORTED: dict[tuple[bytes, ...], str | None] = {}


def _import_problem(source_dir: Path, sources: tuple[bytes, ...]) -> str | None:
    """Why this process had better not import arguments.py: it never ends, or ends the process; None if it may."""
    if sources not in _IMPORTED:
        done = run_alone(["-c", _IMPORT, str(SCRIPTS)], source_dir, IMPORT_SECONDS)
        problem = f"it did not end in {IMPORT_SECONDS:.0f} s" if done.code is None else None
        if done.code or (done.code == 0 and not done.answer.endswith("imported")):
            problem = done.said.splitlines()[-1][-500:] if done.said else f"Python ended with {done.code}"
        _IMPORTED[sources] = problem
    return _IMPORTED[sources]


def _lies_in(folder: Path, module: ModuleType) -> bool:
    file = getattr(module, "__file__", None)
    return bool(file) and Path(str(file)).resolve().is_relative_to(folder.resolve())


def _set(value: Any) -> Any:
    """The SDK marks fields that were not given with an object of its own."""
    return None if isinstance(value, Unassigned) else value
