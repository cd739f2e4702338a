"""S3 whose buckets outlive the endpoint: moto's backend with the content of objects in files (object_files.py).

moto keeps small objects in memory, large ones in unnamed temporary files, and all parts of uploads as well as the whole; it
reads an object into memory for each request, also for one of a few bytes of it. Here no request needs more memory than its own
body: boto3 sends and fetches large objects in parts of 8 MB.

Kept are buckets and, of each key, the newest object with its metadata, checksum and tags. Not kept: older versions, policies,
ACLs and other settings of buckets, checksums of objects that came in parts.
"""

import hashlib
import threading
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

from moto.core import DEFAULT_ACCOUNT_ID
from moto.core.utils import utcnow
from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML
from moto.s3.models import FakeBucket, FakeKey, FakeMultipart, S3Backend, s3_backends
from moto.settings import S3_UPLOAD_PART_MIN_SIZE

from local_sagemaker.api.object_files import CHUNK, BucketFiles, Content, ObjectLine

PARTITION = "aws"


class StoredKey(FakeKey):
    """An object whose content is in a file. moto disposes of it when it is deleted or replaced."""

    file: Path

    @property
    def value(self) -> Content:
        """The content, which moto measures, slices and passes on."""
        return Content(self.file)

    def dispose(self, garbage: bool = False) -> None:
        """Delete the file, unless only this process ends."""
        if not garbage:
            self.file.unlink(missing_ok=True)
        self.disposed = True


def _stored(key: FakeKey, file: Path, etag: str) -> StoredKey:
    """`key`, which moto has made without content, as one whose content is `file`."""
    key._value_buffer.close()
    key.__class__ = StoredKey  # moto's methods name the class of the keys that they make
    assert isinstance(key, StoredKey)
    key.file, key.contentsize, key._etag = file, file.stat().st_size, etag
    FakeKey.instances_tracked.clear()  # where moto keeps every key that there ever was
    return key


