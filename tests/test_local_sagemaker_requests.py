"""What a CreateTrainingJob request may ask for, and how the rest is refused: always by the parameter's name."""

import copy

import pytest
from local_sagemaker.api.training_request import RequestRefused, check_request

S3_SOURCE = {
    "S3DataType": "S3Prefix",
    "S3Uri": "s3://bucket/train",
    "S3DataDistributionType": "FullyReplicated",
}
BODY = {
    "TrainingJobName": "job-1",
    "HyperParameters": {"lr": "0.1"},
    "AlgorithmSpecification": {
        "TrainingImage": "image",
        "TrainingInputMode": "File",
        "MetricDefinitions": [{"Name": "loss", "Regex": r"loss=(\S+)"}],
        "ContainerEntrypoint": ["/bin/bash"],
        "ContainerArguments": ["-c", "true"],
    },
    "RoleArn": "arn:aws:iam::123456789012:role/service-role/x",
    "InputDataConfig": [{"ChannelName": "train", "DataSource": {"S3DataSource": S3_SOURCE}}],
    "OutputDataConfig": {"S3OutputPath": "s3://bucket/out", "CompressionType": "GZIP", "KmsKeyId": "key"},
    "ResourceConfig": {"InstanceType": "ml.g5.12xlarge", "InstanceCount": 2, "VolumeSizeInGB": 30},
    "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    "CheckpointConfig": {"S3Uri": "s3://bucket/checkpoints"},
    "Environment": {"A": "1"},
    "Tags": [{"Key": "a", "Value": "b"}],
    "VpcConfig": {"SecurityGroupIds": ["sg-1"], "Subnets": ["subnet-1"]},
}


def changed(path: str, value: object) -> dict:
    """BODY with the value at a dotted path replaced (numbers are list indices)."""
    body = copy.deepcopy(BODY)
    *parents, last = [int(part) if part.isdigit() else part for part in path.split(".")]
    node = body
    for part in parents:
        node = node[part]
    node[last] = value
    return body


