"""Secrets of a job: read by name in the job's own region, in every process that needs one, and shown nowhere."""

import http.server
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import boto3
import pytest
from job.secrets import SecretError, provide_hub_token, read_secret
from job_variables import job_variables
from moto import mock_aws
from moto.server import ThreadedMotoServer

SCRIPTS = Path(__file__).parents[1] / "scripts"
KEY = "0123456789abcdef0123456789abcdef01234567"
TOKEN = "hf_abcdefghijklmnopqrstuvwxyz01234567"


@pytest.fixture
def secrets(monkeypatch):
    """A client of moto's Secrets Manager in this process, for which only AWS_REGION is set, as in a training container."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_PROFILE", "HF_SECRET_NAME", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    with mock_aws():
        yield boto3.client("secretsmanager", region_name="eu-central-1")


@pytest.mark.parametrize("text", [KEY, f"{KEY}\n", json.dumps({"WANDB_API_KEY": KEY, "other": "x"})])
def test_secret_as_text_or_as_one_key_of_an_object(secrets, text):
    secrets.create_secret(Name="wandb", SecretString=text)
    assert read_secret("wandb", "WANDB_API_KEY") == KEY


def test_a_secret_of_another_region_is_not_found(secrets, monkeypatch):
    secrets.create_secret(Name="wandb", SecretString=KEY)
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    with pytest.raises(SecretError, match="Does it exist in this region"):
        read_secret("wandb", "WANDB_API_KEY")


def test_unusable_secrets_are_named_and_their_values_are_not_shown(secrets):
    with pytest.raises(SecretError, match="'nosuch' could not be read.*GetSecretValue"):
        read_secret("nosuch", "WANDB_API_KEY")
    secrets.create_secret(Name="binary", SecretBinary=b"abc")
    with pytest.raises(SecretError, match="'binary' could not be read"):
        read_secret("binary", "WANDB_API_KEY")
    secrets.create_secret(Name="other", SecretString=json.dumps({"token": KEY}))
    with pytest.raises(SecretError, match="without the key WANDB_API_KEY") as refused:
        read_secret("other", "WANDB_API_KEY")
    assert KEY not in str(refused.value)


def test_the_hubs_token_is_read_only_where_it_is_named_and_not_set(secrets, monkeypatch):
    secrets.create_secret(Name="hub", SecretString=json.dumps({"HF_TOKEN": TOKEN}))
    provide_hub_token()
    assert "HF_TOKEN" not in os.environ
    monkeypatch.setenv("HF_SECRET_NAME", "hub")
    monkeypatch.setenv("HF_TOKEN", "my own")
    provide_hub_token()
    assert os.environ["HF_TOKEN"] == "my own"
    monkeypatch.delenv("HF_TOKEN")
    provide_hub_token()
    assert os.environ["HF_TOKEN"] == TOKEN
    monkeypatch.delenv("HF_TOKEN")


@pytest.fixture
def hub():
    """A Hub that has nothing: its address, and what it was asked with."""
    asked: list[tuple[str, str | None]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            asked.append((self.path, self.headers.get("Authorization")))
            self.send_response(404)
            self.send_header("Content-Length", "0")
            self.end_headers()

        do_GET = do_HEAD

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()


@pytest.fixture
def hubs_secret(monkeypatch):
    """A job's variables for AWS (moto, in a server), where a secret `hub` holds the token."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    keys = {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "AWS_CONFIG_FILE": os.devnull}
    variables = {"AWS_ENDPOINT_URL": f"http://{host}:{port}", "AWS_REGION": "eu-central-1", **keys}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("secretsmanager", region_name="eu-central-1")
    client.create_secret(Name="hub", SecretString=TOKEN)
    yield {**variables, "HF_SECRET_NAME": "hub"}
    client.delete_secret(SecretId="hub", ForceDeleteWithoutRecovery=True)
    server.stop()


@pytest.mark.job
@pytest.mark.timeout(500)
@pytest.mark.parametrize("rank", ["0", "1"])
def test_every_process_of_a_job_asks_the_hub_with_the_token_of_the_secret(hub, hubs_secret, rank, tmp_path):
    address, asked = hub
    code = "from job.models import load_tokenizer\nload_tokenizer('hub:somebody/gated')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env=job_variables(HF_ENDPOINT=address, HF_HOME=str(tmp_path / "hub"), RANK=rank, **hubs_secret),
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert "ModelNotFound" in done.stderr and "HF_SECRET_NAME" in done.stderr
    of_the_model = {token for path, token in asked if "somebody/gated" in path}
    assert of_the_model == {f"Bearer {TOKEN}"}, asked
    assert TOKEN not in done.stdout + done.stderr
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or TOKEN.encode() not in path.read_bytes(), path
