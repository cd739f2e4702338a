"""Preflight of what the job reads: the data of each channel, on this machine and in S3, and models of the Hub and of packages."""

import dataclasses
import http.server
import json
import threading

import boto3
import pytest
from preflight_findings import details, problems
from workshop.checks.preflight import preflight
from workshop.checks.request import OK, WARNING, read_request
from workshop.checks.request_checks import check_channels

SPLITS = {"train": 40, "test": 10}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b'{"prompt": [', "line 1: not a JSON object"),
        (b"\xff\xfe\n", "line 1: not UTF-8"),
        (b'{"question": 1}\n', "'prompt' is missing"),
    ],
)
def test_bad_data_is_named_by_file_and_line(make_request, data, tmp_path, content, message):
    (tmp_path / "bad.jsonl").write_bytes(content)
    found = problems(*make_request(channels={**data, "train": tmp_path / "bad.jsonl"}))
    assert "bad.jsonl" in found and message in found


def test_questions_in_both_splits_are_refused(make_request, data):
    message = problems(*make_request(channels={"train": data["train"], "test": data["train"]}))
    assert "40 questions are in both 'train' and 'test'" in message


def test_data_in_s3(make_request, data):
    bucket = "preflight-data"
    boto3.client("s3").create_bucket(Bucket=bucket)
    boto3.client("s3").upload_file(str(data["test"] / "test.jsonl"), bucket, "test/test.jsonl")
    there = {**data, "test": f"s3://{bucket}/test"}
    preflight(*make_request(channels=there))
    assert f"there is nothing at s3://{bucket}/tst" in problems(
        *make_request(channels={**data, "test": f"s3://{bucket}/tst"})
    )
    assert "there is no bucket no-such-bucket" in problems(
        *make_request(channels={**data, "test": "s3://no-such-bucket/test"})
    )


def test_an_address_that_means_two_folders(make_request, data):
    s3, bucket, told = (
        boto3.client("s3"),
        "preflight-prefixes",
        "is the beginning of s3://preflight-prefixes/rows-old/ too",
    )
    s3.create_bucket(Bucket=bucket)
    for folder in ("rows", "rows-old"):
        s3.upload_file(str(data["test"] / "test.jsonl"), bucket, f"{folder}/test.jsonl")
    trainer, channels = make_request(channels={**data, "test": f"s3://{bucket}/rows"})
    assert told in problems(trainer, channels)
    on_aws = dataclasses.replace(read_request(trainer, channels), local=False)
    (finding,) = check_channels(on_aws)
    assert finding.status == WARNING and told in finding.detail
    for address in ("rows/", "rows/test.jsonl", "rows-", "rows-old"):
        channels[-1].data_source = f"s3://{bucket}/{address}"
        assert not list(check_channels(read_request(trainer, channels)))


@pytest.mark.parametrize("name", ["code", "my-data"])
def test_channel_names(make_request, data, name):
    assert f"the channel name {name!r}" in problems(*make_request(channels={**data, name: data["test"]}))


def test_channels_read_under_a_condition_are_not_required(make_request, source, data):
    (source / "train.py").write_text('channel("train")\nif True:\n    channel("model")\n')
    preflight(*make_request(channels={"train": data["train"]}))


@pytest.fixture
def hub(monkeypatch):
    """An HTTP server that answers as the Hugging Face Hub's API does, and knows one public model and one private one."""

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            may = self.headers["Authorization"] == "Bearer hf_reader"
            known = self.path == "/api/models/Qwen/Qwen3-1.7B" or (
                self.path == "/api/models/ours/private" and may
            )
            self.send_response(200 if known else 401)
            self.end_headers()
            self.wfile.write(json.dumps({}).encode())

        def log_message(self, *arguments):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield server
    server.shutdown()
    server.server_close()


def test_models_on_the_hub(make_request, hub):
    assert "hub:Qwen/Qwen3-1.7B" in str(
        preflight(*make_request(hyperparameters={"base_model": "hub:Qwen/Qwen3-1.7B"}))
    )
    message = problems(*make_request(hyperparameters={"base_model": "hub:Qwen/Qwen3-1,7B"}))
    assert "no public model 'Qwen/Qwen3-1,7B'" in message


def test_a_private_model_on_the_hub_needs_the_jobs_secret(make_request, hub, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_reader\n")  # of this machine: no job has it
    private, secret = {"base_model": "hub:ours/private"}, {"HF_SECRET_NAME": "rl-workshop/huggingface"}
    assert "a private one needs HF_SECRET_NAME (docs/secrets.md)" in problems(
        *make_request(hyperparameters=private)
    )
    result = preflight(*make_request(hyperparameters=private, environment=secret))
    assert "hub:ours/private" in details(result.checks, "base_model", OK)
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody\nelse")
    result = preflight(*make_request(hyperparameters=private, environment=secret))
    said = details(result.checks, "base_model", WARNING)
    assert "hub:ours/private: not public, or misspelt; the job reads it with the secret's token" in said
    assert "hf_of_somebody" not in str(result)


def test_a_hub_out_of_reach_is_a_warning(make_request, hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    result = preflight(*make_request(hyperparameters={"base_model": "hub:Qwen/Qwen3-1.7B"}))
    assert "cannot be reached" in details(result.checks, "base_model", WARNING)


def test_the_packaged_models_are_those_that_jobs_know():
    from job.packaged import PACKAGES
    from workshop.checks.model_checks import PACKAGED_MODELS

    assert set(PACKAGED_MODELS) == set(PACKAGES)
