"""Put a model into S3 once, so that jobs read it as a channel instead of downloading it from the Hugging Face Hub each time.

    python scripts/stage_model.py hub:Qwen/Qwen3-4B s3://BUCKET/models/Qwen3-4B
    python scripts/stage_model.py asset:tiny s3://BUCKET/models/tiny        # or a folder with a saved model

Of the Hub the weights as safetensors, the configuration and the tokenizer are taken, one file at a time, so that the disk
holds no more than the largest. What is in S3 already is left there: a broken-off run is started again and goes on. A model
that is not open to everyone needs a token (HF_TOKEN, HF_SECRET_NAME or `hf auth login`; docs/secrets.md).

Exit code: 0, 1 with a message if the model cannot be had or put there, 2 for a wrong command line.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

import boto3
import httpx
from boto3.exceptions import S3UploadFailedError
from botocore.client import BaseClient
from botocore.exceptions import BotoCoreError, ClientError
from huggingface_hub import HfApi, hf_hub_download
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, HFValidationError, RepositoryNotFoundError
from job.secrets import SecretError, provide_hub_token
from workshop.s3 import split_uri

ASSETS = Path(__file__).resolve().parent / "assets"
WANTED = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt")  # at the top of the repository
UNWANTED = ("consolidated*",)  # the same weights once more, in another layout
MANIFEST = "staged.json"  # what lies beside it in S3, written first; jobs pass over it


class StagingError(Exception):
    """The model cannot be had, or not be put where it should go; the message says what to do."""


@dataclass(frozen=True)
class Source:
    """A model's files, by name with their sizes in bytes, and how one of them is brought into a folder."""

    name: str  # as the user wrote it
    revision: str | None  # the commit on the Hub
    files: dict[str, int]
    bring: Callable[[str, Path], Path]


def stage(spec: str, uri: str) -> int:
    """Upload the files of the model `spec` that are not at `uri` yet; returns how many.

    Raises StagingError.
    """
    bucket, prefix = _split(uri)
    source = _from_hub(spec.removeprefix("hub:")) if spec.startswith("hub:") else _from_folder(spec)
    _check_is_model(source)
    s3 = boto3.client("s3")
    try:
        there = _there(s3, bucket, prefix)
        _claim(s3, bucket, prefix, source, there)
        missing = {name: size for name, size in source.files.items() if there.get(name) != size}
        print(
            f"{source.name}: {len(source.files)} files, {_gb(sum(source.files.values()))}; to upload: {len(missing)}"
        )
        for name, size in missing.items():
            with tempfile.TemporaryDirectory() as folder:
                if source.revision and shutil.disk_usage(folder).free < size:
                    raise StagingError(
                        f"{name} has {_gb(size)}, and {folder} has no room for it. Set TMPDIR to a folder on a larger disk."
                    )
                print(f"  {name}  {_gb(size)}", flush=True)
                s3.upload_file(str(source.bring(name, Path(folder))), bucket, f"{prefix}/{name}")
    except (ClientError, BotoCoreError, S3UploadFailedError) as error:
        raise StagingError(
            f"s3://{bucket}/{prefix} cannot be written to: {error}\nDoes the bucket exist in this account, and may you "
            "list it and write to it (aws/attendee-policy.json)?"
        ) from error
    return len(missing)


def _split(uri: str) -> tuple[str, str]:
    bucket, prefix = split_uri(uri)
    if not uri.startswith("s3://") or not bucket or not prefix.strip("/"):
        raise StagingError(
            f"{uri!r} is no place for a model: write s3://BUCKET/FOLDER, such as s3://my-bucket/models/Qwen3-4B."
        )
    return bucket, prefix.strip("/")


