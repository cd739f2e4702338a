"""The limits that AWS itself puts on a request (lengths, patterns, allowed values), out of botocore's model.

boto3 checks only types and required members; the service checks the rest, and so must the endpoint: what
is accepted here must not be refused on AWS.
"""

import functools
import re
from typing import Any

import botocore.session
from botocore.model import Shape


@functools.cache
def request_shape(operation: str) -> Shape:
    """Input shape of a SageMaker operation, e.g. "CreateTrainingJob"."""
    return botocore.session.Session().get_service_model("sagemaker").operation_model(operation).input_shape


def violations(value: Any, shape: Shape, path: str = "") -> list[str]:
    """What is wrong with `value`, one sentence each, naming the parameter; empty if all is well."""
    if shape.type_name == "structure":
        known = [(name, shape.members[name]) for name in value if name in shape.members]
        missing = [f"{_join(path, name)} is required" for name in shape.required_members if name not in value]
        unknown = [
            f"{_join(path, name)} is not a known parameter" for name in value if name not in shape.members
        ]
        deeper = [v for name, member in known for v in violations(value[name], member, _join(path, name))]
        return missing + unknown + deeper
    found = _own_violations(value, shape, path)
    if shape.type_name == "list":
        for index, item in enumerate(value):
            found += violations(item, shape.member, f"{path}[{index}]")
    elif shape.type_name == "map":
        for key, item in value.items():
            found += violations(key, shape.key, f"{path} (key {key!r})")
            found += violations(item, shape.value, _join(path, key))
    return found


def _own_violations(value: Any, shape: Shape, path: str) -> list[str]:
    limits = shape.metadata
    size = len(value) if isinstance(value, str | list | dict) else value
    of = "" if isinstance(value, int | float) else " in length"
    found = []
    if "min" in limits and size < limits["min"]:
        found.append(f"{path} must be at least {limits['min']}{of}")
    if "max" in limits and size > limits["max"]:
        found.append(f"{path} must be at most {limits['max']}{of} (it is {size})")
    if limits.get("enum") and value not in limits["enum"]:
        choices = limits["enum"] if len(limits["enum"]) < 12 else "the values the service knows"
        found.append(f"{path}={value!r} is not one of {choices}")
    pattern = limits.get("pattern", "")
    if pattern and r"\p{" not in pattern and not re.fullmatch(pattern, str(value)):  # \p{..} is not Python
        found.append(f"{path}={value!r} does not match the pattern {pattern}")
    return found


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
