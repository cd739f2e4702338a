"""The results of a job, /opt/ml/model and /opt/ml/output/data: as model.tar.gz and output.tar.gz, or file by file."""

import tarfile
from pathlib import Path

from botocore.client import BaseClient

from local_sagemaker.jobs.storage import split_uri, upload

GZIP_LEVEL = 1  # the fastest: weights hardly compress, and level 9 takes ten times as long


def upload_archive(s3: BaseClient, name: str, folders: list[Path], uri: str, keep: Path) -> str | None:
    """Pack the hosts' `folders` into one archive, keep it in `keep`, and upload it below `uri`.

    Returns the archive's s3:// address, or None if all folders are empty.
    """
    members = _merged(folders)
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


def upload_files(s3: BaseClient, folders: list[Path], uri: str) -> str | None:
    """Upload the files of the hosts' `folders` below `uri`; returns it as a prefix, with / at its end, or None without files.

    The names that AWS gives these places with OutputDataConfig.CompressionType NONE, output/model and output/data, are
    those that people report; its documentation names none.
    """
    files = {relative: path for relative, path in _merged(folders).items() if path.is_file()}
    bucket, prefix = split_uri(uri)
    for relative, path in files.items():
        upload(s3, path, bucket, f"{prefix}/{relative}")
    return f"{uri}/" if files else None


def _merged(folders: list[Path]) -> dict[str, Path]:
    """All that is in the folders, by relative path; of what several hosts have, the first host's."""
    members: dict[str, Path] = {}
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            members.setdefault(str(path.relative_to(folder)), path)
    return members
