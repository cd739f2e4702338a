"""What the endpoint carries out, and that all else is an error with a name, never a success; and AWS's own limits."""

import re
import time

import boto3
import pytest
from botocore.exceptions import ClientError
from endpoint_fixtures import describe, launch, log_lines, wait_end
from local_sagemaker import client
from local_sagemaker.api.service_limits import INSTANCES

ROLE = client.ROLE_ARN
IMAGE = {"AlgorithmSpecification": {"TrainingImage": "any", "TrainingInputMode": "File"}}
TUNING = {
    "HyperParameterTuningJobName": "tuning",
    "HyperParameterTuningJobConfig": {
        "Strategy": "Random",
        "ResourceLimits": {"MaxNumberOfTrainingJobs": 2, "MaxParallelTrainingJobs": 1},
    },
}
PROCESSING = {
    "ProcessingJobName": "processing",
    "RoleArn": ROLE,
    "AppSpecification": {"ImageUri": "any"},
    "ProcessingResources": {
        "ClusterConfig": {"InstanceCount": 1, "InstanceType": "ml.m5.large", "VolumeSizeInGB": 1}
    },
}
MODEL = {"ModelName": "model", "ExecutionRoleArn": ROLE, "PrimaryContainer": {"Image": "any"}}
PIPELINE = {
    "PipelineName": "pipeline",
    "RoleArn": ROLE,
    "PipelineDefinition": "{}",
    "ClientRequestToken": "x" * 32,
}
NETWORK = {"CidrBlock": "10.0.0.0/16"}
# One of each form in which AWS's services are asked and answer: JSON, a path with JSON or XML, a form, EC2's, CBOR.
REFUSED = [
    ("sagemaker", "CreateHyperParameterTuningJob", TUNING, "Start a training job for each set of values"),
    ("sagemaker", "ListHyperParameterTuningJobs", {}, "Start a training job for each set of values"),
    ("sagemaker", "CreateProcessingJob", PROCESSING, "in a training job"),
    ("sagemaker", "CreateModel", MODEL, "run the model in the notebook"),
    ("sagemaker", "CreatePipeline", PIPELINE, "training jobs one after the other"),
    ("sagemaker", "DeleteTrainingJob", {"TrainingJobName": "x"}, "stays as it was created"),
    ("sagemaker", "ListDomains", {}, "Use it on AWS. Of sagemaker it carries out AddTags, CreateTrainingJob"),
    ("sagemaker-runtime", "InvokeEndpoint", {"EndpointName": "e", "Body": b"x"}, "notebook"),
    ("lambda", "GetFunction", {"FunctionName": "f"}, "Use it on AWS"),
    ("route53", "ListHostedZones", {}, "Use it on AWS"),
    ("iam", "CreateRole", {"RoleName": "r", "AssumeRolePolicyDocument": "{}"}, "every role exists"),
    ("ec2", "CreateVpc", NETWORK, "Use it on AWS"),
    ("cloudwatch", "PutMetricData", {"Namespace": "n", "MetricData": []}, "Use it on AWS"),
    ("ecr", "GetAuthorizationToken", {}, "requirements.txt"),
]


def failure(call, *arguments, **keywords) -> tuple[str, str]:
    """Code and message of the error that the call raises; a request that AWS itself refuses has status 400."""
    with pytest.raises(ClientError) as caught:
        call(*arguments, **keywords)
    answer = caught.value.response
    assert answer["ResponseMetadata"]["HTTPStatusCode"] == 400
    assert answer["ResponseMetadata"]["RetryAttempts"] == 0, "boto3 took it for a passing fault"
    return answer["Error"]["Code"], answer["Error"]["Message"]


@pytest.mark.parametrize(("service", "operation", "request_", "instead"), REFUSED, ids=lambda v: str(v)[:24])
def test_an_operation_that_is_not_carried_out_is_refused_by_name(
    endpoint, service, operation, request_, instead
):
    method = re.sub(r"(?<!^)(?=[A-Z][a-z])", "_", operation).lower()
    code, message = failure(getattr(boto3.client(service), method), **request_)
    assert code == "LocalModeNotSupported"
    assert f":{operation}, and nothing was done" in message and instead in message


def test_the_sdks_tuner_says_so_too(endpoint, make_trainer):
    from sagemaker.core.parameter import ContinuousParameter
    from sagemaker.train.tuner import HyperparameterTuner

    tuner = HyperparameterTuner(
        make_trainer("print('loss=1')", hyperparameters={"lr": 0.1}),
        objective_metric_name="loss",
        metric_definitions=[{"Name": "loss", "Regex": r"loss=(\S+)"}],
        hyperparameter_ranges={"lr": ContinuousParameter(0.1, 0.2)},
    )
    with pytest.raises(ClientError, match=r"LocalModeNotSupported.*compare their FinalMetricDataList"):
        tuner.tune(wait=False)


def test_a_request_that_moto_fails_on_is_no_500(endpoint):
    """This one is as its shape says, and moto looks for it in a dictionary."""
    code, message = failure(boto3.client("secretsmanager").list_secrets, NextToken="of-another-day")
    assert code == "LocalModeNotSupported"
    assert "could not carry out secretsmanager:ListSecrets" in message
    assert "Traceback" in (endpoint.home / "endpoint.log").read_text()


