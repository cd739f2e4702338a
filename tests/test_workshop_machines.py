"""What is known of instances, and preflight's rules about machines: launcher files, GPUs, disk, time limit and quota."""

import dataclasses
import json
import re
from importlib import resources
from pathlib import Path

import boto3
import pytest
from botocore.stub import Stubber
from job_requests import job_request
from workshop.checks import instances
from workshop.checks.accelerate_file import KEYS, TYPES, check_launcher
from workshop.checks.instances import (
    find_instance,
    gpu_bytes,
    gpu_count,
    hourly_price,
    known_instances,
    training_instance_types,
)
from workshop.checks.machine_checks import (
    check_disk,
    check_machines,
    check_quota,
    check_time_limit,
)
from workshop.checks.request import OK, PROBLEM, WARNING

ROOT = Path(__file__).resolve().parents[1]
ACCELERATE = ROOT / "02_grpo_trl_accelerate" / "scripts"
NAMED_IN = (
    "README.md",
    "docs/*.md",
    "[0-9]*/*.md",
    "[0-9]*/*.yaml",
    "[0-9]*/*.ipynb",
    "[0-9]*/scripts/**/*.yaml",
)
FOR_GPU = {"bf16": True, "use_cpu": False}
FOR_CPU = {"bf16": False, "use_cpu": True}


def found(checks, status: str) -> str:
    return "\n".join(check.detail for check in checks if check.status == status)


def on_aws(instance_type: str = "ml.g6.xlarge", **changes):
    gpus = gpu_count(instance_type, "us-east-1")
    return job_request(**{"local": False, "instance_type": instance_type, "gpus": gpus, **changes})


def test_every_instance_that_a_learner_reads_of_is_in_the_table():
    files = [path for pattern in NAMED_IN for path in ROOT.glob(pattern)]
    text = "\n".join(path.read_text(encoding="utf-8") for path in files)
    named = set(re.findall(r"\bml\.[a-z]\w+(?:-\w+)?\.\d*x?large\b", text))
    assert {"ml.g6.xlarge", "ml.p4d.24xlarge"} <= named <= set(known_instances())
    for name in named:
        row = find_instance(name)
        assert row and bool(row.gpus) == (row.gpu is not None), name
        assert row.price and row.price > 0, name


def test_the_table_holds_instances_that_exist_with_sources_and_dates():
    table = json.loads(Path(instances.__file__).with_name("instances.json").read_text())
    assert set(table["instances"]) <= training_instance_types()
    for name, row in table["instances"].items():
        assert (row["price"] is None) == (row["price_source"] == "none_found"), name
        assert row["price_source"] in table["sources"], name
    for source in table["sources"].values():
        assert re.fullmatch(r"20\d\d-\d\d-\d\d", source["date"]) and source["where"]
    assert all("http" in gpu["speed_source"] for gpu in table["gpus"].values())


def test_the_table_agrees_with_the_sdks_own():
    path = resources.files("sagemaker.core") / "image_uri_config" / "instance_gpu_info.json"
    listed = json.loads(path.read_text())["us-east-1"]
    both = set(listed) & set(known_instances())
    assert len(both) >= 10
    for name in both:
        assert gpu_count(name, "us-east-1") == listed[name]["Count"], name
        # The SDK has 24 GiB for the A10G of some sizes and 22.4 for that of others, which EC2 has for all.
        its = listed[name]["TotalGpuMemoryInMiB"] * 2**20 / listed[name]["Count"]
        assert gpu_bytes(name, "us-east-1") == pytest.approx(its, rel=0.07), name


def test_instances_outside_the_table():
    assert gpu_count("ml.p3.8xlarge", "us-east-1") == 4 and hourly_price("ml.p3.8xlarge") is None  # the SDK's
    assert gpu_count("ml.r5.large", "us-east-1") == 0 and gpu_bytes("ml.r5.large", "us-east-1") is None
    assert gpu_count("ml.p6-b200.48xlarge", "us-east-1") is None


