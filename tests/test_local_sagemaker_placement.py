"""Parameters that say where, under which key and on which instances a job runs: taken, described again, without effect."""

import boto3
import pytest
from endpoint_fixtures import launch, wait_end
from sagemaker.core.training.configs import Compute, Networking, OutputDataConfig, Tag
from workshop.jobs.status import training_job

pytestmark = pytest.mark.endpoint
PLAN = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/forty-people"


def test_all_of_them_reach_the_request_and_are_described_again(endpoint, make_trainer):
    boto3.client("s3").create_bucket(Bucket="encrypted")
    name = launch(
        make_trainer(
            "pass",
            compute=Compute(
                instance_type="ml.g6.xlarge",
                instance_count=1,
                keep_alive_period_in_seconds=600,
                training_plan_arn=PLAN,
                volume_kms_key_id="alias/volume",
            ),
            networking=Networking(
                subnets=["subnet-1", "subnet-2"],
                security_group_ids=["sg-1"],
                enable_network_isolation=True,
                enable_inter_container_traffic_encryption=True,
            ),
            output_data_config=OutputDataConfig(
                s3_output_path="s3://encrypted/out", kms_key_id="alias/results"
            ),
            tags=[Tag(key="workshop", value="rl")],
        )
    )
    sagemaker = boto3.client("sagemaker")
    description = sagemaker.describe_training_job(TrainingJobName=name)
    resources = description["ResourceConfig"]
    assert (resources["KeepAlivePeriodInSeconds"], resources["TrainingPlanArn"]) == (600, PLAN)
    assert resources["VolumeKmsKeyId"] == "alias/volume"
    assert description["OutputDataConfig"]["KmsKeyId"] == "alias/results"
    assert description["VpcConfig"] == {"Subnets": ["subnet-1", "subnet-2"], "SecurityGroupIds": ["sg-1"]}
    assert description["EnableNetworkIsolation"] and description["EnableInterContainerTrafficEncryption"]
    tags = sagemaker.list_tags(ResourceArn=description["TrainingJobArn"])["Tags"]
    assert {"Key": "workshop", "Value": "rl"} in tags
    if description["TrainingJobStatus"] == "InProgress":
        assert description["WarmPoolStatus"] == {"Status": "InUse"}
    ended = wait_end(name)
    assert ended["TrainingJobStatus"] == "Completed", ended
    assert ended["WarmPoolStatus"] == {"Status": "Terminated", "ResourceRetainedBillableTimeInSeconds": 0}
    assert training_job(name).warm_pool_status.status == "Terminated", "the SDK reads it"


def test_a_job_that_asks_for_no_warm_pool_has_none(endpoint, make_trainer):
    name = launch(make_trainer("pass"))
    assert "WarmPoolStatus" not in wait_end(name)
