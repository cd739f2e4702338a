"""Preflight of the models that a recipe names."""

import urllib.error
import urllib.request
from collections.abc import Iterator
from os import environ
from pathlib import Path
from typing import Any

from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, Check, JobRequest

MODEL_SOURCES = ("asset", "pypi", "channel", "hub")
PACKAGED_MODELS = ("smollm2",)  # the names in job.packaged.PACKAGES, part of what a job imports
_HUB_TIMEOUT_S = 5.0


def check_model(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """The models a recipe names exist, as far as that can be known from here."""
    for key in ("base_model", "reward_model"):
        spec = settings.get(key)
        if not isinstance(spec, str):
            continue
        source, _, name = spec.partition(":")
        if source not in MODEL_SOURCES or not name:
            forms = "asset:tiny, pypi:smollm2, hub:ORG/NAME or channel:NAME"
            yield Check(key, PROBLEM, f"{spec!r} says no source; write {forms}")
        elif source == "asset":
            yield _check_asset(key, name, request.source_dir)
        elif source == "channel":
            found = name in dict(request.channels)
            missing = f"{spec!r} needs a channel: add InputData(channel_name={name!r}, data_source=...)"
            yield Check(key, OK if found else PROBLEM, spec if found else missing)
        elif source == "hub":
            yield _check_hub(key, name)
        elif name not in PACKAGED_MODELS:
            yield Check(key, PROBLEM, f"no package holds {name!r}; known: {', '.join(PACKAGED_MODELS)}")
        else:
            yield Check(key, OK, spec)


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


def _check_hub(key: str, name: str) -> Check:
    """Ask the Hugging Face Hub (HF_ENDPOINT, as its own libraries do) whether it has the model."""
    address = f"{environ.get('HF_ENDPOINT', 'https://huggingface.co')}/api/models/{name}"
    try:
        with urllib.request.urlopen(address, timeout=_HUB_TIMEOUT_S):
            return Check(key, OK, f"hub:{name}")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403, 404):
            return Check(
                key, PROBLEM, f"the Hugging Face Hub has no public model {name!r}: check the spelling"
            )
        return Check(key, WARNING, f"hub:{name}: the Hub answered {error.code}, so not checked")
    except (OSError, ValueError) as error:
        return Check(
            key, WARNING, f"hub:{name}: the Hub cannot be reached from here ({error}), so not checked"
        )
