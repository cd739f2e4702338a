"""Preflight of the models that a recipe names: they are there, and what is in them can be trained."""

import json
import tarfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from os import environ
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import IO, Any

from botocore.exceptions import BotoCoreError, ClientError
from job.model_files import MODEL_SOURCES, AdapterError, adapter_base, circle_problem
from job.prompt_lengths import longest
from rl.preferences import read_pairs
from rl.tasks import DataError, read_rows

from workshop.checks.data_checks import Unread, local_path
from workshop.checks.layer_checks import check_layers
from workshop.checks.length_checks import Limits, check_evaluation, check_lengths
from workshop.checks.recipe_values import recipe_values
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest
from workshop.checks.tensor_checks import weight_problems
from workshop.checks.tokenizer_checks import ModelFolder, check_tokenizer
from workshop.s3 import split_uri

PACKAGED_MODELS = ("smollm2",)  # the names in job.packaged.PACKAGES, part of what a job imports
_HUB_TIMEOUT_S = 5.0
# What preflight copies of a model: never its weights, which are told by their size and their endings.
_SMALL = (".json", ".jinja", ".txt", ".model", ".tiktoken")
_SMALL_BYTES = 64 * 2**20
_ARCHIVE_BYTES = 2**30  # of an archive in S3, which has to be read from its beginning


class _Missing(Exception):
    """There is no model where a spec points."""


class _OutOfReach(Exception):
    """A model that cannot be opened from here. `status` says how much that matters."""

    def __init__(self, status: str, detail: str) -> None:
        super().__init__(detail)
        self.status = status


