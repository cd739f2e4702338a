"""The results of a job: model.tar.gz from /opt/ml/model and output.tar.gz from /opt/ml/output/data."""

import tarfile
from pathlib import Path

from botocore.client import BaseClient

from local_sagemaker.jobs.storage import split_uri, upload

GZIP_LEVEL = 1  # the fastest: weights hardly compress, and level 9 takes ten times as long


def upload_archive(s3: BaseClient, name: str, folders: list[Path], uri: str, keep: Path) -> str | None:
    """Pack the hosts' `folders` into one archive, keep it in `keep`, and upload it below `uri`.

    Returns the archive's s3:// address, or None if all folders are empty. Where several hosts have a file of the
    same path, the first host's is taken.
    """
    members: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            members.setdefault(str(path.relative_to(folder)), path)
    if not members:
        return None
    archive = keep / name
    keep.mkdir(parents=True, exist_ok=True)
    with tarfile.open(archive, "w:gz", compresslevel=GZIP_LEVEL) as tar:
        for relative, path in sorted(members.items()):
            tar.add(path, relative, recursive=False)
    bucket, prefix = split_uri(uri)
    key = f"{prefix.rstrip('/')}/{name}".lstrip("/")
    upload(s3, archive, bucket, key)
    return f"s3://{bucket}/{key}"
