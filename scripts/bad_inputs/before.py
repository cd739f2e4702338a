"""A case as the notebook tries it: a ModelTrainer, preflight and the request; each in a process of its own, which can be ended."""

import multiprocessing
import multiprocessing.connection
import secrets
import time
from typing import Any

import boto3
from botocore.exceptions import BotoCoreError, ClientError
from launchers import AccelerateLaunch, RayCluster
from local_sagemaker import client
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training.configs import (
    CheckpointConfig,
    Compute,
    InputData,
    SourceCode,
    StoppingCondition,
)
from sagemaker.train import ModelTrainer
from sagemaker.train.distributed import Torchrun
from workshop.checks.images import CPU_IMAGE
from workshop.checks.preflight import PreflightError, preflight

from bad_inputs.cases import BEFORE, PASSED, Case, Tried
from bad_inputs.places import Place, overrides

# For one preflight and request, on a machine that has other work too; rewards alone may take 120.
SECONDS = 300.0
BUCKET = "sagemaker-bad-inputs"  # of the checkpoints; a request that names one which is not there is refused
_COMPUTE = {
    "instance_type", "instance_count", "volume_size_in_gb", "enable_managed_spot_training", "keep_alive_period_in_seconds",
}  # fmt: skip
_STOPPING = {"max_runtime_in_seconds", "max_wait_time_in_seconds"}
_SOURCE = {"entry_script", "requirements"}


def trainer_of(case: Case, place: Place) -> tuple[ModelTrainer, list[InputData]]:
    """What the notebook's cell makes of a case. Raises what the SDK raises."""
    changes = dict(case.request)
    if "save_steps" in changes:
        place.settings["save_steps"] = changes.pop("save_steps")
    compute = {key: value for key, value in changes.items() if key in _COMPUTE}
    stopping = {key: value for key, value in changes.items() if key in _STOPPING}
    source = {key: value for key, value in changes.items() if key in _SOURCE}
    processes = changes.get("process_count_per_node", 2 if case.module in ("03", "05") else 1)
    launchers: dict[str, Any] = {
        "01": lambda: Torchrun(process_count_per_node=processes),
        "02": lambda: AccelerateLaunch(config_file="accelerate/cpu.yaml", process_count_per_node=processes),
        "03": lambda: Torchrun(process_count_per_node=processes),
        "04": lambda: None,
        "05": lambda: RayCluster(process_count_per_node=processes),
    }
    given = {"overrides": overrides(place.settings)} if case.module == "05" else place.settings
    trainer = ModelTrainer(
        sagemaker_session=Session(),
        role=client.ROLE_ARN,
        # Two may begin in the same second.
        base_job_name=changes.get("base_job_name", f"bad-input-{secrets.token_hex(4)}"),
        training_image=CPU_IMAGE,
        source_code=SourceCode(
            **{
                "source_dir": str(place.source),
                "entry_script": case.script,
                "requirements": "requirements.txt",
                **source,
            }
        ),
        distributed=launchers[case.module](),
        compute=Compute(**{"instance_type": "ml.m5.xlarge", "instance_count": 1, **compute}),
        stopping_condition=StoppingCondition(**{"max_runtime_in_seconds": 3600, **stopping}),
        checkpoint_config=CheckpointConfig(s3_uri=f"s3://{BUCKET}/checkpoints"),
        hyperparameters={"config": place.recipe, **given, **changes.get("hyperparameters", {})},
        environment=changes.get("environment", {}),
    )
    channels = {name: str(path) for name, path in place.channels.items()}
    if "channel" in changes:
        channels[changes["channel"]] = channels["test"]
    if "data" in changes:
        channels["train"] = changes["data"]
    return trainer, [InputData(channel_name=name, data_source=path) for name, path in channels.items()]


def refused_before(case: Case, place: Place) -> str | None:
    """In which words the SDK, preflight or, of a request, the service refuses a case; None if none does."""
    recipe = {}
    if case.module == "05":
        from lesson.verl_checks import check_verl_recipe

        recipe = {"recipe": check_verl_recipe}
    try:
        trainer, channels = trainer_of(case, place)
        preflight(trainer, channels, **recipe)
    except PreflightError as error:
        return f"preflight: {_first(str(error).partition(chr(10))[2])}"
    except (ValueError, TypeError) as error:  # pydantic's, from the SDK's own checks
        if "preflight" in {frame.f_code.co_name for frame in _frames(error)}:
            raise
        return f"SDK: {_first(' '.join(str(error).split()))}"
    return _refused_by_service(trainer, channels)


def ready_endpoint() -> None:
    """The buckets that a request names; and a job that sleeps in the endpoint's only place, so that no other begins."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    Session().default_bucket()
    boto3.client("sagemaker").create_training_job(
        TrainingJobName="sleeps",
        RoleArn=client.ROLE_ARN,
        AlgorithmSpecification={
            "TrainingImage": CPU_IMAGE,
            "TrainingInputMode": "File",
            "ContainerEntrypoint": ["sleep", "86400"],
        },
        OutputDataConfig={"S3OutputPath": f"s3://{BUCKET}/output"},
        ResourceConfig={"InstanceType": "ml.m5.xlarge", "InstanceCount": 1, "VolumeSizeInGB": 30},
        StoppingCondition={"MaxRuntimeInSeconds": 86400},
    )


def _refused_by_service(trainer: ModelTrainer, channels: list[InputData]) -> str | None:
    """The request is sent as the notebook's cell sends it; a job that was created is stopped where it waits (ready_endpoint)."""
    try:
        trainer.train(input_data_config=channels, wait=False, logs=False)
    except ClientError as error:
        return f"service: {_first(str(error))}"
    except (BotoCoreError, ValueError, TypeError, OSError) as error:
        return f"SDK: {_first(' '.join(str(error).split()))}"
    name = trainer._latest_training_job.training_job_name
    boto3.client("sagemaker").stop_training_job(TrainingJobName=name)
    return None


def _frames(error: BaseException) -> list[Any]:
    found, trace = [], error.__traceback__
    while trace:
        found.append(trace.tb_frame)
        trace = trace.tb_next
    return found


def _first(text: str) -> str:
    return text.strip()[:600]


def _child(case: Case, place: Place, answers: Any) -> None:
    try:
        words = refused_before(case, place)
        answers.send(("words", words))
    except BaseException as error:  # what preflight raises is what this is about
        answers.send(("raised", f"{type(error).__name__}: {error}"[:600]))


def try_before(case: Case, place: Place) -> Tried:
    """The case as the notebook tries it. Its outcome is BEFORE, PASSED, or how what comes before a job did not end in order."""
    started = time.perf_counter()
    forks = multiprocessing.get_context("fork")
    reader, writer = forks.Pipe(duplex=False)
    process = forks.Process(target=_child, args=(case, place, writer))
    process.start()
    writer.close()
    try:
        kind, words = reader.recv() if reader.poll(SECONDS) else ("hung", f"no answer in {SECONDS:.0f} s")
    except EOFError:
        kind, words = "ended", "the process that runs preflight ended"
    finally:
        process.kill()
        process.join()
    seconds = time.perf_counter() - started
    if kind != "words":
        return Tried(case, f"PREFLIGHT {kind}", words or "", seconds)
    return Tried(case, PASSED if words is None else BEFORE, words or "", seconds)