def check_model(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """The models a recipe names exist, and the base model can be trained on the data, as far as can be known here."""
    for key in ("base_model", "reward_model", "teacher"):
        spec = settings.get(key)
        if spec is None:
            continue
        spec = str(spec)  # as the job reads 5
        found = _check_spec(key, spec, request)
        yield found
        if key == "base_model" and found.status != PROBLEM:
            with TemporaryDirectory(prefix="preflight-") as copies:
                yield from _check_content(key, spec, request, settings, Path(copies))
    yield from check_evaluation(Limits(request, settings))


def _check_spec(key: str, spec: str, request: JobRequest) -> Check:
    source, _, name = spec.partition(":")
    if source not in MODEL_SOURCES or not name:
        forms = "asset:tiny, pypi:smollm2, hub:ORG/NAME or channel:NAME"
        return Check(key, PROBLEM, f"{spec!r} says no source; write {forms}")
    if source == "asset":
        return _check_asset(key, name, request.source_dir)
    if source == "channel":
        found = name in dict(request.channels)
        missing = f"{spec!r} needs a channel: add InputData(channel_name={name!r}, data_source=...)"
        return Check(key, OK if found else PROBLEM, spec if found else missing)
    if source == "hub":
        return _check_hub(key, name, "HF_SECRET_NAME" in request.environment)
    if name not in PACKAGED_MODELS:
        return Check(key, PROBLEM, f"no package holds {name!r}; known: {', '.join(PACKAGED_MODELS)}")
    return Check(key, OK, spec)


def _check_asset(key: str, name: str, source_dir: Path | None) -> Check:
    if source_dir is None:
        return Check(key, NOTE, f"asset:{name} (the source is not on this machine, so not checked)")
    assets = source_dir / "assets"
    if (assets / name / "config.json").is_file():
        return Check(key, OK, f"asset:{name}")
    there = sorted(path.parent.name for path in assets.glob("*/config.json"))
    return Check(
        key, PROBLEM, f"there is no asset {name!r} in the source (there: {', '.join(there) or 'none'})"
    )


def _check_hub(key: str, name: str, has_secret: bool) -> Check:
    """Ask the Hugging Face Hub (HF_ENDPOINT, as its own libraries do) whether it has the model.

    `has_secret`: the job has a token. Only then may the one of this machine, HF_TOKEN, answer for it: without a secret
    the job asks without a token, too.
    """
    address = f"{environ.get('HF_ENDPOINT', 'https://huggingface.co')}/api/models/{name}"
    token = "".join(environ.get("HF_TOKEN", "").split()) if has_secret else ""
    try:
        asked = urllib.request.Request(address)
        if token:  # not for another server that this one may point to
            asked.add_unredirected_header("Authorization", f"Bearer {token}")
        with urllib.request.urlopen(asked, timeout=_HUB_TIMEOUT_S):
            return Check(key, OK, f"hub:{name}")
    except urllib.error.HTTPError as error:
        if error.code not in (401, 403, 404):
            return Check(key, WARNING, f"hub:{name}: the Hub answered {error.code}, so not checked")
        if has_secret:
            text = (
                "not public, or misspelt; the job reads it with the secret's token, which is not checked here"
            )
            return Check(key, WARNING, f"hub:{name}: {text}")
        text = f"the Hugging Face Hub has no public model {name!r}: check the spelling"
        return Check(key, PROBLEM, f"{text}; a private one needs HF_SECRET_NAME (docs/secrets.md)")
    except (OSError, ValueError) as error:
        return Check(
            key, WARNING, f"hub:{name}: the Hub cannot be reached from here ({error}), so not checked"
        )


def _check_content(
    key: str, spec: str, request: JobRequest, settings: dict[str, Any], copies: Path
) -> Iterator[Check]:
    try:
        folder, bases = _model_folder(spec, request, copies)
    except (_Missing, AdapterError) as error:
        yield Check(key, PROBLEM, f"{spec}: {error}")
        return
    except _OutOfReach as error:
        yield Check(key, error.status, f"{spec}: {error}, so its tokenizer is not checked")
        return
    if bases:
        yield Check(key, NOTE, f"{spec} holds adapters: the job merges them into {' and '.join(bases)}")
    # Where the whole model is on this machine, and not a copy of its small files:
    whole = not folder.config.is_relative_to(copies)
    if whole:
        for problem in weight_problems(folder.config):
            yield Check(key, PROBLEM, f"{spec}: {problem}")
    rows, limits = _training_rows(request, copies), Limits(request, settings)
    options = settings.get("chat_template_kwargs")
    try:
        options = json.loads(options) if isinstance(options, str) else options  # as a hyperparameter may be
    except ValueError as error:
        yield Check("chat_template_kwargs", PROBLEM, f"{options!r} is no JSON object: {error}")
        return
    counted = longest(rows) if rows else []
    model, lengths, checks = check_tokenizer(key, folder, counted, options)
    yield from checks
    request.model_config = model.config if model else None  # the checks of memory and time read it
    if model:
        values = recipe_values(request, settings)
        yield from check_layers(folder.config if whole else None, model.config, values)
    if model and lengths:
        yield from check_lengths(limits, model, lengths, counted, len(rows))


def _training_rows(request: JobRequest, copies: Path) -> list[Any]:
    """The training data, if it can be read here; what is wrong with it is said by the data's own checks."""
    source = dict(request.channels).get("train")
    pairs = request.script is not None and request.script.config == "trl.DPOConfig"
    try:
        path, _ = local_path(request, source, copies / "train")
        rows = (read_pairs if pairs else read_rows)(path)
    except (Unread, DataError):
        return []
    # Calls in a prompt are written in several ways, which the job that learns from them sorts out itself.
    return [row for row in rows if not any("tool_calls" in message for message in row["prompt"])]


def _model_folder(
    spec: str, request: JobRequest, copies: Path, adapters: tuple[str, ...] = ()
) -> tuple[ModelFolder, list[str]]:
    """The small files of a model, and the bases below it where it is made of adapters.

    Raises:
        _Missing, AdapterError: it can be seen from here that the job could not load it.
        _OutOfReach: it cannot be seen.
    """
    folder = _small_files(spec, request, copies / str(len(adapters)))
    for path in sorted(folder.iterdir()):
        if path.name.endswith(_SMALL) and path.is_file() and path.stat().st_size > _SMALL_BYTES:
            raise _Missing(
                f"its {path.name} has {path.stat().st_size:,} bytes, and such files have a few million"
            )
    base = adapter_base(folder)
    if base is None:
        if not (folder / "config.json").is_file():
            there = ", ".join(sorted(path.name for path in folder.iterdir())[:10]) or "nothing"
            raise _Missing(f"there is no model: no config.json and no model.tar.gz, but {there}")
        return ModelFolder(folder, folder), []
    if base in (spec, *adapters):
        raise _Missing(circle_problem(spec, base))
    if (found := _check_spec("", base, request)).status == PROBLEM:
        raise _Missing(f"it holds adapters of {base}, and that is not to be had: {found.detail}")
    below, bases = _model_folder(base, request, copies, (*adapters, spec))
    own = (folder / "tokenizer_config.json").is_file()
    return ModelFolder(folder if own else below.tokenizer, below.config), [base, *bases]


def _small_files(spec: str, request: JobRequest, copies: Path) -> Path:
    """The folder of a model on this machine, or copies of its small files."""
    kind, _, name = spec.partition(":")
    if kind == "hub":
        raise _OutOfReach(NOTE, "the model is on the Hub and not here")
    if kind == "asset":
        if request.source_dir is None:
            raise _OutOfReach(NOTE, "the source is not on this machine")
        return request.source_dir / "assets" / name
    if kind == "pypi":
        from job.packaged import cache_folder

        if not cache_folder(name).is_dir():
            raise _OutOfReach(NOTE, "the package is not on this machine yet")
        return cache_folder(name)
    source = dict(request.channels)[name]
    uri = getattr(source, "s3_uri", source)
    if not isinstance(uri, str):
        raise _OutOfReach(NOTE, f"{type(source).__name__} cannot be read from here")
    copies.mkdir(parents=True)
    if uri.startswith("s3://"):
        return _from_s3(uri, request, copies)
    path = Path(uri.removeprefix("file://"))
    archive = path / "model.tar.gz" if path.is_dir() else path
    if archive.is_file():
        with archive.open("rb") as file:
            return _from_archive(file, copies)
    if not path.is_dir():
        raise _Missing(f"there is no {path}")
    return path


def _from_s3(uri: str, request: JobRequest, copies: Path) -> Path:
    bucket, prefix = split_uri(uri)
    client = request.boto_session.client("s3")
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        sizes = {found["Key"]: found["Size"] for page in pages for found in page.get("Contents", [])}
        if not sizes:
            raise _Missing(f"there is nothing at {uri}")
        # As in the job's folder: what is behind the prefix, or behind its last slash if it names a file.
        names = {key: key.removeprefix(prefix).lstrip("/") or PurePosixPath(key).name for key in sizes}
        for key, name in names.items():
            if name == "model.tar.gz":
                if sizes[key] > _ARCHIVE_BYTES:
                    text = f"its model.tar.gz has {sizes[key] / 1e9:.1f} GB, too much to read it all before the job"
                    raise _OutOfReach(NOTE, text)
                with closing(client.get_object(Bucket=bucket, Key=key)["Body"]) as body:
                    return _from_archive(body, copies)
        for key, name in names.items():
            if _is_small(name, sizes[key]):
                client.download_file(bucket, key, str(copies / name))
    except (ClientError, BotoCoreError) as error:
        code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
        if code in ("NoSuchBucket", "404"):
            raise _Missing(f"there is no bucket {bucket}") from error
        raise _OutOfReach(WARNING, f"{uri} cannot be looked at from here ({error})") from error
    return copies


def _from_archive(file: IO[bytes], copies: Path) -> Path:
    """Copy the small files at the top of a model.tar.gz, which is read once and not unpacked."""
    try:
        with tarfile.open(fileobj=file, mode="r|gz") as tar:
            for member in tar:
                name = member.name.removeprefix("./")
                if member.isfile() and _is_small(name, member.size):
                    content = tar.extractfile(member)
                    assert content is not None  # a file
                    (copies / name).write_bytes(content.read())
    except (tarfile.TarError, EOFError, OSError) as error:
        raise _Missing(f"its model.tar.gz cannot be unpacked: {error}") from error
    return copies


def _is_small(name: str, size: int) -> bool:
    """A file that belongs to a tokenizer or a configuration, in no folder below."""
    return "/" not in name and name.endswith(_SMALL) and size <= _SMALL_BYTES
