"""Which environment variables hold secrets, by their names: they are not handed on to the endpoint nor to what it installs.

Standard library only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_SECRET = re.compile(
    r"SECRET|PASSWORD|PASSWD|PASSPHRASE|CREDENTIAL|TOKEN$|API_?KEY|ACCESS_KEY|PRIVATE_KEY|AUTH$|(^|_)PAT$",
    re.IGNORECASE,
)
# Names of secrets are none, and a language model has tokens of its own.
_NO_SECRET = re.compile(r"(_NAME|_ARN)$|^(pad|eos|bos)_token$", re.IGNORECASE)
# Settings of the installers, which need what opens a private index.
_INSTALLERS = ("PIP_", "UV_")


def is_secret(name: str) -> bool:
    """Whether a variable or hyperparameter of this name is taken to hold a secret: GITHUB_PAT, WANDB_API_KEY, ..."""
    return bool(_SECRET.search(name)) and not _NO_SECRET.search(name)


def without_secrets(variables: Mapping[str, str]) -> dict[str, str]:
    """An environment less its secrets; the installers' own settings stay."""
    return {
        name: value
        for name, value in variables.items()
        if name.startswith(_INSTALLERS) or not is_secret(name)
    }