@pytest.mark.parametrize(
    ("instance_type", "settings", "changes", "status", "says"),
    [
        ("ml.g6.xlarge", FOR_GPU, {}, OK, "GPUs each: 1, processes each: 1"),
        ("ml.c5.xlarge", FOR_CPU, {}, OK, "GPUs each: 0"),
        ("ml.g6.12xlarge", FOR_GPU, {"launcher": {"process_count_per_node": 8}}, PROBLEM, "set process_count_per_node=4"),
        ("ml.g6.12xlarge", FOR_GPU, {"launcher": {"process_count_per_node": 2}}, WARNING, "of which 2 would be used"),
        ("ml.g6.xlarge", FOR_CPU, {}, WARNING, "the GPUs that you pay for stay idle"),
        ("ml.c5.xlarge", FOR_GPU, {}, PROBLEM, "made for a GPU, and ml.c5.xlarge has none"),
        ("ml.c5.xlarge", {"use_vllm": True}, {}, PROBLEM, "use_vllm needs a GPU"),
        ("ml.g4dn.xlarge", FOR_GPU, {}, WARNING, "has no bfloat16"),
        ("ml.g4dn.xlarge", FOR_GPU | {"use_vllm": True}, {}, PROBLEM, "has no bfloat16"),
        ("ml.g6.2large", FOR_GPU, {}, PROBLEM, "of this family there are ml.g6.12xlarge"),
        ("ml.large", FOR_GPU, {}, PROBLEM, "there is no training instance type 'ml.large': names look like ml.g5.2xlarge"),
        ("ml.g6.xlarge", FOR_GPU, {"hosts": 2}, PROBLEM, "nothing joins the 2 hosts"),
        ("ml.g6.xlarge", FOR_GPU | {"precompute_ref_log_probs": True}, {"hosts": 2, "launcher": {"x": 1}}, PROBLEM,
         "precompute_ref_log_probs=False"),
    ],
)  # fmt: skip
def test_rules_about_machines(instance_type, settings, changes, status, says):
    checks = list(check_machines(on_aws(instance_type, **changes), settings))
    assert says in found(checks, status)
    if status == OK:
        assert len(checks) == 1


@pytest.mark.parametrize(
    ("instance_type", "file", "settings", "processes", "says"),
    [
        ("ml.g6e.12xlarge", "multi_gpu", FOR_GPU, None, None),
        ("ml.g6.xlarge", "one_gpu", FOR_GPU, 1, None),
        ("ml.c5.xlarge", "cpu", FOR_CPU, 2, None),
        ("ml.g6.xlarge", "cpu", FOR_CPU, 1, None),
        ("ml.g6e.12xlarge", "cpu", FOR_GPU, 4, "cpu.yaml says use_cpu: true, so the 4 GPUs that you pay for stay idle"),
        ("ml.c5.xlarge", "one_gpu", FOR_CPU, 1, "one_gpu.yaml is made for GPUs, and ml.c5.xlarge has none"),
        ("ml.g6e.12xlarge", "one_gpu", FOR_GPU, None, "starts one process of the 4 asked for"),
    ],
)  # fmt: skip
def test_launcher_files_and_the_machines_that_they_are_for(instance_type, file, settings, processes, says):
    launcher = {"config_file": f"accelerate/{file}.yaml", "process_count_per_node": processes}
    checks = list(check_launcher(on_aws(instance_type, source_dir=ACCELERATE, launcher=launcher), settings))
    assert says in found(checks, PROBLEM) if says else checks == []


def test_local_mode_takes_launcher_files_as_they_are():
    launcher = {"config_file": "accelerate/one_gpu.yaml", "process_count_per_node": 2}
    request = job_request(instance_type="ml.c5.xlarge", gpus=0, source_dir=ACCELERATE, launcher=launcher)
    assert list(check_launcher(request, FOR_CPU)) == []


