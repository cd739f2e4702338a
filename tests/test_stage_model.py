"""stage_model.py: a model from the Hub (a server here that answers as it does), an asset or a folder lies in S3 as a channel."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
import stage_model
from endpoint_fixtures import s3_keys
from workshop.folders import SCRIPTS

pytestmark = [pytest.mark.endpoint, pytest.mark.timeout(120)]
BUCKET = "staged"
FILES = {
    "config.json": b"{}",
    "tokenizer.json": b"{}",
    "model-00001-of-00002.safetensors": b"1" * 5000,
    "model-00002-of-00002.safetensors": b"2" * 5000,
    "pytorch_model.bin": b"pickle",
    "consolidated.safetensors": b"again",
    "onnx/model.json": b"{}",
    "README.md": b"x",
}
SHA = "0123456789abcdef0123456789abcdef01234567"
REFUSED = {"org/gated": (403, "GatedRepo"), "org/private": (401, "RepoNotFound")}
TOKEN = "hf_right"


class Hub(http.server.BaseHTTPRequestHandler):
    """org/open for everyone, org/gated with the token, org/pickle without safetensors."""

    downloads: list[str] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        words = path.strip("/").split("/")
        repo = "/".join(words[2:4]) if words[0] == "api" else "/".join(words[:2])
        allowed = self.headers.get("Authorization") == f"Bearer {TOKEN}"
        if repo in REFUSED and not allowed:
            status, code = REFUSED[repo]
            return self._send(status, b"", {"X-Error-Code": code})
        if words[0] == "api":
            files = {"a.bin": b"x", "config.json": b"{}"} if repo == "org/pickle" else FILES
            siblings = [{"rfilename": name, "size": len(content)} for name, content in files.items()]
            info = {
                "id": repo,
                "modelId": repo,
                "sha": SHA,
                "siblings": siblings,
                "tags": [],
                "private": False,
            }
            return self._send(200, json.dumps(info).encode(), {"Content-Type": "application/json"})
        name = "/".join(words[4:])
        if self.command == "GET":
            self.downloads.append(name)
        etag = hashlib.sha256(FILES[name]).hexdigest()
        return self._send(200, FILES[name], {"ETag": f'"{etag}"', "X-Repo-Commit": words[3]})

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def hub() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.fixture
def stage(endpoint, hub, tmp_path):
    """stage(model, uri, VARIABLE=...): the command, run with the tests' Hub and S3."""
    boto3.client("s3").create_bucket(Bucket=BUCKET)
    Hub.downloads.clear()

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess:
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        return subprocess.run(
            [sys.executable, str(SCRIPTS / "stage_model.py"), *arguments],
            env={**inherited, "HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "hf"), **variables},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def names(prefix: str) -> list[str]:
    return sorted(key.removeprefix(f"{prefix}/") for key in s3_keys(f"s3://{BUCKET}/{prefix}/"))


def body(key: str) -> bytes:
    return boto3.client("s3").get_object(Bucket=BUCKET, Key=key)["Body"].read()


def test_the_weights_and_tokenizer_of_a_model_on_the_hub_are_staged(stage):
    result = stage("hub:org/open", f"s3://{BUCKET}/models/open")
    assert result.returncode == 0, result.stderr
    assert names("models/open") == [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "staged.json",
        "tokenizer.json",
    ]
    assert body("models/open/model-00002-of-00002.safetensors") == b"2" * 5000
    assert json.loads(body("models/open/staged.json")) == {"model": "hub:org/open", "revision": SHA}
    assert f'InputData(channel_name="model", data_source="s3://{BUCKET}/models/open/")' in result.stdout
    assert '"base_model": "channel:model"' in result.stdout


def test_what_is_there_is_not_fetched_again(stage):
    uri = f"s3://{BUCKET}/models/again"
    assert stage("hub:org/open", uri).returncode == 0
    boto3.client("s3").delete_object(Bucket=BUCKET, Key="models/again/model-00002-of-00002.safetensors")
    Hub.downloads.clear()
    result = stage("hub:org/open", uri)
    assert "to upload: 1" in result.stdout
    assert Hub.downloads == ["model-00002-of-00002.safetensors"]
    assert "model-00002-of-00002.safetensors" in names("models/again")


def test_another_model_is_not_mixed_in(stage, capsys):
    uri = f"s3://{BUCKET}/models/mixed"
    assert stage("hub:org/open", uri).returncode == 0
    assert stage_model.main(["asset:tiny", uri]) == 1
    assert f"holds hub:org/open (revision {SHA}), not asset:tiny" in capsys.readouterr().err
    boto3.client("s3").put_object(Bucket=BUCKET, Key="other/notes.txt", Body=b"x")
    assert stage_model.main(["asset:tiny", f"s3://{BUCKET}/other"]) == 1
    assert "holds other files, such as notes.txt" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("hub:org/gated", "hub:org/gated is not open to everyone. Accept its terms"),
        ("hub:org/private", "no model 'org/private' that you may see"),
        ("hub:org/pickle", "no weights as safetensors"),
        ("hub:a/b/c", "is no name on the Hub"),
    ],
)
def test_what_cannot_be_had_is_refused_with_what_to_do(stage, model, message):
    result = stage(model, f"s3://{BUCKET}/models/x")
    assert (result.returncode, result.stdout) == (1, "")
    assert message in result.stderr
    assert names("models/x") == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("no/such/folder", "There is no folder no/such/folder"),
        (str(Path(__file__).parent), "it has no config.json"),
    ],
)
def test_a_folder_that_is_no_model_is_refused(model, message, capsys):
    assert stage_model.main([model, f"s3://{BUCKET}/models/x"]) == 1
    assert message in capsys.readouterr().err


