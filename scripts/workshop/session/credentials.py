"""Keys of a boto3 session that are read anew while it is in use, so that `aws sso login` or new variables reach it too."""

import contextlib
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import boto3
import botocore.session
from botocore.credentials import Credentials, RefreshableCredentials
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

READ_EVERY_S = 30.0  # at most, by whoever sends a request
_METHOD = "workshop"
_EXPLICIT = "explicit"  # botocore's word for keys that were handed to the session


def stay_signed_in(session: boto3.Session) -> boto3.Session:
    """The same session, whose clients take up new keys from the kernel's settings; without keys it stays as it is.

    botocore renews what it has fetched itself (a role's, sign-in's), but keys that it found in variables or in a file stay
    what they were: temporary ones expire, and what is written in their place afterwards is not read.
    """
    core = session._session  # boto3 has no public name for it (1.44.5)
    found = core.get_credentials()
    if found is None or found.method in (_METHOD, _EXPLICIT):
        return session
    profile = core.instance_variables().get("profile")

    def read() -> dict[str, Any]:
        nonlocal found
        found = _read_anew(found, profile)
        return _as_metadata(found)

    # Read now and then, and not when they are about to expire: where keys lie in a file, nothing says when that is.
    # The first request reads them, and fails where they cannot be had.
    core._credentials = RefreshableCredentials(
        *("", "", ""),
        expiry_time=_now() - timedelta(seconds=1),
        refresh_using=read,
        method=_METHOD,
        time_fetcher=_now,
        advisory_timeout=0,
        mandatory_timeout=0,
    )
    return session


def _read_anew(found: Credentials, profile: str | None) -> Credentials:
    """What the settings give now; what renews itself is kept while it can. Raises NoCredentialsError."""
    if isinstance(found, RefreshableCredentials):
        with contextlib.suppress(BotoCoreError, ClientError):
            found.get_frozen_credentials()
            return found
    fresh = botocore.session.Session(profile=profile).get_credentials()
    if fresh is None:
        raise NoCredentialsError
    return fresh


def _as_metadata(credentials: Credentials) -> dict[str, Any]:
    """As RefreshableCredentials wants them."""
    until = _now() + timedelta(seconds=READ_EVERY_S)
    return {**credentials.get_frozen_credentials()._asdict(), "expiry_time": until.isoformat()}


def _now() -> datetime:
    return datetime.fromtimestamp(time.time(), UTC)
