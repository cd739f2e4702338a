"""A bucket that is used by two at once: an object is there whole or not at all, and one that was stored stays."""

import errno
import io
import threading

import pytest
from local_sagemaker.api import buckets, object_files
from local_sagemaker.api.buckets import PARTITION, KeptS3Backend
from moto.core import DEFAULT_ACCOUNT_ID

ARGUMENTS = {
    "list_objects": (None, None, None, None),
    "list_objects_v2": (None, None, None, None, 1000),
}


@pytest.mark.parametrize("listing", ARGUMENTS)
def test_a_listing_waits_for_an_object_that_is_being_stored(listing, tmp_path, monkeypatch):
    backend, name = KeptS3Backend(PARTITION, DEFAULT_ACCOUNT_ID), listing.replace("_", "-")
    backend.open_folder(tmp_path)
    bucket = backend.create_bucket(name, "us-east-1")
    stored, listed = buckets._stored, []

    def slow(*arguments):
        """Stores, and has another thread look between the moment at which moto knows the key and the end."""
        looking = threading.Thread(
            target=lambda: listed.append(getattr(backend, listing)(bucket, *ARGUMENTS[listing])[0])
        )
        looking.start()
        looking.join(0.3)
        assert not listed, "it saw an object that was not whole"
        threads.append(looking)
        return stored(*arguments)

    threads: list[threading.Thread] = []
    monkeypatch.setattr(buckets, "_stored", slow)
    backend.put_object(name, "k", b"content")
    for thread in threads:
        thread.join(10)
    ((key,),) = listed
    assert (key.name, key.size, bytes(key.value[0:7])) == ("k", 7, b"content")
    backend.delete_object(name, "k")
    backend.delete_bucket(name)


def test_a_line_that_cannot_be_written_takes_no_other_with_it(tmp_path, monkeypatch):
    """The disk is full for one object and, in the same moment, not for a smaller one."""
    backend = KeptS3Backend(PARTITION, DEFAULT_ACCOUNT_ID)
    backend.open_folder(tmp_path)
    backend.create_bucket("full", "us-east-1")
    other = threading.Thread(target=backend.put_object, args=("full", "small", b"content"))

    class FullDisk(io.FileIO):
        def write(self, text):
            if b'"large"' not in text:
                return super().write(text)
            other.start()
            other.join(0.3)  # until it is written, or waits
            raise OSError(errno.ENOSPC, "No space left on device")

    def opened(path, mode, **rest):
        return FullDisk(path, mode) if path.name == "objects.jsonl" else open(path, mode, **rest)

    with monkeypatch.context() as patched:
        patched.setattr(object_files, "open", opened, raising=False)
        with pytest.raises(OSError, match="No space"):
            backend.put_object("full", "large", b"content")
        other.join(10)
    _, lines = object_files.BucketFiles(tmp_path / "full").read()
    assert [line["key"] for line in lines] == ["small"]