@pytest.fixture(scope="module")
def ended_jobs(endpoint) -> list[str]:
    """Names of four jobs in the order of their creation: two Completed, two Failed."""
    boto3.client("s3").create_bucket(Bucket="listed")
    names = []
    for number, command in enumerate(["echo loss=0.5", "exit 1", "echo loss=0.25", "exit 1"]):
        names.append(f"listed-{number}")
        create(names[-1], command)
        wait_end(names[-1])
    return names


def create(name: str, command: str = "true", **changes: object) -> None:
    request = {
        "TrainingJobName": name,
        "AlgorithmSpecification": {
            **IMAGE["AlgorithmSpecification"],
            "ContainerEntrypoint": ["bash", "-c", command],
            "MetricDefinitions": [{"Name": "loss", "Regex": r"loss=(\S+)"}],
        },
        "RoleArn": ROLE,
        "OutputDataConfig": {"S3OutputPath": "s3://listed/out"},
        "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1},
        "StoppingCondition": {"MaxRuntimeInSeconds": 60},
    }
    boto3.client("sagemaker").create_training_job(**request | changes)


def listed(**request: object) -> tuple[list[str], str | None]:
    answer = boto3.client("sagemaker").list_training_jobs(NameContains="listed", **request)
    return [job["TrainingJobName"] for job in answer["TrainingJobSummaries"]], answer.get("NextToken")


def test_jobs_are_paged_before_they_are_filtered_by_status(ended_jobs):
    """As AWS does it: a page may have fewer jobs than MaxResults, or none, and others follow."""
    first, token = listed(StatusEquals="Failed", MaxResults=1)
    assert first == [] and token
    assert listed(StatusEquals="Failed", MaxResults=1, NextToken=token)[0] == ["listed-1"]
    pages = (
        boto3.client("sagemaker")
        .get_paginator("list_training_jobs")
        .paginate(NameContains="listed", StatusEquals="Failed", PaginationConfig={"PageSize": 1})
    )
    assert [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]] == [
        "listed-1",
        "listed-3",
    ]
    assert listed(WarmPoolStatusEquals="InUse") == ([], None)
    assert failure(listed, NextToken="tomorrow")[0] == "ValidationException"


def test_search_finds_jobs_by_what_they_were_told_and_what_they_reached(ended_jobs):
    sagemaker = boto3.client("sagemaker")
    arn = describe("listed-2")["TrainingJobArn"]
    sagemaker.add_tags(ResourceArn=arn, Tags=[{"Key": "kept", "Value": "yes"}])

    def found(*conditions: tuple) -> list[str]:
        filters = [dict(zip(("Name", "Operator", "Value"), one, strict=True)) for one in conditions]
        answer = sagemaker.search(Resource="TrainingJob", SearchExpression={"Filters": filters})
        return [result["TrainingJob"]["TrainingJobName"] for result in answer["Results"]]

    assert found(("Metrics.loss", "LessThan", "0.4")) == ["listed-2"]
    assert found(("Tags.kept", "Equals", "yes")) == ["listed-2"]
    assert found(("TrainingJobStatus", "Equals", "Failed"), ("TrainingJobName", "Contains", "listed")) == [
        "listed-3",
        "listed-1",
    ]
    code, message = failure(found, ("Nothing", "Equals", "1"))
    assert code == "ValidationException" and "Unknown property name: Nothing" in message


def test_logs_are_filtered_by_the_prefix_of_their_job(ended_jobs):
    logs = boto3.client("logs")
    request = {"logGroupName": "/aws/sagemaker/TrainingJobs", "filterPattern": '"loss="'}
    answer = logs.filter_log_events(logStreamNamePrefix="listed-2/", **request)
    assert [event["message"] for event in answer["events"]] == ["loss=0.25"]
    code, message = failure(logs.filter_log_events, logStreamNames=["a"], logStreamNamePrefix="b", **request)
    assert code == "InvalidParameterException" and "not both" in message


@pytest.mark.parametrize(
    ("changes", "code", "words"),
    [
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 90}}, "ValidationException", "It is only supported when EnableManagedSpotTraining is set to true"),
        ({"StoppingCondition": {"MaxRuntimeInSeconds": 28 * 86_400 + 1}}, "ValidationException", "28 days"),
        ({"ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 100, "VolumeSizeInGB": 1}}, "ResourceLimitExceeded", f"'ml.m5.large for training job usage' is {INSTANCES} Instances, with current utilization of 0 Instances and a request delta of 100 Instances"),
        ({"EnableManagedSpotTraining": True, "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}, "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 21, "VolumeSizeInGB": 1}}, "ResourceLimitExceeded", "'ml.m5.large for spot training job usage'"),
        ({"EnableManagedSpotTraining": True, "StoppingCondition": {"MaxRuntimeInSeconds": 60, "MaxWaitTimeInSeconds": 60}, "ResourceConfig": {"InstanceType": "ml.m5.large", "InstanceCount": 1, "VolumeSizeInGB": 1, "KeepAlivePeriodInSeconds": 60}}, "ValidationException", "leave out this or EnableManagedSpotTraining"),
    ],
)  # fmt: skip
def test_limits_that_no_shape_has(endpoint, ended_jobs, changes, code, words):
    name = f"limits-{time.time_ns()}"
    found, message = failure(create, name, **changes)
    assert found == code and words in message
    assert not endpoint.job_folder(name).exists()


def test_the_way_of_all_jobs_is_allowed(endpoint, make_trainer):
    name = launch(make_trainer("print('here')"))
    assert wait_end(name)["TrainingJobStatus"] == "Completed" and "here" in log_lines(name)