class KeptS3Backend(S3Backend):
    """moto's S3 with its buckets in `folder`, which `open_folder` reads."""

    folder: Path

    def open_folder(self, folder: Path) -> None:
        """Take over the buckets that are in `folder`. Raises OSError or ValueError if it cannot be read."""
        self.folder, self._change = folder, threading.RLock()
        self._opened: dict[str, BucketFiles] = {}
        folder.mkdir(parents=True, exist_ok=True)
        for entry in sorted(folder.iterdir()):
            if (entry / "bucket.json").exists():
                self._take_over(entry.name)

    def _take_over(self, name: str) -> None:
        described, lines = self._files(name).read()
        bucket = super().create_bucket(name, described["region"])
        bucket.creation_date = datetime.fromisoformat(described["created"])
        for line in lines:
            key = FakeKey(
                line["key"], b"", account_id=self.account_id, region_name=self.region_name, bucket_name=name,
                version_id="null",
            )  # fmt: skip
            _stored(key, self._files(name).path(line), line["etag"])
            key.last_modified = datetime.fromisoformat(line["modified"])
            key.set_metadata(dict(line.get("metadata", {})))
            key.checksum_algorithm, key.checksum_value = line.get("checksum", (None, None))
            bucket.keys.setlist(line["key"], [key])
            if tags := line.get("tags"):
                super().put_object_tagging(key, tags)

    def _files(self, bucket: str) -> BucketFiles:
        """One for each bucket, since it holds the lock for its lines."""
        return self._opened.setdefault(bucket, BucketFiles(self.folder / bucket))

    def create_bucket(self, bucket_name: str, region_name: str, *more: Any, **rest: Any) -> FakeBucket:
        bucket = super().create_bucket(bucket_name, region_name, *more, **rest)
        try:
            created = bucket.creation_date.isoformat()
            self._files(bucket_name).create({"region": region_name, "created": created})
        except OSError:
            super().delete_bucket(bucket_name)
            self._files(bucket_name).remove()
            raise
        return bucket

    def delete_bucket(self, bucket_name: str) -> FakeBucket | None:
        deleted = super().delete_bucket(bucket_name)
        if deleted:
            self._files(bucket_name).remove()
        return deleted

    def get_object(self, *arguments: Any, **named: Any) -> FakeKey | None:
        with self._change:  # not one that is only just being put there
            return super().get_object(*arguments, **named)

    def list_objects(self, *arguments: Any, **named: Any) -> Any:
        with self._change:  # moto's list_objects_v2 asks this one
            return super().list_objects(*arguments, **named)

    def list_object_versions(self, *arguments: Any, **named: Any) -> Any:
        with self._change:
            return super().list_object_versions(*arguments, **named)

    def put_object(
        self, bucket_name: str, key_name: str, value: bytes | Content, *more: Any, **rest: Any
    ) -> FakeKey:
        self.get_bucket(bucket_name)  # raises if there is none
        file, digest = self._files(bucket_name).write(_chunks(value))
        return self._put(bucket_name, key_name, file, digest, *more, **rest)

    def _put(
        self, bucket_name: str, key_name: str, file: Path, etag: str, *more: Any, **rest: Any
    ) -> StoredKey:
        line = ObjectLine(
            key=key_name, file=file.name, size=file.stat().st_size, etag=etag, modified=utcnow().isoformat()
        )
        try:
            self._files(bucket_name).add_line(line)
            with self._change:
                key = _stored(super().put_object(bucket_name, key_name, b"", *more, **rest), file, etag)
        except BaseException:
            file.unlink(missing_ok=True)
            raise
        return key

    def put_object_tagging(self, key: FakeKey, tags: dict[str, str] | None) -> FakeKey:
        """The last step of storing an object, with tags or without: what else the request said of it is known then."""
        key = super().put_object_tagging(key, tags)
        self._note_details(key, tags)
        return key

    def copy_object(self, src_key: FakeKey, dest_bucket_name: str, dest_key_name: str, **rest: Any) -> None:
        super().copy_object(src_key, dest_bucket_name, dest_key_name, **rest)
        key = self.get_object(dest_bucket_name, dest_key_name)
        if key:
            self._note_details(key, self.tagger.get_tag_dict_for_resource(key.arn))

    def _note_details(self, key: FakeKey, tags: dict[str, str] | None) -> None:
        if not isinstance(key, StoredKey) or not key.file.exists():
            return  # it has been replaced in the meantime
        details = ObjectLine(
            key=key.name,
            file=key.file.name,
            size=key.size,
            etag=key.etag.strip('"'),
            modified=key.last_modified.isoformat(),
            metadata=dict(key.metadata),
            checksum=[key.checksum_algorithm, key.checksum_value],
            tags=tags or {},
        )
        self._files(str(key.bucket_name)).add_line(details)

    def delete_object(self, bucket_name: str, key_name: str, *more: Any, **rest: Any) -> tuple[bool, dict]:
        key = self.get_object(bucket_name, key_name)
        with self._change:
            done = super().delete_object(bucket_name, key_name, *more, **rest)
        if self.get_bucket(bucket_name).is_versioned and isinstance(key, StoredKey):
            line = ObjectLine(key=key_name, file="", size=-1, etag="", modified="")  # none has this file
            self._files(bucket_name).add_line(line)
        return done

    def upload_part(self, bucket_name: str, multipart_id: str, part_id: int, value: bytes) -> FakeKey:
        file, digest = self._files(bucket_name).write(_chunks(value), "parts")
        return _stored(super().upload_part(bucket_name, multipart_id, part_id, b""), file, digest)

    def upload_part_copy(
        self,
        dest_bucket_name: str,
        multipart_id: str,
        part_id: int,
        src_bucket_name: str,
        src_key_name: str,
        src_version_id: str | None,
        start_byte: int,
        end_byte: int,
    ) -> FakeKey:
        source = self.get_object(src_bucket_name, src_key_name, version_id=src_version_id)
        assert source is not None  # moto's response has looked
        part = source.value if start_byte is None else source.value[start_byte : end_byte + 1]
        return self.upload_part(dest_bucket_name, multipart_id, part_id, part)

    def complete_multipart_upload(
        self, bucket_name: str, multipart_id: str, body: Iterator[tuple[int, str]]
    ) -> FakeKey | None:
        """As moto does it, but without the whole in memory."""
        bucket = self.get_bucket(bucket_name)
        multipart = bucket.multiparts[multipart_id]
        parts = _parts_asked_for(multipart, body)
        digests = b"".join(bytes.fromhex(part.etag.strip('"')) for part in parts)
        etag = f"{hashlib.md5(digests, usedforsecurity=False).hexdigest()}-{len(parts)}"
        file = self._files(bucket_name).join([part.file for part in parts])
        key = self._put(
            bucket_name,
            multipart.key_name,
            file,
            etag,
            storage=multipart.storage,
            encryption=multipart.sse_encryption,
            kms_key_id=multipart.kms_key_id,
        )
        del bucket.multiparts[multipart_id]  # which disposes of parts that were not asked for
        key.set_metadata(multipart.metadata)
        self.put_object_tagging(key, multipart.tags)
        self.put_object_acl(bucket_name, key.name, multipart.acl, disable_notification=True)
        return key


def _parts_asked_for(multipart: FakeMultipart, body: Iterator[tuple[int, str]]) -> list[StoredKey]:
    parts: list[StoredKey] = []
    for number, etag in body:
        part = multipart.parts.get(number)
        if not isinstance(part, StoredKey) or part.etag.strip('"') != etag.strip('"'):
            raise InvalidPart()
        if parts and parts[-1].size < S3_UPLOAD_PART_MIN_SIZE:
            raise EntityTooSmall()
        parts.append(part)
    if not parts:
        raise MalformedXML()
    return parts


def _chunks(value: bytes | Content) -> Iterable[bytes]:
    if isinstance(value, Content):
        return value
    return (value[start : start + CHUNK] for start in range(0, len(value), CHUNK))


def keep_buckets(folder: Path) -> None:
    """Make moto's server in this process keep its buckets in `folder`, and take over those that are there."""
    backend = KeptS3Backend(PARTITION, DEFAULT_ACCOUNT_ID)
    backend.open_folder(folder)
    s3_backends[DEFAULT_ACCOUNT_ID][PARTITION] = backend
