"""Addresses in S3."""


def split_uri(uri: str) -> tuple[str, str]:
    """("bucket", "key/prefix") of an s3:// address; what is missing is ""."""
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    return bucket, key
