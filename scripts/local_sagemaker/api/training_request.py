"""One CreateTrainingJob request: what it asks for, and what of it this endpoint refuses.

Parameters that only concern where a job runs (network and its isolation, encryption, volume size, reserved
instances) are accepted and have no effect here; so are those for what does not happen here (a failure of the service, a
session in the container). Those that would change what a job does, and that are not imitated, are refused by name.
"""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import NotRequired, TypedDict

from local_sagemaker.api.service_limits import misfits, request_shape, violations
from local_sagemaker.hosts.isolation import CONTAINER_ROOT

ACCEPTED = """
    TrainingJobName HyperParameters AlgorithmSpecification RoleArn InputDataConfig OutputDataConfig
    ResourceConfig VpcConfig StoppingCondition Tags EnableNetworkIsolation EnableManagedSpotTraining
    EnableInterContainerTrafficEncryption CheckpointConfig ExperimentConfig Environment
    RetryStrategy RemoteDebugConfig InfraCheckConfig SessionChainingConfig
""".split()
# Path -> the values that can be honoured (None: not at all).
REFUSED_UNLESS = {
    "AlgorithmSpecification.AlgorithmName": None,
    "AlgorithmSpecification.TrainingInputMode": ("File", "FastFile"),
    "InputDataConfig.InputMode": ("File", "FastFile"),
    "InputDataConfig.CompressionType": ("None",),
    "InputDataConfig.RecordWrapperType": ("None",),
    "InputDataConfig.ShuffleConfig": None,
    "InputDataConfig.DataSource.FileSystemDataSource": None,
    "InputDataConfig.DataSource.DatasetSource": None,
    "InputDataConfig.DataSource.S3DataSource.S3DataType": ("S3Prefix", "ManifestFile"),
    "InputDataConfig.DataSource.S3DataSource.AttributeNames": None,
    "InputDataConfig.DataSource.S3DataSource.InstanceGroupNames": None,
    "InputDataConfig.DataSource.S3DataSource.ModelAccessConfig": None,
    "InputDataConfig.DataSource.S3DataSource.HubAccessConfig": None,
    "ResourceConfig.InstanceGroups": None,
    "ResourceConfig.InstancePreferences": None,
    "ResourceConfig.InstancePlacementConfig": None,
}
# The service's default, 1 day, and its limit, 28 days:
# https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_StoppingCondition.html
DEFAULT_MAX_RUNTIME_S, MAX_RUNTIME_S = 86_400, 28 * 86_400
# https://docs.aws.amazon.com/sagemaker/latest/dg/train-warm-pools.html, read 2026-11; botocore's model has 21,600
MAX_KEEP_ALIVE_S = 3600


class RequestRefused(ValueError):
    """The request cannot be carried out here; the message names the parameters."""


class ChannelConfig(TypedDict):
    """A channel's entry in /opt/ml/input/config/inputdataconfig.json."""

    TrainingInputMode: str
    S3DistributionType: str
    RecordWrapperType: str
    ContentType: NotRequired[str]


@dataclass(frozen=True)
class Channel:
    """One input channel: where its objects are and how they are given to the hosts."""

    name: str
    uri: str
    manifest: bool  # `uri` is a ManifestFile that lists the objects
    sharded: bool  # ShardedByS3Key: each host gets a share of them
    config: ChannelConfig


