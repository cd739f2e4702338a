"""Preflight of what is free of this machine's memory, with the machine's own figures moved."""

from types import SimpleNamespace

import psutil
import pytest
from workshop.checks.free_memory import check_free_memory, needed_bytes
from workshop.checks.memory import GB
from workshop.checks.request import PROBLEM, WARNING

TINY = {"base_model": "asset:tiny", "module": "02_grpo_trl_accelerate"}
RAY = {"join_timeout_s": 600}


def request(local=True, hosts=1, processes=2, launcher=()):
    return SimpleNamespace(local=local, hosts=hosts, processes_per_host=processes, launcher=dict(launcher))


@pytest.fixture
def free(monkeypatch):
    def set_free(available: float, total: float = 16 * GB) -> None:
        found = SimpleNamespace(available=available, total=total)
        monkeypatch.setattr(psutil, "virtual_memory", lambda: found)

    return set_free


def test_what_jobs_need():
    assert needed_bytes(request(), TINY) == 1.8 * GB
    assert needed_bytes(request(processes=1), TINY | {"module": "04_grpo_unsloth"}) == 1.3 * GB
    assert needed_bytes(request(launcher=RAY), TINY) < needed_bytes(request(hosts=2, launcher=RAY), TINY)
    assert needed_bytes(request(), TINY | {"base_model": "pypi:smollm2"}) is None


def test_a_job_that_fits_or_runs_on_aws_is_passed_over(free):
    free(1.9 * GB)
    assert list(check_free_memory(request(), TINY)) == []
    free(0.1 * GB)
    assert list(check_free_memory(request(local=False), TINY)) == []


@pytest.mark.parametrize(("available", "status"), [(1.5, WARNING), (0.5, PROBLEM)])
def test_too_little_is_said_with_both_figures(free, available, status):
    free(available * GB)
    (found,) = check_free_memory(request(), TINY)
    assert found.status == status
    assert f"need about 1.8 GB together, and of this machine's memory {available} GB are left" in found.detail
    assert "end other programs and jobs" in found.detail and "RAY" not in found.detail


def test_ray_keeps_a_part_for_itself_and_says_how_to_move_that(free):
    free(6 * GB)  # enough, were it not for Ray's 0.8
    (found,) = check_free_memory(request(launcher=RAY), TINY)
    assert found.status == WARNING and "5.2 GB are left" in found.detail
    assert 'environment={"RAY_memory_usage_threshold": "0.98"}' in found.detail


def test_this_machine_says_what_is_free():
    (found,) = check_free_memory(request(processes=10_000), TINY)
    assert found.status == PROBLEM and "need about 9000.0 GB" in found.detail
