"""Keys that expire while a session is in use: the clients of the trainer and of `watch` take up new ones. No AWS is asked."""

import io
import types
from datetime import UTC, datetime, timedelta

import boto3
import botocore.httpsession
import botocore.session
import pytest
from botocore.awsrequest import AWSResponse
from botocore.credentials import CredentialProvider, RefreshableCredentials
from botocore.exceptions import NoCredentialsError, SSOTokenLoadError
from workshop.jobs.status import default_session
from workshop.session import connection, credentials
from workshop.session.account import AccountSettings
from workshop.session.credentials import READ_EVERY_S, stay_signed_in

ANSWERS = {
    "sts": b"<R><GetCallerIdentityResult><Account>1</Account></GetCallerIdentityResult></R>",
    "s3": b"<R><Buckets><Bucket><Name>bucket</Name><CreationDate>2026-01-01T00:00:00Z</CreationDate></Bucket></Buckets></R>",
}


class _Body(io.BytesIO):
    def stream(self, **_):
        yield self.read()


@pytest.fixture
def clock(monkeypatch, tmp_path):
    """A clock that stands still, and somebody who has temporary keys in variables."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE", "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials"),
        "AWS_CONFIG_FILE": str(tmp_path / "config"),
        "AWS_DEFAULT_REGION": "us-west-2",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    sign_in(monkeypatch, "first")
    now = types.SimpleNamespace(time=lambda: now.at, at=1_800_000_000.0)
    monkeypatch.setattr(credentials, "time", now)
    monkeypatch.setattr(boto3, "DEFAULT_SESSION", None)
    return now


def sign_in(monkeypatch, key: str) -> None:
    for name, value in {
        "ACCESS_KEY_ID": key,
        "SECRET_ACCESS_KEY": "secret",
        "SESSION_TOKEN": f"{key}-token",
    }.items():
        monkeypatch.setenv(f"AWS_{name}", value)


@pytest.fixture
def asked(monkeypatch) -> list[str]:
    """The access keys of the requests that were sent; each is answered."""
    keys = []

    def send(_, request):
        headers = request.headers
        keys.append(headers["Authorization"].decode().partition("Credential=")[2].partition("/")[0])
        assert headers["X-Amz-Security-Token"] in (f"{keys[-1]}-token", f"{keys[-1]}-token".encode())
        content = next((text for word, text in ANSWERS.items() if word in request.url), b"{}")
        return AWSResponse(request.url, 200, {}, _Body(content))

    monkeypatch.setattr(botocore.httpsession.URLLib3Session, "send", send)
    return keys


def test_the_trainer_s_session_takes_up_new_keys_as_watch_does(clock, asked, monkeypatch):
    monkeypatch.setattr(connection, "read_account", AccountSettings)
    ws = connection.open_session("sagemaker", role="arn:aws:iam::1:role/r", bucket="bucket")
    try:
        assert default_session() is ws.session.boto_session, (
            "one session for trainer, watch and the notebook's clients"
        )
        assert set(asked) == {"first"}
        sign_in(monkeypatch, "second")
        clock.at += READ_EVERY_S + 1
        asked.clear()
        ws.session.sagemaker_client.list_training_jobs()  # a client that was there before
        ws.session.s3_client.head_bucket(Bucket="bucket")
        boto3.client("sagemaker").list_training_jobs()
        assert asked == ["second"] * 3
    finally:
        connection._restore_kernel()


def test_keys_in_a_file_are_read_anew_and_not_for_each_request(clock, monkeypatch, tmp_path):
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}")

    def write(key: str) -> None:
        (tmp_path / "credentials").write_text(
            f"[work]\naws_access_key_id = {key}\naws_secret_access_key = s\n"
        )

    write("one")
    keys = stay_signed_in(boto3.Session(profile_name="work")).get_credentials()
    assert keys.get_frozen_credentials()[:3] == ("one", "s", None)
    write("two")
    assert keys.access_key == "one"
    clock.at += READ_EVERY_S + 1
    assert keys.access_key == "two"
    (tmp_path / "credentials").write_text("[work]\n")
    clock.at += READ_EVERY_S + 1
    with pytest.raises(NoCredentialsError):
        keys.get_frozen_credentials()
    write("three")
    assert keys.access_key == "three", "what was not there is looked for again"


class Fetched(CredentialProvider):
    """A sign-in that botocore renews itself, until it raises."""

    METHOD = "fetched"

    def __init__(self):
        super().__init__()
        self.fetched, self.error = 0, None

    def load(self) -> RefreshableCredentials:
        return RefreshableCredentials(
            *("k0", "s", "t"), datetime.now(UTC) - timedelta(1), self.fetch, self.METHOD
        )

    def fetch(self) -> dict[str, str]:
        if self.error:
            raise self.error
        self.fetched += 1
        until = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
        return {"access_key": f"k{self.fetched}", "secret_key": "s", "token": "t", "expiry_time": until}


def test_what_botocore_renews_itself_is_left_to_it_while_it_can(clock):
    provider, core = Fetched(), botocore.session.Session()
    core.get_component("credential_provider").insert_before("env", provider)
    keys = stay_signed_in(boto3.Session(botocore_session=core)).get_credentials()
    for _ in range(3):
        clock.at += READ_EVERY_S + 1
        assert keys.access_key == "k1" and provider.fetched == 1


def test_a_sign_in_that_cannot_be_renewed_is_looked_for_anew(clock):
    provider, core = Fetched(), botocore.session.Session()
    provider.error = SSOTokenLoadError(error_msg="signed out")
    core.get_component("credential_provider").insert_before("env", provider)
    assert stay_signed_in(boto3.Session(botocore_session=core)).get_credentials().access_key == "first"


def test_what_needs_no_care_is_left_alone(clock, monkeypatch):
    given = boto3.Session("mine", "secret")
    assert stay_signed_in(given).get_credentials().method == "explicit"
    once = stay_signed_in(boto3.Session()).get_credentials()
    assert stay_signed_in(stay_signed_in(boto3.Session())).get_credentials().access_key == once.access_key
    for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY", "SESSION_TOKEN"):
        monkeypatch.delenv(f"AWS_{name}")
    assert stay_signed_in(boto3.Session()).get_credentials() is None
