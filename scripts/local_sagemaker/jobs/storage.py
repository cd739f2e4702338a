"""Clients for the endpoint's own S3 and CloudWatch Logs, and the few S3 things that jobs need."""

import contextlib
import functools
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.client import BaseClient

from local_sagemaker.api.calls import SERVICE_KEY

ONE_THREAD = TransferConfig(use_threads=False)  # the server is in this very process


@functools.cache
def aws_client(service: str, url: str, region: str, key: str = SERVICE_KEY) -> BaseClient:
    """A boto3 client of the endpoint at `url`, with dummy credentials; created once, safe to share between threads.

    By the access key `key` the record of calls (api/calls.py) knows who asks.
    """
    return boto3.session.Session().client(
        service,
        region_name=region,
        endpoint_url=url,
        aws_access_key_id=key,
        aws_secret_access_key="local",
    )


def split_uri(uri: str) -> tuple[str, str]:
    """("bucket", "key/prefix") of an s3:// address."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key


def list_keys(s3: BaseClient, bucket: str, prefix: str) -> Iterator[str]:
    """Keys below `prefix` in order, without the markers that consoles create for folders."""
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        yield from (entry["Key"] for entry in page.get("Contents", []) if not entry["Key"].endswith("/"))


def inside(folder: Path, relative: str) -> Path:
    """`folder`/`relative`. Raises ValueError if a key such as a/../../b would lead out of the folder."""
    target = folder / relative
    if not Path(os.path.normpath(target)).is_relative_to(folder):
        raise ValueError(f"S3 key '{relative}' leads out of its folder")
    return target


def download(s3: BaseClient, bucket: str, key: str, target: Path) -> None:
    """Fetch one object, making the folders it needs.

    With one request: boto3's download_file asks for the object's size first, and a job's source is a hundred small files.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    body = s3.get_object(Bucket=bucket, Key=key)["Body"]
    with contextlib.closing(body), open(target, "wb") as file:
        shutil.copyfileobj(body, file, length=1 << 20)


def upload(s3: BaseClient, source: Path, bucket: str, key: str) -> None:
    """Store one file; large ones go in parts."""
    s3.upload_file(str(source), bucket, key, Config=ONE_THREAD)
