"""What to do when AWS does not answer: wait while that may help, and say what to do when it does not."""

from datetime import datetime

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    HTTPClientError,
    LoginError,
    NoAuthTokenError,
    NoCredentialsError,
    SSOError,
    TokenRetrievalError,
)
from local_sagemaker import client

from workshop.errors import WorkshopError

LOCAL_PATIENCE_S = 30.0  # a local endpoint that is silent for so long has ended, an AWS one was never there
PATIENCE_S = 600.0  # on AWS: a network that changes, or somebody who has to sign in again
# All that botocore itself takes for throttling, as far as these services send it, and what older ones say.
_THROTTLED = {
    "Throttling",
    "ThrottlingException",
    "ThrottledException",
    "TooManyRequests",
    "TooManyRequestsException",
    "RequestLimitExceeded",
    "RequestThrottled",
    "LimitExceededException",
    "SlowDown",
}
_EXPIRED = {
    "ExpiredToken",
    "ExpiredTokenException",
    "RequestExpired",
    "UnrecognizedClientException",
    "InvalidClientTokenId",
}
_NO_CREDENTIALS = (
    CredentialRetrievalError,
    LoginError,
    NoAuthTokenError,
    NoCredentialsError,
    SSOError,
    TokenRetrievalError,
)


class ConnectionLost(WorkshopError):
    """SageMaker (or the local endpoint) stopped answering while a job was watched."""


class EndpointEnded(ConnectionLost):
    """The local endpoint ended while a job was watched, and with it the job if that was not finished."""


class SessionExpired(WorkshopError):
    """AWS no longer takes the credentials of this kernel."""


def throttled(error: Exception) -> bool:
    """Whether AWS was asked too often."""
    return isinstance(error, ClientError) and error.response["Error"]["Code"] in _THROTTLED


def expired(error: Exception) -> bool:
    """Whether the credentials have expired, or cannot be had."""
    return isinstance(error, _NO_CREDENTIALS) or (
        isinstance(error, ClientError) and error.response["Error"]["Code"] in _EXPIRED
    )


def unreachable(error: Exception) -> bool:
    """Whether the network or the service failed: no connection, no name, no answer in time, or an answer of 5xx."""
    if isinstance(error, ClientError):
        return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0) >= 500
    return isinstance(error, (ConnectionError, HTTPClientError))


class Outage:
    """How long one watched job has been without an answer, and what that means."""

    def __init__(self, name: str, local: bool, now: float, url: str | None = None) -> None:
        """`now` is the time on a clock that never goes back, in seconds, as in the methods; `url` whom `local` means."""
        self._url = url if local else None
        self._name, self._patience_s, self._answered = name, LOCAL_PATIENCE_S if local else PATIENCE_S, now
        self._ever, self._since = False, datetime.now()

    def over(self, now: float) -> None:
        """There was an answer."""
        self._answered, self._ever, self._since = now, True, datetime.now()

    def note(self, error: BotoCoreError | ClientError, now: float) -> str:
        """What to show while waiting on.

        Raises SessionExpired, EndpointEnded or ConnectionLost when waiting does not help (any more), and the error itself
        when it is none of those that pass.
        """
        if self._url and unreachable(error) and (how := client.end_of(self._url)):
            raise EndpointEnded(
                f"The local endpoint has ended: {how}. With it ended {self._name}, if it was not finished.\nRun the cell with "
                f"open_session again: it starts the endpoint with all its jobs, logs and files. watch({self._name!r}) then says "
                "how the job ended. Start one with the same checkpoint address to go on from its checkpoints."
            ) from error
        silent = now - self._answered
        if expired(error):
            if not self._ever or silent > self._patience_s:
                raise SessionExpired(
                    f"Your session has expired: sign in again (`aws sso login`, or restart the Studio kernel), open the "
                    f"session again and run watch({self._name!r}) again; the job goes on.\nAWS said: {error}"
                ) from error
            return (
                "Your session has expired: sign in again (`aws sso login` in a terminal). This goes on by itself then; "
                "the job goes on in any case."
            )
        if not (throttled(error) or unreachable(error)):
            raise error
        patience_s = self._patience_s if self._ever or throttled(error) else LOCAL_PATIENCE_S
        if silent > patience_s:
            raise ConnectionLost(
                f"No answer for {silent:.0f} s while watching {self._name}; the job goes on, unless it was the local "
                f"endpoint that ended. Watch it again: watch({self._name!r}).\nThe last error: {error}"
            ) from error
        if throttled(error):
            return "AWS is asked too often at the moment, by all who use this account; it is asked more seldom now."
        return f"No answer since {self._since:%H:%M:%S}; still trying, and the job goes on."
