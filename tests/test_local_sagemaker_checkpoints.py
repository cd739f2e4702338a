"""Checkpoint folders and S3 kept alike, and what S3 keys may not do; on the endpoint's own S3."""

import errno
import os
import threading
import time

import boto3
import pytest
from endpoint_fixtures import put_text, s3_keys
from local_sagemaker.api.training_request import Channel
from local_sagemaker.jobs import checkpoints
from local_sagemaker.jobs.channels import ChannelError, fetch_channel, find_objects
from local_sagemaker.jobs.checkpoints import FRESH_NS, CheckpointSync
from local_sagemaker.jobs.storage import inside

pytestmark = pytest.mark.endpoint


@pytest.fixture
def bucket(endpoint, request):
    name = request.node.name.replace("_", "-").lower()[-60:].strip("-")
    boto3.client("s3").create_bucket(Bucket=name)
    return name


def text_of(uri: str) -> str:
    name, _, key = uri.removeprefix("s3://").partition("/")
    return boto3.client("s3").get_object(Bucket=name, Key=key)["Body"].read().decode()


def settle() -> None:
    """Wait until nothing that was written counts as fresh."""
    time.sleep(FRESH_NS / 1e9 + 0.05)


def test_a_file_that_is_being_written_is_not_uploaded(bucket, tmp_path):
    sync = CheckpointSync(boto3.client("s3"), f"s3://{bucket}/ck", [tmp_path])
    file = tmp_path / "step-1" / "model.bin"
    file.parent.mkdir()
    for size in (1, 2, 3):
        file.write_text("x" * size)
        sync.sync()
        assert s3_keys(f"s3://{bucket}/ck") == [], "it grew since the last scan"
    sync.sync()
    assert s3_keys(f"s3://{bucket}/ck") == [], "it may change again within the same tick of the clock"
    settle()
    sync.sync()
    assert text_of(f"s3://{bucket}/ck/step-1/model.bin") == "xxx"
    file.write_text("y" * 9)
    sync.sync()
    assert text_of(f"s3://{bucket}/ck/step-1/model.bin") == "xxx", (
        "the old one stays until the new one is whole"
    )
    sync.sync(everything=True)
    assert text_of(f"s3://{bucket}/ck/step-1/model.bin") == "y" * 9


def test_a_checkpoint_that_is_deleted_during_the_scan(bucket, tmp_path, monkeypatch):
    sync = CheckpointSync(boto3.client("s3"), f"s3://{bucket}/ck", [tmp_path])
    for step in ("step-1", "step-2"):
        (tmp_path / step).mkdir()
        (tmp_path / step / "model.bin").write_text(step)
    scan = os.scandir

    def deleted_before(path):
        if str(path).endswith("step-1"):
            (tmp_path / "step-1" / "model.bin").unlink()
            (tmp_path / "step-1").rmdir()
        return scan(path)

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", deleted_before)
        sync.sync(everything=True)
    assert s3_keys(f"s3://{bucket}/ck") == ["ck/step-2/model.bin"]


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(bucket, tmp_path, monkeypatch):
    sync = CheckpointSync(boto3.client("s3"), f"s3://{bucket}/ck", [tmp_path])
    (tmp_path / "model.bin").write_text("1")
    sync.sync(everything=True)

    def fail(path):
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", fail)
        with pytest.raises(OSError, match="Too many open files"):
            sync.sync(everything=True)
    assert s3_keys(f"s3://{bucket}/ck") == ["ck/model.bin"]


def test_no_torn_file_reaches_s3_while_a_writer_is_at_work(bucket, tmp_path):
    """A writer that rewrites a file in place all the time: whatever S3 shows at the end of it is whole."""
    sync = CheckpointSync(boto3.client("s3"), f"s3://{bucket}/ck", [tmp_path])
    over = threading.Event()

    def write() -> None:
        version = 0
        while not over.is_set():
            version += 1
            with open(tmp_path / "state", "w") as file:
                for _ in range(50):
                    file.write(f"{version:04d}" * 100)
                    file.flush()

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(20):
            sync.sync()
    finally:
        over.set()
        writer.join()
    settle()
    sync.sync()
    sync.sync()
    text = text_of(f"s3://{bucket}/ck/state")
    assert text == text[:4] * 5000 == (tmp_path / "state").read_text()