def test_a_good_request():
    request = check_request(BODY)
    assert request.hosts == ["algo-1", "algo-2"] and request.command == ["/bin/bash", "-c", "true"]
    assert str(request.checkpoint_folder) == "checkpoints" and request.max_wait_s is None
    (channel,) = request.channels
    assert (channel.name, channel.uri, channel.sharded, channel.manifest) == (
        "train",
        "s3://bucket/train",
        False,
        False,
    )
    assert channel.config["TrainingInputMode"] == "File"


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        ("AlgorithmSpecification.TrainingInputMode", "Pipe", "AlgorithmSpecification.TrainingInputMode=Pipe (use File or FastFile)"),
        ("InputDataConfig.0.InputMode", "Pipe", "InputDataConfig[0].InputMode=Pipe"),
        ("InputDataConfig.0.CompressionType", "Gzip", "InputDataConfig[0].CompressionType=Gzip"),
        ("InputDataConfig.0.ShuffleConfig", {"Seed": 1}, "InputDataConfig[0].ShuffleConfig"),
        ("InputDataConfig.0.DataSource.S3DataSource.S3DataType", "AugmentedManifestFile", "S3DataType=AugmentedManifestFile"),
        ("InputDataConfig.0.DataSource", {"FileSystemDataSource": {"FileSystemId": "fs-01234567890", "FileSystemAccessMode": "ro", "FileSystemType": "EFS", "DirectoryPath": "/"}}, "InputDataConfig[0].DataSource.FileSystemDataSource"),
        ("ResourceConfig.InstanceGroups", [{"InstanceType": "ml.m5.large", "InstanceCount": 1, "InstanceGroupName": "a"}], "ResourceConfig.InstanceGroups"),
        ("ResourceConfig.KeepAlivePeriodInSeconds", 3601, "ResourceConfig.KeepAlivePeriodInSeconds=3601: a warm pool is kept for 3600 s at most"),
        ("ResourceConfig.KeepAlivePeriodInSeconds", -1, "ResourceConfig.KeepAlivePeriodInSeconds must be at least 0"),
        ("ResourceConfig.TrainingPlanArn", "arn:aws:sagemaker:us-east-1:123456789012:pipeline/not-a-training-plan", "ResourceConfig.TrainingPlanArn="),
        ("RetryStrategy", {"MaximumRetryAttempts": 31}, "RetryStrategy.MaximumRetryAttempts must be at most 30"),
        ("RetryStrategy", {}, "RetryStrategy.MaximumRetryAttempts is required"),
        ("RemoteDebugConfig", {"EnableRemoteDebug": "yes"}, "RemoteDebugConfig.EnableRemoteDebug must be true or false"),
        ("AlgorithmSpecification.ContainerArguments", ["--distribution", "mpirun"], "use_mpirun=True needs an SSH server"),
        ("TensorBoardOutputConfig", {"S3OutputPath": "s3://b/t"}, "does not support TensorBoardOutputConfig"),
        ("CheckpointConfig.LocalPath", "/tmp/checkpoints", "CheckpointConfig.LocalPath=/tmp/checkpoints"),
        ("CheckpointConfig.LocalPath", "/opt/ml/../../etc", "CheckpointConfig.LocalPath"),
        # What the service itself refuses:
        ("TrainingJobName", "under_score", "TrainingJobName='under_score' does not match"),
        ("HyperParameters", {"text": "a\nb"}, "HyperParameters.text='a\\nb' does not match"),
        ("HyperParameters", {"text": "x" * 2501}, "HyperParameters.text must be at most 2500 in length (it is 2501)"),
        ("Environment", {"A": "x" * 513}, "Environment.A must be at most 512"),
        ("Environment", {"1A": "x"}, "Environment (key '1A')"),
        ("ResourceConfig.InstanceType", "ml.gpu", "ResourceConfig.InstanceType='ml.gpu' is not one of"),
        ("ResourceConfig.InstanceCount", 0, "ResourceConfig.InstanceCount must be at least 1"),
        ("StoppingCondition.MaxRuntimeInSeconds", 0, "StoppingCondition.MaxRuntimeInSeconds must be at least 1"),
        ("InputDataConfig", [BODY["InputDataConfig"][0]] * 2, "two channels named train"),
        ("AlgorithmSpecification.MetricDefinitions.0.Regex", "loss=(", "MetricDefinitions[0].Regex='loss=(' is not a regular expression"),
        ("AlgorithmSpecification.MetricDefinitions.0.Regex", "loss=.*", "needs a group in parentheses"),
        ("RoleArn", "just-a-name", "RoleArn must be at least 20 in length"),
        ("EnableManagedSpotTraining", True, "StoppingCondition.MaxWaitTimeInSeconds must be given"),
        ("NoSuchParameter", 1, "NoSuchParameter is not a known parameter"),
    ],
)  # fmt: skip
def test_refused_by_name(path, value, words):
    with pytest.raises(RequestRefused) as caught:
        check_request(changed(path, value))
    assert words in str(caught.value)


def test_a_job_without_a_command_is_refused():
    body = copy.deepcopy(BODY)
    del body["AlgorithmSpecification"]["ContainerEntrypoint"]
    with pytest.raises(RequestRefused, match="ContainerEntrypoint is missing: on AWS .* Name a script"):
        check_request(body)


def test_spot_instances_are_not_kept():
    body = changed("ResourceConfig.KeepAlivePeriodInSeconds", 600)
    assert check_request(body).keeps_instances
    body |= {"EnableManagedSpotTraining": True}
    body["StoppingCondition"] |= {"MaxWaitTimeInSeconds": 60}
    with pytest.raises(RequestRefused, match="managed spot training leaves no warm pool"):
        check_request(body)


def test_all_problems_are_said_at_once():
    body = changed("InputDataConfig.0.InputMode", "Pipe") | {"DebugHookConfig": {"S3OutputPath": "s3://b/d"}}
    with pytest.raises(RequestRefused, match=r"DebugHookConfig.*InputDataConfig\[0\].InputMode"):
        check_request(body)
    with pytest.raises(RequestRefused, match="RoleArn is required"):
        check_request({key: value for key, value in BODY.items() if key != "RoleArn"})