@dataclass(frozen=True)
class TrainingRequest:
    """A checked CreateTrainingJob request; `body` is the request as it was sent."""

    body: dict

    @property
    def name(self) -> str:
        return self.body["TrainingJobName"]

    @property
    def hosts(self) -> list[str]:
        """Names of the hosts: algo-1, algo-2, ..."""
        return [f"algo-{number + 1}" for number in range(self.body["ResourceConfig"].get("InstanceCount", 1))]

    @property
    def instance_type(self) -> str:
        return self.body["ResourceConfig"].get("InstanceType", "local")

    @property
    def command(self) -> list[str]:
        """The container's command."""
        algorithm = self.body["AlgorithmSpecification"]
        return algorithm["ContainerEntrypoint"] + (algorithm.get("ContainerArguments") or [])

    @property
    def environment(self) -> dict[str, str]:
        return self.body.get("Environment") or {}

    @property
    def hyperparameters(self) -> dict[str, str]:
        return self.body.get("HyperParameters") or {}

    @property
    def metrics(self) -> list[tuple[str, re.Pattern]]:
        """(name, regular expression) of each of MetricDefinitions."""
        definitions = self.body["AlgorithmSpecification"].get("MetricDefinitions") or []
        return [(item["Name"], re.compile(item["Regex"])) for item in definitions]

    @property
    def channels(self) -> list[Channel]:
        return [self._channel(entry) for entry in self.body.get("InputDataConfig") or []]

    def _channel(self, entry: dict) -> Channel:
        source = entry["DataSource"]["S3DataSource"]
        distribution = source.get("S3DataDistributionType", "FullyReplicated")
        mode = entry.get("InputMode") or self.body["AlgorithmSpecification"]["TrainingInputMode"]
        config = ChannelConfig(
            TrainingInputMode=mode, S3DistributionType=distribution, RecordWrapperType="None"
        )
        if entry.get("ContentType"):
            config["ContentType"] = entry["ContentType"]
        return Channel(
            name=entry["ChannelName"],
            uri=source["S3Uri"],
            manifest=source["S3DataType"] == "ManifestFile",
            sharded=distribution == "ShardedByS3Key",
            config=config,
        )

    @property
    def output_uri(self) -> str:
        """S3OutputPath; the artifacts go to <job name>/output/ below it."""
        return self.body["OutputDataConfig"]["S3OutputPath"]

    @property
    def compressed(self) -> bool:
        """Whether model and outputs are stored as archives, not file by file."""
        return self.body["OutputDataConfig"].get("CompressionType", "GZIP") == "GZIP"

    @property
    def keeps_instances(self) -> bool:
        """Whether the job leaves a warm pool behind."""
        return bool(self.body["ResourceConfig"].get("KeepAlivePeriodInSeconds"))

    @property
    def checkpoint_uri(self) -> str | None:
        return (self.body.get("CheckpointConfig") or {}).get("S3Uri")

    @property
    def checkpoint_folder(self) -> PurePosixPath:
        """The folder of the checkpoints, relative to /opt/ml."""
        local = (self.body.get("CheckpointConfig") or {}).get("LocalPath") or f"{CONTAINER_ROOT}/checkpoints"
        return PurePosixPath(local).relative_to(CONTAINER_ROOT)

    @property
    def spot(self) -> bool:
        return bool(self.body.get("EnableManagedSpotTraining"))

    @property
    def max_runtime_s(self) -> int:
        return (self.body.get("StoppingCondition") or {}).get("MaxRuntimeInSeconds") or DEFAULT_MAX_RUNTIME_S

    @property
    def max_wait_s(self) -> int | None:
        """Limit on waiting and running together, in seconds; only spot jobs have one."""
        return (self.body.get("StoppingCondition") or {}).get("MaxWaitTimeInSeconds") if self.spot else None


def check_request(body: dict) -> TrainingRequest:
    """The request, if the service would take it and this endpoint can carry it out.

    Raises RequestRefused with every reason, each naming its parameter.
    """
    shape = request_shape("CreateTrainingJob")
    problems = misfits(body, shape) or violations(body, shape)
    if not problems:  # the rest may rely on the request's shape
        problems = _unsupported(body) + _inconsistent(body)
    if problems:
        raise RequestRefused("; ".join(problems))
    return TrainingRequest(body)


def _unsupported(body: dict) -> list[str]:
    problems = [f"local_sagemaker does not support {name}" for name in body if name not in ACCEPTED]
    for path, honoured in REFUSED_UNLESS.items():
        for where, value in _values(body, path.split(".")):
            if honoured is None:
                problems.append(f"local_sagemaker does not support {where}")
            elif value not in honoured:
                instead = " or ".join(map(str, honoured))
                problems.append(f"local_sagemaker does not support {where}={value} (use {instead})")
    return problems


def _values(node: dict, names: list[str], where: str = "") -> list[tuple[str, object]]:
    """Every (path with indices, value) that the dotted path leads to."""
    here, rest = f"{where}.{names[0]}".lstrip("."), names[1:]
    if node.get(names[0]) in (None, {}, []):
        return []
    value = node[names[0]]
    if not rest:
        return [(here, value)]
    if isinstance(value, list):
        return [found for i, item in enumerate(value) for found in _values(item, rest, f"{here}[{i}]")]
    return _values(value, rest, here)


