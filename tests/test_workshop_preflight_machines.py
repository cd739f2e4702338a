"""Preflight of what is asked for of the machines: launcher file, spot, time limit, instances, cost and quota."""

import dataclasses

import boto3
import pytest
from botocore.stub import Stubber
from launchers import AccelerateLaunch
from preflight_findings import details, problems
from sagemaker.core.training.configs import Compute, StoppingCondition
from workshop.checks.machine_checks import check_quota
from workshop.checks.preflight import preflight, run_checks
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, read_request

SPLITS = {"train": 40, "test": 10}


def on_aws(trainer, channels, **changes):
    """The same request as it would be sent to AWS."""
    return dataclasses.replace(read_request(trainer, channels), local=False, **changes)


def test_a_launcher_file_that_is_not_there(make_request):
    message = problems(*make_request(distributed=AccelerateLaunch(config_file="accelerate/gpu.yaml")))
    assert "there is no accelerate/gpu.yaml in the source" in message and "accelerate/cpu.yaml" in message


def test_spot_needs_checkpoints_and_a_waiting_time(make_request):
    compute = Compute(instance_type="ml.m5.xlarge", instance_count=1, enable_managed_spot_training=True)
    message = problems(*make_request(compute=compute))
    assert "spot without checkpoints" in message and "max_wait_time_in_seconds" in message
    from sagemaker.core.training.configs import CheckpointConfig

    trainer, channels = make_request(
        compute=compute,
        checkpoint_config=CheckpointConfig(s3_uri="s3://b/checkpoints"),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=600, max_wait_time_in_seconds=500),
    )
    assert "must be at least max_runtime_in_seconds (600)" in problems(trainer, channels)
    trainer.stopping_condition.max_wait_time_in_seconds = 1200
    trainer.compute.keep_alive_period_in_seconds = 600
    assert "keeps no spot instances for the next job" in problems(trainer, channels)
    trainer.compute.keep_alive_period_in_seconds = 0
    assert "with checkpoints, waiting at most 20 min" in str(preflight(trainer, channels))


def test_the_job_is_told_its_own_time_limit(make_request):
    limit = StoppingCondition(max_runtime_in_seconds=600)
    preflight(*make_request(stopping_condition=limit, environment={"JOB_MAX_SECONDS": "600"}))
    message = problems(*make_request(stopping_condition=limit, environment={"JOB_MAX_SECONDS": "60"}))
    assert (
        "JOB_MAX_SECONDS in environment is 60, and max_runtime_in_seconds" in message and "is 600" in message
    )


def test_what_is_asked_for_of_the_machines_reaches_the_checks(make_request):
    plan = "arn:aws:sagemaker:us-east-1:123456789012:training-plan/mine"
    compute = Compute(
        instance_type="ml.g6.xlarge",
        instance_count=1,
        volume_size_in_gb=300,
        keep_alive_period_in_seconds=600,
        training_plan_arn=plan,
    )
    request = on_aws(*make_request(compute=compute))
    assert (request.keep_alive_s, request.training_plan, request.volume_gb) == (600, plan, 300)
    checks = run_checks(request)
    assert "300 GB are asked for" in details(checks, "disk", PROBLEM)
    assert "waiting is billed like running" in details(checks, "warm pool", NOTE)
    plain = on_aws(*make_request())
    assert (plain.keep_alive_s, plain.training_plan, plain.volume_key) == (None, None, None)


def test_an_unknown_instance_type(make_request):
    message = problems(*make_request(compute=Compute(instance_type="ml.g5.3xlarge", instance_count=1)))
    assert "no training instance type 'ml.g5.3xlarge'" in message and "ml.g5.2xlarge" in message


