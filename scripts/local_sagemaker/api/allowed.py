"""The operations that are carried out; every other one, of whatever service, is refused by its name.

moto would answer most of the others as if they had happened: a tuning job that is Completed and ran nothing, an
endpoint that predicts the same whatever it is asked. Here nothing succeeds that was not done. A request for an
operation that is carried out is refused, too, if it is not what the service's model in botocore says.
"""

import functools
import json
import re
from collections.abc import Iterable
from typing import NamedTuple
from xml.sax.saxutils import escape

import botocore.session
from botocore.model import OperationModel, ServiceModel

from local_sagemaker.api.asked import Asked
from local_sagemaker.api.calls import SERVICE_KEY
from local_sagemaker.api.service_limits import misfits, service_model, violations

# By the name that a service's requests are signed with. S3 is not here: moto really carries out what is asked of it.
CARRIED_OUT = {
    "sagemaker": """
        CreateTrainingJob DescribeTrainingJob ListTrainingJobs StopTrainingJob Search AddTags ListTags DeleteTags
    """,
    "logs": """
        CreateLogGroup CreateLogStream PutLogEvents DescribeLogStreams GetLogEvents FilterLogEvents
    """,
    "secretsmanager": """
        CreateSecret DescribeSecret GetSecretValue ListSecrets PutSecretValue UpdateSecret DeleteSecret
    """,
    "iam": "GetRole SimulatePrincipalPolicy",
    "sts": "GetCallerIdentity",
    "servicequotas": "ListServiceQuotas",
}
_NAMES = {service: frozenset(names.split()) for service, names in CARRIED_OUT.items()}
REFUSED = "LocalModeNotSupported"
# What to do instead, for what learners are likely to try: the first pattern that is found in "service:Operation".
_INSTEAD = {
    r"^sagemaker:.*HyperParameterTuningJob": "Start a training job for each set of values instead, with trainer.train()"
    " in a loop, and compare their FinalMetricDataList. (A tuning job's request names an image, but no command to run"
    " in it; the script would be run by the image's own `train`, and images are not run here.)",
    r"^sagemaker:(Update|Delete)TrainingJob$": "A job stays as it was created; create another under a new name.",
    r"^sagemaker:.*(Processing|Transform|AutoML|Compilation|Labeling)": "Do this work in a training job, or in the"
    " notebook.",
    r"^sagemaker:.*(Endpoint|Invo[ck]|Model$)": "Load the job's model.tar.gz and run the model in the notebook; to"
    " serve it, use AWS.",
    r"^sagemaker:.*Pipeline": "Start the steps' training jobs one after the other instead.",
    r"^sagemaker.*(Experiment|Trial|Metrics|[Mm]lflow)": "A job's metrics are in its FinalMetricDataList and its logs.",
    r"^iam:": "Roles need not be created or given rights here: every role exists, and is allowed everything.",
    r"^sts:": "Credentials are not checked here; any will do.",
    r"^(ecr|codebuild):": "Images are not run here; a job's requirements.txt says what it needs.",
    r"^unsigned:": "The request is not signed, so that its service is not known: use boto3, with any credentials.",
}
_OTHERWISE = "Use it on AWS."


class Refusal(NamedTuple):
    """An error of AWS: its code and its message."""

    code: str
    message: str


def refusal(asked: Asked) -> Refusal | None:
    """Why a request is not passed on to moto; None if it is."""
    if asked.service == "s3":
        return None
    if asked.operation not in _NAMES.get(asked.service, ()):
        return _not_carried_out(asked)
    # This endpoint's own requests come from boto3, and the lines of its jobs' logs are many.
    return None if asked.key == SERVICE_KEY else _malformed(asked)


def failed(asked: Asked, error: Exception) -> Refusal:
    """What is said of a request on which moto, or this endpoint, failed."""
    return Refusal(
        REFUSED,
        f"local_sagemaker could not carry out {asked.service}:{asked.operation} as it was asked for:"
        f" {type(error).__name__}: {error}. Compare the request with AWS's page of the operation; the whole traceback"
        " is in endpoint.log.",
    )


def _not_carried_out(asked: Asked) -> Refusal:
    called = f"{asked.service}:{_operation_name(asked)}"
    instead = next((text for pattern, text in _INSTEAD.items() if re.search(pattern, called)), _OTHERWISE)
    here = ", ".join(sorted(_NAMES.get(asked.service, ())))
    return Refusal(
        REFUSED,
        f"local_sagemaker does not carry out {called}, and nothing was done. {instead}"
        + (f" Of {asked.service} it carries out {here}." if here else ""),
    )