def test_a_token_opens_a_gated_model(stage):
    assert stage("hub:org/gated", f"s3://{BUCKET}/models/token", HF_TOKEN=TOKEN).returncode == 0
    secrets = boto3.client("secretsmanager")
    secrets.create_secret(Name="rl-workshop/huggingface", SecretString=TOKEN)
    result = stage("hub:org/gated", f"s3://{BUCKET}/models/secret", HF_SECRET_NAME="rl-workshop/huggingface")
    assert result.returncode == 0, result.stderr
    assert TOKEN not in result.stdout + result.stderr
    assert (
        "no-such-secret"
        in stage("hub:org/gated", f"s3://{BUCKET}/m/y", HF_SECRET_NAME="no-such-secret").stderr
    )


def test_an_asset_is_staged_as_it_is(stage):
    assert stage_model.main(["asset:tiny", f"s3://{BUCKET}/models/tiny"]) == 0
    folder = SCRIPTS / "assets" / "tiny"
    expected = sorted(path.name for path in folder.iterdir() if path.name != "README.md")
    assert sorted({*names("models/tiny")} - {"staged.json"}) == expected
    assert all(body(f"models/tiny/{name}") == (folder / name).read_bytes() for name in expected)


@pytest.mark.parametrize("uri", ["models/x", "s3://staged", "s3://staged/", "https://staged/x"])
def test_a_place_that_is_none_is_refused(uri, capsys):
    assert stage_model.main(["asset:tiny", uri]) == 1
    assert "write s3://BUCKET/FOLDER" in capsys.readouterr().err


def test_a_bucket_that_is_not_there_is_named(stage, capsys):
    result = stage("asset:tiny", "s3://no-such-bucket-here/models/x")
    assert (result.returncode, "s3://no-such-bucket-here/models/x cannot be written to" in result.stderr) == (
        1,
        True,
    )


def test_a_disk_that_is_too_small_is_found_before_the_download(stage, monkeypatch):
    usage = stage_model.shutil.disk_usage("/")._replace(free=10)
    files = {"m.safetensors": 5000, "config.json": 2}
    source = stage_model.Source("hub:org/x", SHA, files, lambda *_: pytest.fail("it was downloaded"))
    monkeypatch.setattr(stage_model.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(stage_model, "_from_hub", lambda _: source)
    with pytest.raises(stage_model.StagingError, match="no room for it. Set TMPDIR"):
        stage_model.stage("hub:org/x", f"s3://{BUCKET}/models/large")
