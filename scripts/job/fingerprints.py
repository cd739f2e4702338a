"""What a training is made of, in texts to compare: with it checkpoints are marked, and another job's are refused.

Data, base model, adapters, the seed, and rewards with their verdict, the files of own functions included. A learning rate
or a number of steps is no part of it: a job may go on with another one.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rl.own_code import source_digest
from rl.tasks import fingerprint

from job.arguments import (
    Arguments,
    BaseModelArguments,
    LoraArguments,
    QuantizationArguments,
    RewardArguments,
    RewardModelArguments,
)
from job.container import channel
from job.models import local_source

SHOWN = 12  # hexadecimal digits of a digest
EDGE = 2**20  # bytes read at either end of a file of a model
STRIDE, SAMPLE = 2**20, 2**12  # bytes between the places in its middle that are read, and read there
DIGESTED = ("*.safetensors", "model.tar.gz", "adapter_config.json", "base_model.json")


def fingerprints(
    job: Arguments,
    rows: Sequence[Any],
    *,
    seed: int | None = None,
    reward_weights: Sequence[float] | None = None,
) -> dict[str, str]:
    """Those of a training script, by kind, as far as its arguments have the groups for it.

    Args:
        rows: what is trained on: problems, or preference pairs.
        seed: of the trainer's config, which a summary names for the whole training; None: the script names none.
        reward_weights: of the trainer's config; None: 1.0 each.
    """
    made_of = {"data": fingerprint(list(rows))[:SHOWN]}
    if seed is not None:
        made_of["seed"] = str(seed)
    if isinstance(job, BaseModelArguments):
        made_of["base"] = model_fingerprint(job.base_model)
    if isinstance(job, QuantizationArguments) and job.quantization:
        made_of["base"] += f" in {job.quantization}"
    if isinstance(job, LoraArguments):
        layers = ", ".join(job.lora_target_modules)
        adapters = f"rank {job.lora_rank}, alpha {job.lora_alpha}, {layers}"
        made_of["adapters"] = adapters if job.lora_rank else "none"
    if isinstance(job, RewardArguments):
        made_of["rewards"] = reward_fingerprint(job.rewards, reward_weights, job.verifier)
    if isinstance(job, RewardModelArguments):
        made_of["reward model"] = model_fingerprint(job.reward_model) if job.reward_model else "none"
    return made_of


def reward_fingerprint(names: Sequence[str], weights: Sequence[float] | None, verifier: str) -> str:
    """Rewards with their weights and the verifier, by name, and a digest of the files of those that are one's own.

    Raises:
        rl.own_code.OwnCodeError: a function of one's own cannot be had.
    """
    weighed = f" weighed {', '.join(f'{weight:g}' for weight in weights)}" if weights else ""
    return f"{', '.join(names) or 'none'}{_own_files(names)}{weighed} by {verifier_fingerprint(verifier)}"


def verifier_fingerprint(verifier: str) -> str:
    """A verifier by name, and a digest of its file if it is one's own. Raises OwnCodeError, as `reward_fingerprint`."""
    return verifier + _own_files([verifier])


def _own_files(names: Sequence[str]) -> str:
    own = [name for name in names if "." in name]
    return f" (own code {source_digest(own)[:SHOWN]})" if own else ""


def model_fingerprint(spec: str) -> str:
    """A model's spec and, unless it comes from the Hub, a digest of its files of weights: their sizes, ends and samples.

    Reading all of a large model would take minutes on some disks. So two models that differ in less than a MiB in a row, in
    the middle of a file of more than 2 MiB, may be taken for one. Merged adapters differ in more.

    Of adapters the digest holds what names their base too: on another one they are another model.

    Raises:
        job.models.ModelNotFound, job.container.ChannelNotFound: nothing where the spec points.
    """
    kind, _, name = spec.partition(":")
    if kind == "hub":
        return spec
    # A channel's archive is not unpacked for this.
    folder = channel(name) if kind == "channel" else Path(local_source(spec))
    digest = hashlib.sha256()
    for path in sorted(path for pattern in DIGESTED for path in folder.glob(pattern)):
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            digest.update(file.read(EDGE))
            for place in range(EDGE, size - EDGE, STRIDE):
                file.seek(place)
                digest.update(file.read(SAMPLE))
            file.seek(max(0, size - EDGE))
            digest.update(file.read(EDGE))
    return f"{spec} ({digest.hexdigest()[:SHOWN]})"
