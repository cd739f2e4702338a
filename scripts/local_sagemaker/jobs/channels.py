"""Input channels: which S3 objects a channel means, and which of them each host gets."""

import json
from pathlib import Path

from botocore.client import BaseClient
from botocore.exceptions import ClientError

from local_sagemaker.api.training_request import Channel
from local_sagemaker.jobs.storage import download, inside, list_keys, split_uri


class ChannelError(ValueError):
    """A channel's data cannot be found or read; the message names the channel and the address."""


def find_objects(s3: BaseClient, channel: Channel) -> list[tuple[str, str, str]]:
    """(bucket, key, path inside the channel's folder) of every object of the channel, sorted by key.

    Raises ChannelError if there is none, or others than are meant.
    """
    try:
        found = _manifest_objects(s3, channel) if channel.manifest else _prefix_objects(s3, channel)
    except ClientError as error:
        reason = error.response["Error"].get("Message") or error.response["Error"]["Code"]
        raise ChannelError(f"Channel '{channel.name}': cannot read {channel.uri}: {reason}") from error
    if not found:
        raise ChannelError(
            f"Channel '{channel.name}': no S3 objects found under {channel.uri}. Upload the data first, or"
            " correct the address in InputDataConfig."
        )
    return sorted(found)


def _prefix_objects(s3: BaseClient, channel: Channel) -> list[tuple[str, str, str]]:
    """A prefix means a folder if there is one, else one object, else whatever begins with it.

    The service takes whatever begins with it in each case (S3DataSource in the API), so what is not meant is an error here.
    """
    bucket, prefix = split_uri(channel.uri)
    folder = prefix if prefix.endswith("/") or not prefix else prefix + "/"
    keys = list(list_keys(s3, bucket, prefix))
    below = [key for key in keys if key.startswith(folder)]
    meant = below or ([prefix] if prefix in keys else keys)
    if others := sorted(set(keys) - set(meant)):
        instead = f"Write {channel.uri}/, or give" if below else "Give"
        raise ChannelError(
            f"Channel '{channel.name}': {channel.uri} is the beginning of s3://{bucket}/{others[0]} too, which would come into"
            f" the channel on AWS. {instead} one of the two another name."
        )
    start = len(folder) if below else prefix.rfind("/") + 1
    return [(bucket, key, key[start:]) for key in meant]


def _manifest_objects(s3: BaseClient, channel: Channel) -> list[tuple[str, str, str]]:
    """A manifest is a JSON list: {"prefix": "s3://bucket/some/folder/"}, then keys relative to it."""
    bucket, key = split_uri(channel.uri)
    text = s3.get_object(Bucket=bucket, Key=key)["Body"].read()
    try:
        first, *relative = json.loads(text)
        source, prefix = split_uri(first["prefix"])
    except (ValueError, TypeError, KeyError) as error:
        raise ChannelError(
            f"Channel '{channel.name}': {channel.uri} is not a manifest. It must be a JSON list such as"
            ' [{"prefix": "s3://bucket/folder/"}, "a.jsonl", "b.jsonl"].'
        ) from error
    return [(source, prefix + name, name) for name in relative]


def fetch_channel(
    s3: BaseClient, channel: Channel, folder: Path, host: int, hosts: int, without: tuple[str, ...] = ()
) -> None:
    """Put the channel's objects, or this host's share of them, into `folder`; `without` those with such endings.

    `host` is the host's number, from 0, of `hosts`. ShardedByS3Key: hosts take turns through the sorted keys.
    FastFile is a download too: the same files appear. Raises ChannelError.
    """
    folder.mkdir(parents=True, exist_ok=True)
    objects = [found for found in find_objects(s3, channel) if not found[1].endswith(without)]
    for bucket, key, relative in objects[host::hosts] if channel.sharded else objects:
        try:
            download(s3, bucket, key, inside(folder, relative))
        except (ClientError, ValueError, OSError) as error:
            raise ChannelError(
                f"Channel '{channel.name}': cannot fetch s3://{bucket}/{key}: {error}"
            ) from error
