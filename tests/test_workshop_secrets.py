"""What is taken for a secret in a request, and what the endpoint and the installers are not handed."""

import json
import os
import subprocess
import sys

import pytest
from job_variables import SHARED
from local_sagemaker.environments.installer import run_installer
from local_sagemaker.secret_names import is_secret, without_secrets
from workshop.secrets import secret_in

GIVEN_AWAY = {
    "GITHUB_PAT": "anything",
    "WANDB_API_KEY": "anything",
    "hf_token": "anything",
    "DB_PASSWORD": "anything",
    "GOOGLE_APPLICATION_CREDENTIALS": "/key.json",
    "MLFLOW_TRACKING_URI": "https://me:hunter2@mlflow.example.com",
    "BROKER": "amqp://:hunter2@broker",
    "NOTE": "the token is " + "ghp_" + "a1B2" * 9,
    "MODEL_SOURCE": "hf_" + "a1B2" * 9,
}
HARMLESS = {
    "WANDB_SECRET_NAME": "rl-workshop/wandb",
    "HF_SECRET_NAME": "arn:aws:secretsmanager:us-east-1:123456789012:secret:hf-AbCdEf",
    "eos_token": "<|im_end|>",
    "max_new_tokens": 96,
    "PATH": "/usr/bin",
    "PATTERN": "x",
    "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
    "STORE": "sqlite:////tmp/mlflow.db",
    "MIRROR": "https://user:${TOKEN}@example.com",
    "MAIL": "a@b.example",
    "base_model": "hub:org/hf_model_with_a_name",
    "overrides": ["data.seed=1"],
}


@pytest.mark.parametrize("name", GIVEN_AWAY)
def test_what_gives_a_secret_away(name):
    found = secret_in(name, GIVEN_AWAY[name])
    assert found and "hunter2" not in found and "a1B2" not in found


@pytest.mark.parametrize("name", HARMLESS)
def test_what_gives_nothing_away(name):
    assert secret_in(name, HARMLESS[name]) is None


def test_installers_keep_their_own_settings():
    variables = {
        "PIP_INDEX_URL": "https://me:pw@index",
        "UV_INDEX_OWN_PASSWORD": "pw",
        "GITHUB_TOKEN": "x",
        "HOME": "/h",
    }
    assert set(without_secrets(variables)) == {"PIP_INDEX_URL", "UV_INDEX_OWN_PASSWORD", "HOME"}


def test_what_a_package_runs_while_it_is_built_gets_no_keys(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "x")
    monkeypatch.setenv("UV_INDEX_OWN_PASSWORD", "x")
    shown = tmp_path / "variables.json"
    code = f"import json, os; json.dump(dict(os.environ), open({str(shown)!r}, 'w'))"
    with open(tmp_path / "lock", "w") as lock:
        run_installer([sys.executable, "-c", code], tmp_path, None, lock.fileno())
    variables = json.loads(shown.read_text())
    assert "HF_TOKEN" not in variables and "UV_INDEX_OWN_PASSWORD" in variables


@pytest.mark.endpoint
@pytest.mark.timeout(120)
def test_the_endpoint_gets_no_keys_of_the_kernel(tmp_path):
    """Read from the process itself, started as a notebook starts it."""
    code = (
        "import psutil\n"
        "from local_sagemaker import client\n"
        f"names = psutil.Process(client.ensure_endpoint({str(tmp_path)!r}).pid).environ()\n"
        f"client.shutdown({str(tmp_path)!r})\n"
        "print('PATH' in names, 'HF_TOKEN' in names, 'GITHUB_PAT' in names)"
    )
    variables = {**os.environ, "PYTHONPATH": str(SHARED), "HF_TOKEN": "x", "GITHUB_PAT": "x"}
    shown = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=100
    )
    assert shown.stdout.split() == ["True", "False", "False"], shown.stderr[-2000:]


def test_names():
    assert is_secret("MY_PAT") and is_secret("PAT") and not is_secret("COMPAT") and not is_secret("PATCH")
