"""The trouble that each patch of local_sagemaker.compat cures, shown in the installed SDK, and that it is cured.

A test that fails with "remove ..." says that the library no longer needs the patch. And: a moto that is not the
one that the endpoint extends is refused.
"""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from local_sagemaker.api import operations
from local_sagemaker.api.service import TrainingService
from local_sagemaker.compat import driver_master, sts_address
from local_sagemaker.hosts.isolation import Isolation
from local_sagemaker.jobs.attempt import Settings
from local_sagemaker.jobs.job_queue import JobQueue
from moto.sagemaker.responses import SageMakerResponse
from moto.sts import urls as sts_urls
from sagemaker.core.helper.session_helper import Session, get_execution_role
from sagemaker.train import container_drivers

ENDPOINT = "http://127.0.0.1:9"
FIXED_PORT = 7777


class Asked(Exception):
    """An STS client was created; the message is its address."""


class AskingSession(boto3.Session):
    """A boto3 session that raises Asked instead of creating an STS client."""

    def client(self, service_name: str, *arguments, **options) -> object:
        client = super().client(service_name, *arguments, **options)
        if service_name == "sts":
            raise Asked(client.meta.endpoint_url)
        return client


@pytest.fixture
def session(monkeypatch) -> Session:
    """The SDK's session with AWS_ENDPOINT_URL set, as a newcomer would set it."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ENDPOINT_URL", ENDPOINT)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "local")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "local")
    return Session(boto_session=AskingSession(region_name="us-east-1"))


def sts_address_of(ask: Callable[[], object]) -> str:
    with pytest.raises(Asked) as asked:
        ask()
    return str(asked.value)


def test_the_sdks_sts_clients_do_not_follow_the_endpoint_by_themselves(session):
    assert boto3.client("sts", region_name="us-east-1").meta.endpoint_url == ENDPOINT, "boto3's own do"
    asking = {
        "account_id": session.account_id,
        "default_bucket": session.default_bucket,
        "get_execution_role": lambda: get_execution_role(session),
    }
    before = {name: sts_address_of(ask) for name, ask in asking.items()}
    assert ENDPOINT not in before.values(), f"remove local_sagemaker/compat/sts_address.py: {before}"

    restore = sts_address.follow_endpoint(ENDPOINT)
    try:
        assert {name: sts_address_of(ask) for name, ask in asking.items()} == dict.fromkeys(asking, ENDPOINT)
    finally:
        restore()
    assert {name: sts_address_of(ask) for name, ask in asking.items()} == before


@pytest.fixture
def container(tmp_path) -> Path:
    """A folder in place of /opt/ml with the SDK's drivers, which are changed only as to that path."""
    drivers = tmp_path / "input" / "data" / "sm_drivers"
    shutil.copytree(Path(container_drivers.__file__).parent, drivers)
    (drivers / "sourcecode.json").write_text("{}")
    (drivers / "distributed.json").write_text("{}")
    for file in drivers.rglob("*.py"):
        file.write_text(file.read_text().replace("/opt/ml", str(tmp_path)))
    config = tmp_path / "input" / "config"
    config.mkdir()
    resources = {
        "current_host": "algo-1",
        "hosts": ["algo-1", "algo-2"],
        "current_instance_type": "ml.m5.large",
        "network_interface_name": "lo",
    }
    for name, content in {"resourceconfig": resources, "inputdataconfig": {}, "hyperparameters": {}}.items():
        (config / f"{name}.json").write_text(json.dumps(content))
    return tmp_path


def drivers_of(container: Path) -> Path:
    return container / "input" / "data" / "sm_drivers"


def meeting_point(container: Path) -> tuple[str, int]:
    """The address and port that the drivers give to a job whose own environment asks for others."""
    wanted = {"SM_MASTER_ADDR": "10.0.0.1", "SM_MASTER_PORT": "1234", "TRAINING_JOB_NAME": "job"}
    script = drivers_of(container) / driver_master.ENVIRONMENT
    subprocess.run([sys.executable, script], env={**os.environ, **wanted}, check=True, capture_output=True)
    lines = (container / "input" / "sm_training.env").read_text().splitlines()
    values = dict(line.removeprefix("export ").split("=", 1) for line in lines)
    return values["SM_MASTER_ADDR"].strip("'"), int(values["SM_MASTER_PORT"].strip("'"))


def masters(container: Path, address: str, monkeypatch) -> list[str]:
    """The hosts that the drivers' `is_master_node` takes for the master."""
    file = drivers_of(container) / driver_master.UTILS
    spec = importlib.util.spec_from_file_location("driver_utils", file)
    utils = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(utils)
    monkeypatch.setenv("SM_MASTER_ADDR", address)
    found = []
    for host in ("algo-1", "algo-2"):
        monkeypatch.setenv("SM_CURRENT_HOST", host)
        assert utils.is_master_node() != utils.is_worker_node()
        found += [host] if utils.is_master_node() else []
    return found


def test_the_drivers_fix_the_port_and_the_address(container):
    address, port = meeting_point(container)
    assert port == FIXED_PORT, f"remove set_master_port of driver_master.py: the drivers chose port {port}"
    assert address == "algo-1", f"remove set_master_address of driver_master.py: they chose {address}"
    driver_master.set_master_port(drivers_of(container), 4321)
    assert meeting_point(container) == ("algo-1", 4321)
    driver_master.set_master_address(drivers_of(container), "127.0.0.1")
    assert meeting_point(container) == ("127.0.0.1", 4321)


def test_with_an_address_in_place_of_its_name_the_drivers_find_no_master(container, monkeypatch):
    assert masters(container, "algo-1", monkeypatch) == ["algo-1"]
    found = masters(container, "127.0.0.1", monkeypatch)
    assert found == [], f"remove MASTER_CHECK of driver_master.py: the drivers take {found} for the master"
    driver_master.set_master_address(drivers_of(container), "127.0.0.1")
    assert masters(container, "127.0.0.1", monkeypatch) == ["algo-1"]


def test_other_drivers_are_refused_and_jobs_without_drivers_left_alone(container):
    driver_master.set_master_port(drivers_of(container), 4321)
    with pytest.raises(driver_master.UnknownDrivers, match="environment.py .* does not contain .*7777"):
        driver_master.set_master_port(drivers_of(container), 4322)
    shutil.rmtree(drivers_of(container))
    driver_master.set_master_port(drivers_of(container), 4321)
    driver_master.set_master_address(drivers_of(container), "127.0.0.1")
    assert not drivers_of(container).exists()


def test_a_moto_with_other_methods_is_refused(monkeypatch, tmp_path):
    settings = Settings(ENDPOINT, tmp_path, Isolation("rewrite"))
    training = TrainingService(settings, JobQueue(1))
    monkeypatch.setattr(sts_urls, "url_paths", {"{0}/$": None, "{0}/new$": None})
    monkeypatch.delattr(SageMakerResponse, "list_training_jobs")
    with pytest.raises(
        operations.UnknownMoto, match=r"lacks SageMakerResponse.list_training_jobs, moto.sts.urls"
    ):
        operations.install(training)
    monkeypatch.setattr(operations, "MOTO_VERSION", "5.0.0")
    with pytest.raises(operations.UnknownMoto, match="made for moto 5.0.0"):
        operations.install(training)