def test_markers_as_the_services_agent_puts_them_lie_beside_the_files_and_stay_there(
    bucket, tmp_path, monkeypatch
):
    """FILE.sagemaker-uploading while FILE is uploaded, FILE.sagemaker-uploaded after it; neither is in S3."""
    seen, upload = [], checkpoints.upload

    def watched(*arguments):
        seen.extend(sorted(path.name for path in tmp_path.iterdir()))
        upload(*arguments)

    monkeypatch.setattr(checkpoints, "upload", watched)
    sync = CheckpointSync(boto3.client("s3"), f"s3://{bucket}/ck", [tmp_path])
    (tmp_path / "state").write_text("1")
    (tmp_path / "state.sagemaker-ignore").write_text("a program's own")
    for _ in range(2):
        sync.sync(everything=True)
    assert seen == ["state", "state.sagemaker-ignore", "state.sagemaker-uploading"]
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"state", "state.sagemaker-ignore", "state.sagemaker-uploaded"}
    assert s3_keys(f"s3://{bucket}/ck") == ["ck/state"]
    (tmp_path / "state").unlink()
    sync.sync()
    assert [path.name for path in tmp_path.iterdir()] == ["state.sagemaker-ignore"]
    assert s3_keys(f"s3://{bucket}/ck") == []


def test_deletions_renames_and_two_hosts(bucket, tmp_path):
    put_text(f"s3://{bucket}/ck/old", "old")
    folders = [tmp_path / "algo-1", tmp_path / "algo-2"]
    for folder in folders:
        folder.mkdir()
    sync = CheckpointSync(boto3.client("s3"), f"s3://{bucket}/ck/", folders)
    assert sync.restore() == 1
    assert [(folder / "old").read_text() for folder in folders] == ["old", "old"]
    (folders[0] / "part.tmp").write_text("new")
    sync.sync()
    (folders[0] / "part.tmp").rename(folders[0] / "new")
    (folders[0] / "old").unlink()
    (folders[1] / "rank-1").write_text("1")
    settle()
    sync.sync()
    sync.sync()
    assert s3_keys(f"s3://{bucket}/ck/") == ["ck/new", "ck/rank-1"], (
        "the other host's old copy is not put back"
    )


def channel(uri: str) -> Channel:
    return Channel("train", uri, manifest=False, sharded=False, config={})


def test_prefixes(bucket):
    for key in ("a/b/1", "a/b/2/3", "a/bc", "top"):
        put_text(f"s3://{bucket}/{key}", key)
    boto3.client("s3").put_object(Bucket=bucket, Key="a/b/")  # the marker of a console's "new folder"
    s3 = boto3.client("s3")

    def paths(prefix: str) -> list[str]:
        return [relative for _, _, relative in find_objects(s3, channel(f"s3://{bucket}{prefix}"))]

    assert paths("/a/b/") == ["1", "2/3"] and paths("/a/b/2") == ["3"]
    assert paths("/a/bc") == ["bc"] and paths("/top") == ["top"]
    assert paths("") == ["a/b/1", "a/b/2/3", "a/bc", "top"]
    assert paths("/a/b/2/") == ["3"]
    with pytest.raises(ChannelError, match="Channel 'train': no S3 objects found under"):
        paths("/nothing")


def test_a_prefix_that_means_more_than_its_folder_or_its_object_is_refused(bucket):
    for key in ("models/m/config.json", "models/m-base/config.json", "rows.jsonl", "rows.jsonl.old"):
        put_text(f"s3://{bucket}/{key}", key)
    s3, start = boto3.client("s3"), f"s3://{bucket}"
    with pytest.raises(
        ChannelError, match=f"{start}/models/m-base/config.json too.*Write {start}/models/m/, or"
    ):
        find_objects(s3, channel(f"{start}/models/m"))
    with pytest.raises(
        ChannelError, match=f"{start}/rows.jsonl.old too, .* Give one of the two another name"
    ):
        find_objects(s3, channel(f"{start}/rows.jsonl"))
    assert len(find_objects(s3, channel(f"{start}/models/m/"))) == 1
    with pytest.raises(ChannelError, match="cannot read s3://no-such-bucket/x"):
        find_objects(s3, channel("s3://no-such-bucket/x"))


def test_keys_cannot_lead_out_of_the_folder(bucket, tmp_path):
    put_text(f"s3://{bucket}/data/../../outside", "evil")
    with pytest.raises(ChannelError, match="leads out of its folder"):
        fetch_channel(boto3.client("s3"), channel(f"s3://{bucket}/data"), tmp_path / "in", 0, 1)
    assert not (tmp_path / "outside").exists()
    with pytest.raises(ValueError, match="leads out"):
        inside(tmp_path, "/etc/passwd")


def test_a_bad_manifest(bucket, tmp_path):
    put_text(f"s3://{bucket}/m", '{"prefix": "s3://x/"}')
    with pytest.raises(ChannelError, match="is not a manifest. It must be a JSON list"):
        find_objects(boto3.client("s3"), Channel("train", f"s3://{bucket}/m", True, False, {}))
