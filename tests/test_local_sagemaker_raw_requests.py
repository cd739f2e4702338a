"""Requests without boto3: which operation they ask for, and what is said of those that are not as their shape says."""

import io
import json
import re
import urllib.error
import urllib.request

import pytest
from local_sagemaker.api.allowed import CARRIED_OUT, refusal
from local_sagemaker.api.asked import read_request
from local_sagemaker.api.calls import SERVICE_KEY
from local_sagemaker.api.service_limits import service_model


def asked(operation: str, service: str = "sagemaker", key: str = "local", body: object = None) -> dict:
    """The WSGI environment of a JSON request."""
    content = body if isinstance(body, bytes) else json.dumps({} if body is None else body).encode()
    scope = f"{key}/20260101/us-east-1/{service}/aws4_request"
    return {
        "REQUEST_METHOD": "POST",
        "PATH_INFO": "/",
        "CONTENT_TYPE": "application/x-amz-json-1.1",
        "CONTENT_LENGTH": str(len(content)),
        "HTTP_X_AMZ_TARGET": f"Any.{operation}",
        "HTTP_AUTHORIZATION": f"AWS4-HMAC-SHA256 Credential={scope}, SignedHeaders=host, Signature=0",
        "wsgi.input": io.BytesIO(content),
    }


@pytest.mark.parametrize("service", CARRIED_OUT)
def test_the_list_names_operations_of_the_service_whose_limits_can_be_read(service):
    model = service_model(service)
    names = CARRIED_OUT[service].split()
    assert set(names) <= set(model.operation_names) and len(set(names)) == len(names)

    def patterns(shape, seen=()):
        if shape is None or shape.name in seen:
            return
        yield shape.metadata.get("pattern", "")
        inner = list(getattr(shape, "members", {}).values())
        inner += [
            part for part in (getattr(shape, name, None) for name in ("member", "key", "value")) if part
        ]
        for part in inner:
            yield from patterns(part, (*seen, shape.name))

    for name in names:
        for pattern in patterns(model.operation_model(name).input_shape):
            if r"\p{" not in pattern:
                re.compile(pattern)


@pytest.mark.parametrize(
    "environ",
    [
        {"HTTP_X_AMZ_TARGET": "SageMaker.CreateTrainingJob"},
        {"QUERY_STRING": "Action=AssumeRoleWithWebIdentity"},
        {"PATH_INFO": "/lambda_us-east-1/2015-03-31/functions"},
        {"PATH_INFO": "/moto-api/reset", "REQUEST_METHOD": "POST"},
        {"PATH_INFO": "/latest/meta-data/iam/security-credentials"},
        {"PATH_INFO": "/v20180820/accesspoint/a"},
    ],
)
def test_what_is_not_signed_reaches_s3_alone(environ):
    plain = {"REQUEST_METHOD": "GET", "PATH_INFO": "/", "wsgi.input": io.BytesIO()}
    assert refusal(read_request(plain | environ)).code == "LocalModeNotSupported"
    assert refusal(read_request(plain | {"PATH_INFO": "/bucket/key_with_it"})) is None


def test_an_object_that_is_a_form_is_left_as_it_is():
    content = b"Action=DeleteBucket&Version=1"
    environ = {
        "REQUEST_METHOD": "PUT",
        "PATH_INFO": "/bucket/key",
        "CONTENT_TYPE": "application/x-www-form-urlencoded",
        "CONTENT_LENGTH": str(len(content)),
        "wsgi.input": io.BytesIO(content),
    }
    assert read_request(environ).service == "s3" and environ["wsgi.input"].read() == content