def test_numbers_in_a_launcher_file_that_do_not_count(tmp_path):
    (tmp_path / "mine.yaml").write_text(
        "distributed_type: MULTI_GPU\nuse_cpu: false\nnum_processes: 8\nnum_machines: 1\n"
    )
    launcher = {"config_file": "mine.yaml", "process_count_per_node": 4}
    checks = list(check_launcher(on_aws("ml.g6.12xlarge", source_dir=tmp_path, launcher=launcher), FOR_GPU))
    assert found(checks, WARNING) == "mine.yaml says num_processes: 8, and the job starts 4, which is what counts: leave num_processes out"  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"use_cpu: [", "mine.yaml is not valid YAML"),
        (b"- 1\n", "mine.yaml must hold lines of the form 'key: value'"),
        (b"hello\n", "mine.yaml must hold lines of the form 'key: value'"),
        (b"", "mine.yaml must hold lines of the form 'key: value'"),
        (b"use_cpu: caf\xe9\n", "mine.yaml is not valid YAML"),
        (b"use_cpu: true\n", "mine.yaml: distributed_type is missing"),
        (b"distributed_type: NO\n", 'distributed_type is False: it must be one of NO, MULTI_CPU, '),
        (b"distributed_type: MULTI_CPU\nmixed_precision: no\n", 'so write "no" in quotes'),
        (b"distributed_type: MULTI_CPU\nnum_procesess: 2\n", "did you mean 'num_processes'?"),
        (b"distributed_type: NO_\ncompute_environment: AMAZON_SAGEMAKER\n", "write LOCAL_MACHINE"),
    ],
)  # fmt: skip
def test_launcher_files_that_accelerate_could_not_use(tmp_path, content, says):
    (tmp_path / "mine.yaml").write_bytes(content)
    request = job_request(source_dir=tmp_path, launcher={"config_file": "mine.yaml"})
    assert says in found(check_launcher(request, FOR_CPU), PROBLEM)


def test_keys_and_types_of_launcher_files_are_accelerates():
    from accelerate.commands.config.config_args import ClusterConfig
    from accelerate.utils import DistributedType

    assert set(KEYS) == {field.name for field in dataclasses.fields(ClusterConfig)} | {
        "fp16",
        "dynamo_backend",
    }
    assert set(TYPES) == {kind.value for kind in DistributedType}


def test_disks_that_come_with_the_instance():
    assert list(check_disk(on_aws("ml.g6.xlarge", volume_gb=200))) == []
    assert "lower volume_size_in_gb" in found(check_disk(on_aws("ml.g4dn.xlarge", volume_gb=200)), PROBLEM)
    assert "no KMS key" in found(check_disk(on_aws("ml.g6.xlarge", volume_key="alias/mine")), PROBLEM)
    assert list(check_disk(on_aws("ml.c5.xlarge", volume_gb=2000, volume_key="alias/mine"))) == []


def test_a_job_that_is_told_another_limit_than_its_own():
    assert list(check_time_limit(job_request())) == []
    assert list(check_time_limit(job_request(environment={"JOB_MAX_SECONDS": "3600"}))) == []
    message = found(check_time_limit(job_request(environment={"JOB_MAX_SECONDS": "7200"})), PROBLEM)
    assert "JOB_MAX_SECONDS in environment is 7200" in message and "is 3600" in message


def test_a_warm_pool_needs_a_quota_of_its_own():
    quotas = boto3.client(
        "service-quotas", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x"
    )

    class Account:
        def client(self, name: str):
            return quotas

    listed = [
        {"QuotaName": "ml.g6.xlarge for training job usage", "Value": 2.0},
        {"QuotaName": "Number of instances across all training jobs", "Value": 4.0},
        {"QuotaName": "ml.g6.xlarge for training warm pool usage", "Value": 0.0},
    ]
    request = on_aws("ml.g6.xlarge", keep_alive_s=600, boto_session=Account())
    with Stubber(quotas) as stub:
        page = {"ServiceCode": "sagemaker", "MaxResults": 100}
        stub.add_response("list_service_quotas", {"Quotas": listed}, page)
        checks = list(check_quota(request))
    assert [check.status for check in checks] == [OK, OK, WARNING]
    assert "warm pool usage' is 0: the job runs, but its 1 instances are not kept" in checks[2].detail
