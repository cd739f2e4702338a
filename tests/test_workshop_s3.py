"""Addresses in S3, and that what several modules need is written once."""

from pathlib import Path

import pytest
from workshop.s3 import split_uri

SCRIPTS = Path(__file__).resolve().parents[1] / "scripts"


@pytest.mark.parametrize(
    ("uri", "parts"),
    [
        ("s3://bucket/a/b.jsonl", ("bucket", "a/b.jsonl")),
        ("s3://bucket/a/", ("bucket", "a/")),
        ("s3://bucket", ("bucket", "")),
        ("s3://", ("", "")),
    ],
)
def test_an_address_has_a_bucket_and_a_key(uri, parts):
    assert split_uri(uri) == parts


@pytest.mark.parametrize(
    ("text", "files"),
    [
        # The endpoint stands for AWS and imports nothing of the workshop.
        ('removeprefix("s3://").partition', ["local_sagemaker/jobs/storage.py", "workshop/s3.py"]),
        ("TelemetryOptOut", ["workshop/session/telemetry.py"]),
    ],
)
def test_it_is_written_once(text, files):
    found = [path for path in SCRIPTS.rglob("*.py") if text in path.read_text(encoding="utf-8")]
    assert sorted(str(path.relative_to(SCRIPTS)) for path in found) == files