def test_cost_and_gpus_on_aws(make_request):
    trainer, channels = make_request(
        compute=Compute(instance_type="ml.g5.12xlarge", instance_count=2),
        stopping_condition=StoppingCondition(max_runtime_in_seconds=1800),
    )
    request = on_aws(trainer, channels)
    checks = run_checks(request)
    assert request.gpus == 4
    assert "at most $7.09: 2 x $7.090 an hour" in details(checks, "cost", NOTE)
    assert "prices: the AWS Price List API, us-east-1, 2026-" in details(checks, "cost", NOTE)
    assert "use_cpu: true" in details(checks, "machines", WARNING)
    assert "has 4 GPUs, of which 2 would be used" in details(checks, "machines", WARNING)
    too_many = dataclasses.replace(request, launcher={**request.launcher, "process_count_per_node": 8})
    assert "set process_count_per_node=4" in details(run_checks(too_many), "machines", PROBLEM)


def test_what_is_not_known_is_called_unknown(make_request):
    trainer, channels = make_request(compute=Compute(instance_type="ml.p6-b200.48xlarge", instance_count=1))
    checks = run_checks(on_aws(trainer, channels))
    assert "price of ml.p6-b200.48xlarge is not known" in details(checks, "cost", WARNING)
    assert "GPUs each: unknown" in details(checks, "machines", OK)


@pytest.mark.parametrize(("quota", "status"), [(0.0, PROBLEM), (4.0, OK), (None, WARNING)])
def test_quota(make_request, quota, status):
    quotas = boto3.client("service-quotas", region_name="us-east-1")
    listed = [
        {"QuotaName": "ml.m5.xlarge for spot training job usage", "Value": 100.0},
        {"QuotaName": "Number of instances across all training jobs", "Value": 4.0},
    ]
    if quota is not None:
        listed.append({"QuotaName": "ml.m5.xlarge for training job usage", "Value": quota})

    class Account:
        def client(self, name):
            assert name == "service-quotas"
            return quotas

    request = on_aws(*make_request(), boto_session=Account())
    page = {"ServiceCode": "sagemaker", "MaxResults": 100}
    with Stubber(quotas) as stub:
        stub.add_response("list_service_quotas", {"Quotas": listed}, page)
        check, of_all_types = check_quota(request)
        assert (check.status, of_all_types.status) == (status, OK), check
        raised = [*listed, {"QuotaName": "ml.m5.xlarge for training job usage", "Value": 4.0}]
        if status != OK:
            stub.add_response("list_service_quotas", {"Quotas": raised}, page)
        for _ in range(2):  # one that suffices is not asked for again
            assert [check.status for check in check_quota(request)] == [OK, OK]
    with Stubber(quotas) as stub:
        stub.add_client_error("list_service_quotas", "AccessDeniedException")
        (check,) = check_quota(dataclasses.replace(request, boto_session=Account()))
    assert check.status == WARNING and "quotas cannot be read" in check.detail


@pytest.mark.parametrize("spot", [False, True])
def test_the_quota_of_all_types_together_is_looked_at_too(make_request, spot):
    kind = "spot training job" if spot else "training job"
    name = f"Number of instances across all {kind}s"
    quotas = boto3.client("service-quotas", region_name="us-east-1")

    class Account:
        def client(self, name):
            return quotas

    listed = [
        {"QuotaName": f"ml.m5.xlarge for {kind} usage", "Value": 8.0},
        {"QuotaName": name, "Value": 1.0},
    ]
    request = dataclasses.replace(on_aws(*make_request(), boto_session=Account()), spot=spot, hosts=2)
    with Stubber(quotas) as stub:
        stub.add_response("list_service_quotas", {"Quotas": listed})
        own, of_all_types = check_quota(request)
    assert (own.status, of_all_types.status) == (OK, PROBLEM)
    assert f"{name!r} is 1, but the job needs 2: ask for more in Service Quotas" in of_all_types.detail


def test_the_local_endpoint_lists_the_quotas_that_are_looked_at(make_request):
    request = dataclasses.replace(read_request(*make_request()), local=False, keep_alive_s=600)
    assert [check.status for check in check_quota(request)] == [OK, OK, OK]
    assert "Number of instances across all training jobs: 20" in {
        check.detail for check in check_quota(request)
    }
