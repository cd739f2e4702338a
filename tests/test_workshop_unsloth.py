"""Preflight of jobs that use Unsloth: what it would not do is refused before a job exists."""

import dataclasses

import boto3
import pytest
from workshop.request import OK, PROBLEM, WARNING, JobRequest
from workshop.unsloth_checks import check_unsloth

SOUND = {"lora_rank": 16, "use_vllm": False}


@pytest.fixture
def request_for(tmp_path):
    """request_for(hosts=2, ...): a sound request of a folder whose requirements name Unsloth, with the changes."""
    (tmp_path / "requirements.txt").write_text("unsloth==1\nunsloth_zoo==1\n")
    (tmp_path / "requirements-gpu.txt").write_text("-r requirements.txt\nvllm==1\n")
    (tmp_path / "other.txt").write_text("trl==1\n")
    sound = JobRequest(
        local=True,
        region="us-east-1",
        boto_session=boto3.Session(),
        source_dir=tmp_path,
        entry_script="train.py",
        command=None,
        requirements="requirements.txt",
        hyperparameters={},
        environment={},
        launcher={},
        channels=[],
        instance_type="ml.g6.12xlarge",
        hosts=1,
        gpus=4,
        max_runtime_s=60,
        max_wait_s=None,
        spot=False,
        checkpoints=True,
        config="trl.GRPOConfig",
    )
    return lambda **changes: dataclasses.replace(sound, **changes)


def found(request, **settings) -> list[tuple[str, str]]:
    return [(check.status, check.detail) for check in check_unsloth(request, {**SOUND, **settings})]


def test_a_sound_request(request_for):
    assert found(request_for()) == [(OK, "one process on one device")]
    assert found(request_for(requirements="requirements-gpu.txt"), use_vllm=True)[0][0] == OK


def test_jobs_without_unsloth_are_left_alone(request_for):
    assert found(request_for(requirements="other.txt", hosts=2)) == []
    assert found(request_for(requirements=None, hosts=2)) == []


@pytest.mark.parametrize(
    "changes, settings, said",
    [
        ({"hosts": 2}, {}, "2 processes on 2 host(s): leave distributed= out and set instance_count=1"),
        ({"launcher": {"process_count_per_node": 2}}, {}, "2 processes on 1 host(s)"),
        ({"launcher": {"smddp": False}, "local": False}, {}, "4 processes on 1 host(s)"),  # one for each GPU
        ({}, {"lora_rank": 0}, "lora_rank is 0"),
        ({}, {"lora_rank": None}, "lora_rank is 0"),
        (
            {},
            {"activation_checkpointing": True},
            "activation_checkpointing is not in the TRL that Unsloth allows",
        ),
    ],
)
def test_what_it_would_not_do(request_for, changes, settings, said):
    (status, detail), *others = found(request_for(**changes), **settings)
    assert status == PROBLEM and said in detail
    assert all(status == WARNING for status, _ in others)


def test_gpus_that_would_stay_idle(request_for):
    checks = found(request_for(local=False))
    assert [status for status, _ in checks] == [OK, WARNING] and "has 4 GPUs" in checks[1][1]
