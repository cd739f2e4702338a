"""Preflight of data in S3: read and checked as data here is, or said why not."""

import gzip
import itertools
import json
from pathlib import Path

import boto3
import pytest
from botocore.exceptions import ClientError
from data_requests import found, written_problems
from sagemaker.core.shapes import S3DataSource
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING

_BUCKETS = itertools.count()


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> dict[str, str]:
    return written_problems(tmp_path_factory.mktemp("data"))


@pytest.fixture
def bucket(endpoint) -> str:
    name = f"data-checks-{next(_BUCKETS)}"
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def put(bucket: str, key: str, content: Path | bytes) -> None:
    content = content if isinstance(content, bytes) else content.read_bytes()
    boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


def test_data_in_s3_is_checked_as_data_here_is(bucket, folders):
    for name, folder in folders.items():
        put(bucket, f"data/{name}/{name}.jsonl", Path(folder) / f"{name}.jsonl")
        put(bucket, f"data/{name}/{name}.parquet", Path(folder) / f"{name}.parquet")
    put(bucket, "data/testing/other.jsonl", b"{}")  # begins as the folder does, and is no part of it
    put(bucket, "data/test/", b"")
    there = {name: f"s3://{bucket}/data/{name}" for name in folders}
    assert found(there) == found(folders)
    assert found({**folders, "test": f"s3://{bucket}/data/test/"}) == found(folders)
    assert found({**folders, "test": f"s3://{bucket}/data/test/test.parquet"}) == found(folders)
    source = S3DataSource(s3_data_type="S3Prefix", s3_uri=f"s3://{bucket}/data/test/t")
    assert found({**folders, "test": source}) == found(folders)
    twice = found({**folders, "test": f"s3://{bucket}/data/train"})
    assert "12 questions are in both 'train' and 'test'" in twice[-1][2]


def test_bad_data_in_s3_is_named_by_its_address(bucket, folders):
    good = json.loads((Path(folders["train"]) / "train.jsonl").read_text().splitlines()[0])
    put(bucket, "bad/train.jsonl", (json.dumps(good) + '\n{"question": 3}\n').encode())
    put(bucket, "packed/train.jsonl.gz", gzip.compress(b"{}"))
    ((_, status, detail),) = found({"train": f"s3://{bucket}/bad"})
    assert (
        status == PROBLEM
        and f"s3://{bucket}/bad/train.jsonl, line 2: the field 'prompt' is missing" in detail
    )
    ((_, status, detail),) = found({"train": f"s3://{bucket}/packed"})
    assert status == PROBLEM and f"rows_from('s3://{bucket}/packed/train.jsonl.gz')" in detail
    ((_, status, detail),) = found({"train": f"s3://{bucket}/nothing"})
    assert (status, detail) == (PROBLEM, f"there is nothing at s3://{bucket}/nothing")
    ((_, status, detail),) = found({"train": "s3://no-such-bucket-here/x"})
    assert (status, detail) == (PROBLEM, "there is no bucket no-such-bucket-here")


def test_what_is_large_in_s3_or_a_manifest_is_noted(bucket, folders, monkeypatch):
    monkeypatch.setattr("workshop.checks.data_checks.MOST_BYTES", 3_500)
    sizes = {name: (Path(folder) / f"{name}.jsonl").stat().st_size for name, folder in folders.items()}
    assert sizes["test"] < 3_500 < sum(sizes.values())
    for name, folder in folders.items():
        put(bucket, f"{name}/{name}.jsonl", Path(folder) / f"{name}.jsonl")
    checks = found({"test": f"s3://{bucket}/test", "train": f"s3://{bucket}/train"})
    assert [status for _, status, _ in checks] == [OK, NOTE]  # the limit is for all together
    assert "too much to fetch and look at from here" in checks[-1][2]
    ((_, status, detail),) = found(
        {"train": S3DataSource(s3_data_type="ManifestFile", s3_uri=f"s3://{bucket}/train/train.jsonl")}
    )
    assert status == NOTE and "is a manifest" in detail


def test_data_that_may_not_be_read_is_a_warning(folders):
    class Denied:
        def client(self, name):
            raise ClientError({"Error": {"Code": "AccessDenied", "Message": "no"}}, "ListObjectsV2")

    ((_, status, detail),) = found({"train": "s3://theirs/train"}, session=Denied())
    assert status == WARNING and "s3://theirs/train cannot be looked at from here" in detail