@pytest.mark.parametrize(
    ("operation", "body", "code", "words"),
    [
        ("DescribeTrainingJob", {"TrainingJobName": 5}, "SerializationException", "TrainingJobName must be a text in JSON, not 5"),
        ("DescribeTrainingJob", {}, "ValidationException", "TrainingJobName is required"),
        ("DescribeTrainingJob", {"TrainingJobName": None}, "ValidationException", "TrainingJobName is required"),
        ("DescribeTrainingJob", b"", "ValidationException", "TrainingJobName is required"),
        ("DescribeTrainingJob", [1], "SerializationException", "must be a JSON object, not [1]"),
        ("DescribeTrainingJob", b"{", "SerializationException", "is not JSON"),
        ("DescribeTrainingJob", b'{"TrainingJobName": "\xff"}', "SerializationException", "is not JSON"),
        ("ListTrainingJobs", b'{"MaxResults": NaN}', "SerializationException", "NaN is no JSON number"),
        ("ListTrainingJobs", b"[" * 100_000, "SerializationException", "is not JSON"),
        ("ListTrainingJobs", {"MaxResults": "5"}, "SerializationException", "MaxResults must be an integer in JSON, not \"5\""),
        ("ListTrainingJobs", {"MaxResults": True}, "SerializationException", "MaxResults must be an integer in JSON, not true"),
        ("ListTrainingJobs", {"MaxResults": 101}, "ValidationException", "MaxResults must be at most 100 (it is 101)"),
        ("ListTrainingJobs", {"StatusEquals": "Done"}, "ValidationException", "StatusEquals='Done' is not one of"),
        ("ListTrainingJobs", {"CreationTimeAfter": "now"}, "SerializationException", "CreationTimeAfter must be a number of seconds"),
        ("Search", {"Resource": "TrainingJob", "SearchExpression": {"Filters": [5]}}, "SerializationException", "SearchExpression.Filters[0] must be an object"),
        ("CreateTrainingJob", {"HyperParameters": {"lr": 0.1}}, "SerializationException", "HyperParameters.lr must be a text in JSON, not 0.1"),
    ],
)  # fmt: skip
def test_a_request_that_is_not_as_its_shape_says(operation, body, code, words):
    wrong = refusal(read_request(asked(operation, body=body)))
    assert wrong is not None and (wrong.code, words in wrong.message) == (code, True), wrong


def test_each_service_says_it_with_its_own_code():
    code = refusal(read_request(asked("GetLogEvents", "logs", body={"logStreamName": "a", "limit": 0}))).code
    assert code == "InvalidParameterException"
    form = asked("", "iam") | {"CONTENT_TYPE": "application/x-www-form-urlencoded"}
    del form["HTTP_X_AMZ_TARGET"]
    for content, code in (
        (b"Action=GetRole", "ValidationError"),
        (b"Action=GetRole&RoleName=a/b", "ValidationError"),
        (b"Action=SimulatePrincipalPolicy&PolicySourceArn=arn:aws:iam::1:role/x&MaxItems=many&ActionNames.member.1=a:b", "SerializationException"),
    ):  # fmt: skip
        environ = form | {"CONTENT_LENGTH": str(len(content)), "wsgi.input": io.BytesIO(content)}
        assert refusal(read_request(environ)).code == code, content


def test_the_endpoints_own_requests_are_not_read_twice():
    """100,000 lines of a log; only its own boto3 clients have this key."""
    assert refusal(read_request(asked("PutLogEvents", "logs", key=SERVICE_KEY, body={"x": 1}))) is None
    assert refusal(read_request(asked("StartQuery", "logs", key=SERVICE_KEY))) is not None


def raw(url: str, environ: dict) -> tuple[int, dict]:
    """Status and answer of the request of this WSGI environment, sent without boto3."""
    headers = {
        "Content-Type": environ["CONTENT_TYPE"],
        "X-Amz-Target": environ["HTTP_X_AMZ_TARGET"],
        "Authorization": environ["HTTP_AUTHORIZATION"],
    }
    request = urllib.request.Request(url, data=environ["wsgi.input"].read(), headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.status, json.loads(answer.read() or b"{}")
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


WRONG = [5, "text", True, [], [5], {}, {"x": 5}, -1, "x" * 100_000]


@pytest.mark.parametrize("service", [name for name in CARRIED_OUT if name not in ("iam", "sts")])
def test_no_member_of_any_type_makes_the_endpoint_fail(endpoint, service):
    """Each member of each operation, alone, as each type of JSON."""
    model = service_model(service)
    for operation in CARRIED_OUT[service].split():
        for member in model.operation_model(operation).input_shape.members:
            for value in WRONG:
                status, answer = raw(endpoint.url, asked(operation, service, body={member: value}))
                assert status < 500 and ("__type" in answer) == (status >= 400), (operation, member, answer)


def test_a_null_is_as_if_it_were_not_there(endpoint):
    body = {"NameContains": None, "MaxResults": 5, "SortBy": None}
    assert raw(endpoint.url, asked("ListTrainingJobs", body=body)) == (200, {"TrainingJobSummaries": []})
