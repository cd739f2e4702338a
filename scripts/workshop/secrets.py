"""What looks like a secret: in a request, which everyone who may describe the job can read, and among a job's files."""

import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from local_sagemaker.secret_names import is_secret

# Files that hold keys, whatever is in them. (Hidden files, such as .env and .netrc, are never sent.)
SECRET_FILES = (
    "id_rsa",
    "id_dsa",
    "id_ecdsa",
    "id_ed25519",
    "*.pem",
    "*.key",
    "*.ppk",
    "*.p12",
    "*.pfx",
    "*.kdbx",
    "credentials",
    "credentials.[!p]*",  # not credentials.py
    "secrets.[!p]*",
    "service_account*.json",
)
# Tokens that tell by their form whose they are.
_TOKENS = {
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "an AWS access key": re.compile(r"\b(AKIA|ASIA)[0-9A-Z]{16}\b"),
    "a GitHub token": re.compile(r"\bgh[pousr]_[A-Za-z0-9]{36}\b|\bgithub_pat_\w{40,}"),
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{30,}\b"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{32,}|\bAIza[A-Za-z0-9_-]{35}"),
    "a Slack token": re.compile(r"\bxox[abprs]-[A-Za-z0-9-]{10,}"),
}
# user:password@ in an address; ${TOKEN} and <password> stand for one and are none.
_PASSWORD = re.compile(r"[a-z][a-z0-9+.-]*://[^\s/:@]*:[^\s/@${<][^\s/@]*@", re.IGNORECASE)
_LARGEST_TEXT = 2**20  # bytes; keys lie in small files


def secret_in(name: str, value: object) -> str | None:
    """What a variable or hyperparameter gives away, in words; None if nothing. The value itself is never in them."""
    if is_secret(name):
        return "a secret, by its name"
    text = value if isinstance(value, str) else str(value)
    if _PASSWORD.search(text):
        return "an address with a password in it"
    return token_in(text)


def token_in(text: str) -> str | None:
    """Whose token is in a text, by its form; None if there is none."""
    return next((kind for kind, pattern in _TOKENS.items() if pattern.search(text)), None)


def secret_files(folder: Path) -> Iterator[tuple[Path, str]]:
    """Each file below a folder that is or holds a secret, and what kind."""
    for path in sorted(folder.rglob("*")):
        if not path.is_file():
            continue
        if pattern := next(
            (pattern for pattern in SECRET_FILES if fnmatch(path.name.lower(), pattern)), None
        ):
            yield path, f"its name is that of a file with secrets ({pattern})"
        elif path.stat().st_size <= _LARGEST_TEXT and (kind := token_in(_text(path))):
            yield path, f"{kind} is in it"


def _text(path: Path) -> str:
    return path.read_bytes().decode("utf-8", errors="replace")