def _inconsistent(body: dict) -> list[str]:
    problems = []
    names = [entry["ChannelName"] for entry in body.get("InputDataConfig") or []]
    problems += [f"InputDataConfig has two channels named {n}" for n in set(names) if names.count(n) > 1]
    problems += [
        f"InputDataConfig[{i}].DataSource needs an S3DataSource"
        for i, entry in enumerate(body.get("InputDataConfig") or [])
        if "S3DataSource" not in entry["DataSource"]
    ]
    problems += _bad_command(body["AlgorithmSpecification"])
    if body["ResourceConfig"].get("InstanceCount", 1) < 1:
        problems.append("ResourceConfig.InstanceCount must be at least 1")
    for i, item in enumerate(body["AlgorithmSpecification"].get("MetricDefinitions") or []):
        problems += _bad_regex(f"AlgorithmSpecification.MetricDefinitions[{i}].Regex", item["Regex"])
    local = PurePosixPath(
        (body.get("CheckpointConfig") or {}).get("LocalPath") or f"{CONTAINER_ROOT}/checkpoints"
    )
    if (
        not local.is_relative_to(CONTAINER_ROOT)
        or ".." in local.parts
        or local == PurePosixPath(CONTAINER_ROOT)
    ):
        problems.append(
            f"CheckpointConfig.LocalPath={local}: local_sagemaker needs a folder below {CONTAINER_ROOT}"
        )
    return problems + _bad_limits(body) + _bad_warm_pool(body)


def _bad_command(algorithm: dict) -> list[str]:
    """What cannot be run: an image's own command, and a remote function under mpirun."""
    if not algorithm.get("ContainerEntrypoint"):
        return [
            "AlgorithmSpecification.ContainerEntrypoint is missing: on AWS the image's own command, `train`, would be run"
            " (it is what reads sagemaker_program and sagemaker_submit_directory), but no image is run here, so the job"
            " has nothing to run. Name a script: source_code=SourceCode(source_dir=..., entry_script=...) of the"
            " ModelTrainer, or a ContainerEntrypoint with boto3"
        ]
    arguments = algorithm.get("ContainerArguments") or []
    if ("--distribution", "mpirun") in zip(arguments, arguments[1:], strict=False):
        return [
            "AlgorithmSpecification.ContainerArguments: a remote function with use_mpirun=True needs an SSH server in each"
            " container. Use use_torchrun=True, or a ModelTrainer with distributed=MPI()"
        ]
    return []


def _bad_limits(body: dict) -> list[str]:
    """What AWS refuses of a job's time limits."""
    stopping = body.get("StoppingCondition") or {}
    wait = stopping.get("MaxWaitTimeInSeconds")
    run = stopping.get("MaxRuntimeInSeconds") or DEFAULT_MAX_RUNTIME_S
    problems = []
    if run > MAX_RUNTIME_S:
        problems.append(f"StoppingCondition.MaxRuntimeInSeconds={run}: at most {MAX_RUNTIME_S} s (28 days)")
    if body.get("EnableManagedSpotTraining") and (wait is None or wait < run):
        problems.append(
            "StoppingCondition.MaxWaitTimeInSeconds must be given for managed spot training and be at least"
            f" MaxRuntimeInSeconds ({run})"
        )
    if wait is not None and not body.get("EnableManagedSpotTraining"):
        # In the service's own words, https://github.com/Kenza-AI/sagify/issues/111
        problems.append(
            f"StoppingCondition.MaxWaitTimeInSeconds={wait}: Invalid MaxWaitTimeInSeconds. It is only supported when"
            " EnableManagedSpotTraining is set to true"
        )
    return problems


def _bad_warm_pool(body: dict) -> list[str]:
    """What AWS refuses of warm pools, by the page that MAX_KEEP_ALIVE_S is of; it does not give the error's words."""
    problems = []
    resources, spot = body["ResourceConfig"], body.get("EnableManagedSpotTraining")
    keep = resources.get("KeepAlivePeriodInSeconds") or 0
    if keep > MAX_KEEP_ALIVE_S:
        problems.append(
            f"ResourceConfig.KeepAlivePeriodInSeconds={keep}: a warm pool is kept for {MAX_KEEP_ALIVE_S} s at most"
        )
    if keep and spot:
        problems.append(
            "ResourceConfig.KeepAlivePeriodInSeconds: managed spot training leaves no warm pool behind; leave out this"
            " or EnableManagedSpotTraining"
        )
    return problems


def _bad_regex(where: str, regex: str) -> list[str]:
    try:
        groups = re.compile(regex).groups
    except re.error as error:
        return [f"{where}={regex!r} is not a regular expression: {error}"]
    return [] if groups else [f"{where}={regex!r} needs a group in parentheses around the number"]