def _malformed(asked: Asked) -> Refusal | None:
    """What is wrong with a request for a known operation, as AWS says it: by the kind of fault and of service.

    A body that cannot be turned into the operation's input is a SerializationException ("STRING_VALUE can not be
    converted to an Integer", https://github.com/aws/aws-cdk/pull/27087). Input outside the model's limits is a
    ValidationException (https://docs.aws.amazon.com/sagemaker/latest/APIReference/CommonErrors.html), a
    ValidationError of the services with forms (https://docs.aws.amazon.com/IAM/latest/APIReference/CommonErrors.html),
    and an InvalidParameterException where the operation's model lists that one. AWS's sentences are not documented;
    these name the member.
    """
    operation = service_model(asked.service).operation_model(asked.operation)
    members = _form_input(asked, operation) if asked.protocol == "query" else asked.members
    wrong = [asked.flaw] if asked.flaw else misfits(members, operation.input_shape)
    if wrong:
        return Refusal("SerializationException", "; ".join(wrong))
    wrong = violations(members, operation.input_shape)
    return Refusal(_invalid(asked, operation), "; ".join(wrong)) if wrong else None


def _invalid(asked: Asked, operation: OperationModel) -> str:
    if asked.protocol == "query":
        return "ValidationError"
    listed = {shape.name for shape in operation.error_shapes}
    return "InvalidParameterException" if "InvalidParameterException" in listed else "ValidationException"


def _form_input(asked: Asked, operation: OperationModel) -> dict:
    """The members of a form as far as the model's limits are looked at: texts as they are, numbers as numbers.

    A list (Names.member.1, ...) is only looked at for being there; Action and Version are of the form, not the input.
    """
    shape, found = operation.input_shape, {}
    for name in shape.members if shape else ():
        kind = shape.members[name].type_name
        text = asked.members.get(name)
        if kind == "list":
            items = [value for key, value in asked.members.items() if key.startswith(f"{name}.member.")]
            found |= {name: items} if items else {}
        elif text is not None:
            number = kind in ("integer", "long") and re.fullmatch(r"-?\d+", text)
            found[name] = int(text) if number else text
    return found


def _operation_name(asked: Asked) -> str:
    """The operation's name in the API, or method and path where no service of that name has such a path."""
    if asked.protocol != "rest":
        return asked.operation
    method, _, path = asked.operation.partition(" ")
    for model in _models(asked.service):
        for name in model.operation_names:
            http = model.operation_model(name).http
            uri = re.sub(r"\\\{[^}]+\\\}", "[^/]+", re.escape(http["requestUri"].partition("?")[0]))
            if http["method"] == method and uri != "/" and re.fullmatch(uri + "/?", path):
                return name
    return asked.operation


def _models(service: str) -> Iterable[ServiceModel]:
    """Models of the services that are signed as `service`: it, and those named like it (sagemaker-runtime, ...)."""
    named = [n for n in _service_names() if n == service or n.startswith(f"{service}-")]
    return map(service_model, named)


@functools.cache
def _service_names() -> list[str]:
    return botocore.session.Session().get_available_services()


def error_answer(asked: Asked, wrong: Refusal) -> tuple[list[tuple[str, str]], bytes]:
    """Headers and body of the error in the form of the request's protocol, so that boto3 raises it as a ClientError.

    The forms: https://smithy.io/2.0/aws/protocols/index.html
    """
    code, message = wrong
    if asked.protocol == "cbor":
        pairs = (("__type", code), ("message", message))
        body = b"\xa2" + b"".join(_cbor_text(text) for pair in pairs for text in pair)  # a map of two
        return [("Content-Type", "application/cbor"), ("smithy-protocol", "rpc-v2-cbor")], body
    of_xml = asked.protocol == "rest" and any(m.protocol == "rest-xml" for m in _models(asked.service))
    if asked.protocol == "query" or of_xml:
        error = f"<Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>"
        root = "Response" if asked.service == "ec2" else "ErrorResponse"
        error = f"<Errors>{error}</Errors>" if asked.service == "ec2" else error
        return [
            ("Content-Type", "text/xml")
        ], f"<{root}>{error}<RequestId>local</RequestId></{root}>".encode()
    body = json.dumps({"__type": code, "message": message}).encode()
    return [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", code)], body


def _cbor_text(text: str) -> bytes:
    """A text of less than 64 KiB in CBOR: https://www.rfc-editor.org/rfc/rfc8949.html#section-3.1"""
    return b"\x79" + len(text.encode()).to_bytes(2) + text.encode()
