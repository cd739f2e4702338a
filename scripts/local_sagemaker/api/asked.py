"""Who asks for which operation of which service: read from a request before moto answers it.

Both the record of calls (calls.py) and the refusals (allowed.py) go by this, so that what is recorded, refused and
carried out is told apart in one way.
"""

import io
import json
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import parse_qs, unquote

# How a request says what it wants, and so the form of its answer: an operation in a header and JSON, an operation in a
# form and XML, a path for each operation, or an operation in the path and CBOR.
Protocol = Literal["json", "query", "rest", "cbor"]
# Paths that moto takes for itself whatever the service: its own controls and the metadata of an EC2 machine.
_OF_MOTO = ("/moto-api", "/latest/meta-data/", "/latest/api")
_S3_CONTROL = "/v20180820/"  # account-wide settings of S3, which are signed as S3 is


@dataclass(frozen=True)
class Asked:
    """One request."""

    key: str  # access key, which says who asks; "" if the request is not signed
    service: str  # the name that requests are signed with, e.g. "servicequotas"
    operation: str  # as the API names it; for protocol "rest" method and path
    protocol: Protocol
    # Of a JSON body or a form, without those that are null, which AWS takes for missing.
    members: dict[str, Any]
    flaw: str = ""  # why the body cannot be read


def read_request(environ: dict) -> Asked:
    """The request of this WSGI environment, which can be answered afterwards as before."""
    key, service = _signature(environ)
    path = environ.get("PATH_INFO", "")
    target = environ.get("HTTP_X_AMZ_TARGET", "")
    if service == "s3" and path.startswith(_S3_CONTROL):
        service = "s3control"
    if path.startswith(_OF_MOTO):
        service = "moto"
    if not key and ("_" in path.lstrip("/").partition("/")[0] or "/.well-known/" in path):
        service = "unsigned"  # by such a path moto would find another service than S3
    if "HTTP_SMITHY_PROTOCOL" in environ:
        return Asked(key, service, path.rpartition("/")[2], "cbor", {})
    if target:
        service = "unsigned" if service == "s3" else service
        members, flaw = _json_members(_body(environ), environ)
        return Asked(key, service, target.rpartition(".")[2], "json", members, flaw)
    is_s3_object = service == "s3" and path != "/"  # whose content may be a form, too
    form = {} if is_s3_object else _form_members(environ)
    if "Action" in form:
        return Asked(key, "unsigned" if service == "s3" else service, form["Action"], "query", form)
    return Asked(key, service, f"{environ['REQUEST_METHOD']} {path}", "rest", {})


def _signature(environ: dict) -> tuple[str, str]:
    """Access key and service that the request was signed with: in its header, or in the query of a presigned URL."""
    signed = environ.get("HTTP_AUTHORIZATION", "") + "&" + unquote(environ.get("QUERY_STRING", ""))
    scope = re.search(r"Credential=([^/]+)/\d+/[^/]+/([^/]+)/aws4_request", signed)
    return (scope.group(1), scope.group(2).lower()) if scope else ("", "s3")


def _body(environ: dict) -> bytes:
    """The request's body, which is put back."""
    size = environ.get("CONTENT_LENGTH") or "0"
    body = environ["wsgi.input"].read(int(size)) if size.isdigit() else b""
    environ["wsgi.input"] = io.BytesIO(body)
    return body


def _json_members(body: bytes, environ: dict) -> tuple[dict[str, Any], str]:
    """The members of a JSON body, and what is wrong with it. moto is given it without its nulls."""
    try:
        members = json.loads(body or b"{}", parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        return {}, f"the request's body is not JSON: {error}"
    if not isinstance(members, dict):
        return {}, f"the request's body must be a JSON object, not {body[:40].decode(errors='replace')}"
    if b"null" in body or not body:
        members = _without_nulls(members)
        body = json.dumps(members).encode()
        environ["wsgi.input"], environ["CONTENT_LENGTH"] = io.BytesIO(body), str(len(body))
    return members, ""


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON number")


def _without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    return [_without_nulls(item) for item in value] if isinstance(value, list) else value


def _form_members(environ: dict) -> dict[str, str]:
    """The fields of a form: the body's, or those of the address."""
    form = environ.get("QUERY_STRING", "")
    if "form-urlencoded" in environ.get("CONTENT_TYPE", ""):
        form = _body(environ).decode(errors="replace") or form
    return {name: values[0] for name, values in parse_qs(form, keep_blank_values=True).items()}