def _from_hub(name: str) -> Source:
    provide_hub_token()
    needs_token = (
        "Accept its terms on huggingface.co with your account, then set HF_TOKEN to a token of that account that may read it, "
        "or HF_SECRET_NAME to the name of a secret that holds one (docs/secrets.md)."
    )
    try:
        info = HfApi().model_info(name, files_metadata=True)
    except GatedRepoError as error:
        raise StagingError(f"hub:{name} is not open to everyone. {needs_token}") from error
    except RepositoryNotFoundError as error:
        raise StagingError(
            f"The Hub has no model {name!r} that you may see. Is the name right? If it is private: {needs_token}"
        ) from error
    except HFValidationError as error:
        raise StagingError(f"hub:{name} is no name on the Hub: write hub:ORG/NAME.") from error
    except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
        raise StagingError(f"The Hugging Face Hub cannot be asked for {name}: {error}") from error
    files = {
        file.rfilename: file.size or 0
        for file in info.siblings or []
        if _matches(file.rfilename, WANTED)
        and not _matches(file.rfilename, UNWANTED)
        and "/" not in file.rfilename
    }

    def bring(file: str, folder: Path) -> Path:
        try:
            return Path(hf_hub_download(name, file, revision=info.sha, local_dir=folder))
        except (GatedRepoError, RepositoryNotFoundError) as error:
            raise StagingError(f"The files of hub:{name} may not be read. {needs_token}") from error
        except (HfHubHTTPError, httpx.HTTPError, OSError) as error:
            raise StagingError(
                f"{file} of hub:{name} could not be downloaded: {error}\nRun the command again."
            ) from error

    return Source(f"hub:{name}", info.sha, files, bring)


def _from_folder(spec: str) -> Source:
    folder = ASSETS / spec.removeprefix("asset:") if spec.startswith("asset:") else Path(spec)
    if not folder.is_dir():
        raise StagingError(
            f"There is no folder {folder}: write hub:ORG/NAME, asset:NAME or the folder of a saved model."
        )
    files = {path.name: path.stat().st_size for path in sorted(folder.iterdir()) if path.is_file()}
    files = {name: size for name, size in files.items() if _matches(name, WANTED)}
    return Source(spec, None, files, lambda name, _: folder / name)


def _check_is_model(source: Source) -> None:
    if not any(name in source.files for name in ("config.json", "adapter_config.json")):
        raise StagingError(f"{source.name} is no model for transformers: it has no config.json.")
    if not any(name.endswith(".safetensors") for name in source.files):
        raise StagingError(
            f"{source.name} has no weights as safetensors, and jobs read no others (a pickle can run code). Take another "
            "copy of the model, or load it where you trust it and save it with save_pretrained."
        )


def _there(s3: BaseClient, bucket: str, prefix: str) -> dict[str, int]:
    pages = s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
    return {
        found["Key"].removeprefix(f"{prefix}/"): found["Size"]
        for page in pages
        for found in page.get("Contents", [])
    }


def _claim(s3: BaseClient, bucket: str, prefix: str, source: Source, there: dict[str, int]) -> None:
    """Write down whose files these are to be, or find that they are another model's."""
    own = {"model": source.name, "revision": source.revision}
    if MANIFEST in there:
        found = json.loads(s3.get_object(Bucket=bucket, Key=f"{prefix}/{MANIFEST}")["Body"].read())
        if found != own:
            raise StagingError(
                f"s3://{bucket}/{prefix} holds {found['model']} (revision {found['revision']}), not {source.name} (revision "
                f"{source.revision}). Choose another folder, or empty that one: aws s3 rm --recursive s3://{bucket}/{prefix}/"
            )
    elif there:
        raise StagingError(
            f"s3://{bucket}/{prefix} holds other files, such as {min(there)}: choose an empty folder."
        )
    else:
        s3.put_object(Bucket=bucket, Key=f"{prefix}/{MANIFEST}", Body=json.dumps(own).encode())


def _matches(name: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatch(name, pattern) for pattern in patterns)


def _gb(size: float) -> str:
    return f"{size / 1e9:.2f} GB"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", help="hub:ORG/NAME, asset:NAME, or a folder")
    parser.add_argument("uri", help="s3://BUCKET/FOLDER")
    options = parser.parse_args(arguments)
    try:
        stage(options.model, options.uri)
    except (StagingError, SecretError) as error:
        print(error, file=sys.stderr)
        return 1
    print(
        f"{options.model} is in {options.uri}. In a notebook, beside the other channels and hyperparameters of a job:"
    )
    # With a slash at its end: a channel's address means all that begins with it, .../Qwen3-4B-Base beside .../Qwen3-4B too.
    print(f'  InputData(channel_name="model", data_source="{options.uri.rstrip("/")}/")')
    print('  hyperparameters={..., "base_model": "channel:model"}')
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
