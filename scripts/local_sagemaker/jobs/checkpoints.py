"""Checkpoints: restored from S3 when a container starts, and synced to S3, deletions too, while it runs."""

import os
import time
from collections.abc import Iterator
from pathlib import Path

from botocore.client import BaseClient

from local_sagemaker.jobs.storage import download, inside, list_keys, split_uri, upload

Signature = tuple[int, int]  # modification time in ns, size in bytes
# File systems count time in ticks of some ms: a file changed this recently may change again and look the same.
FRESH_NS = 100_000_000
# What the service's agent puts beside a file while it uploads it, and afterwards. A file with one of the endings stays here.
UPLOADING, UPLOADED = ".sagemaker-uploading", ".sagemaker-uploaded"
KEPT_HERE = (UPLOADING, UPLOADED, ".sagemaker-ignore")


class CheckpointSync:
    """The checkpoint folders of all hosts of one attempt, and what S3 already has of them.

    All hosts sync with the same prefix, as on the service. A file is uploaded once two scans in a row saw it
    unchanged and it is not fresh, so that no half-written file is stored; one that changes during the upload is
    uploaded again. A file that a host had and deleted is deleted in S3, once all that the host has is stored: a job that
    ends in between (a full disk, a kill) finds the older checkpoint there.

    As on the service, a job finds markers beside its files (UPLOADING, UPLOADED); it must neither count on them nor stumble.
    """

    def __init__(self, s3: BaseClient, uri: str, folders: list[Path]):
        self._s3, self._folders = s3, folders
        self._bucket, prefix = split_uri(uri)
        self._prefix = prefix.rstrip("/") + "/" if prefix else ""
        self._stored: list[dict[str, Signature]] = [{} for _ in folders]
        self._seen: list[dict[str, Signature]] = [{} for _ in folders]

    def restore(self) -> int:
        """Fetch every checkpoint into every host's folder; returns the number of files a host got."""
        keys = list(list_keys(self._s3, self._bucket, self._prefix))
        for folder, stored in zip(self._folders, self._stored, strict=True):
            for key in keys:
                download(self._s3, self._bucket, key, inside(folder, key[len(self._prefix) :]))
            stored.update(_files(folder))
        return len(keys)

    def sync(self, everything: bool = False) -> None:
        """Bring S3 up to date. `everything`: the writers are gone, so no file needs to be seen twice."""
        for folder, stored, seen in zip(self._folders, self._stored, self._seen, strict=True):
            fresh_from = time.time_ns() - FRESH_NS
            now = dict(_files(folder))
            for relative, signature in now.items():
                settled = seen.get(relative) == signature and signature[0] < fresh_from
                if stored.get(relative) != signature and (everything or settled):
                    self._store(folder, relative, signature, stored)
            if everything or all(stored.get(relative) == signature for relative, signature in now.items()):
                for relative in stored.keys() - now.keys():
                    self._s3.delete_object(Bucket=self._bucket, Key=self._prefix + relative)
                    _beside(folder / relative, UPLOADED).unlink(missing_ok=True)
                    del stored[relative]
            seen.clear()
            seen.update(now)

    def _store(self, folder: Path, relative: str, signature: Signature, stored: dict) -> None:
        path = folder / relative
        marker = _beside(path, UPLOADING)
        try:
            marker.touch()
            upload(self._s3, path, self._bucket, self._prefix + relative)
            marker.replace(_beside(path, UPLOADED))
            unchanged = _signature(path) == signature
        except FileNotFoundError:  # deleted or renamed while it was read; the next scan sees it
            unchanged = False
        finally:
            marker.unlink(missing_ok=True)
        stored[relative] = signature if unchanged else (0, -1)  # known to S3, but not as it is now


def _files(folder: Path) -> Iterator[tuple[str, Signature]]:
    found = (
        Path(place, name) for place, _, names in os.walk(folder, onerror=_pass_if_gone) for name in names
    )
    for path in sorted(found):
        try:
            if path.is_file() and not path.name.endswith(KEPT_HERE):
                yield str(path.relative_to(folder)), _signature(path)
        except FileNotFoundError:
            continue  # deleted during the scan


def _pass_if_gone(error: OSError) -> None:
    """For os.walk, which passes over all errors otherwise: a folder that is there and looks empty would be deleted in S3."""
    if not isinstance(error, (FileNotFoundError, NotADirectoryError, PermissionError)):
        raise error


def _beside(path: Path, ending: str) -> Path:
    return path.with_name(path.name + ending)


def _signature(path: Path) -> Signature:
    status = path.stat()
    return status.st_mtime_ns, status.st_size
