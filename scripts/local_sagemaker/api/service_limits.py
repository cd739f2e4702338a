"""The limits that AWS itself puts on a request (types, lengths, patterns, allowed values), out of botocore's model.

boto3 checks only types and required members; the service checks the rest, and so must the endpoint: what
is accepted here must not be refused on AWS. And a request need not come from boto3.
"""

import functools
import json
import re
from typing import Any

import botocore.session
from botocore.model import ServiceModel, Shape

# What a value must be in JSON, by the types of shapes; all other shapes (string, blob, character) are texts.
_INTEGER, _NUMBER, _OBJECT = ("an integer", (int,)), ("a number", (int, float)), ("an object", (dict,))
_TEXT: tuple[str, tuple[type, ...]] = ("a text", (str,))
_JSON_TYPES: dict[str, tuple[str, tuple[type, ...]]] = {
    "structure": _OBJECT,
    "map": _OBJECT,
    "list": ("a list", (list,)),
    "integer": _INTEGER,
    "long": _INTEGER,
    "boolean": ("true or false", (bool,)),
    "float": _NUMBER,
    "double": _NUMBER,
    "timestamp": ("a number of seconds", (int, float)),
}
_SIGNED_AS = {"servicequotas": "service-quotas"}  # where botocore has another name for a service
INSTANCES = 20  # quota of each instance type and usage: more than any recipe asks for
_USAGES = ("training job usage", "spot training job usage", "training warm pool usage")


@functools.cache
def service_model(service: str) -> ServiceModel:
    """botocore's model of the service that requests are signed for, e.g. "sagemaker"."""
    return botocore.session.Session().get_service_model(_SIGNED_AS.get(service, service))


def request_shape(operation: str) -> Shape:
    """Input shape of a SageMaker operation, e.g. "CreateTrainingJob"."""
    return service_model("sagemaker").operation_model(operation).input_shape


def service_quotas() -> list[dict]:
    """The quotas of ListServiceQuotas: one for each instance type and usage, and of all types together, all the same."""
    types = request_shape("CreateTrainingJob").members["ResourceConfig"].members["InstanceType"].enum
    names = [f"{kind} for {usage}" for kind in types for usage in _USAGES]
    names += [f"Number of instances across all {jobs}" for jobs in ("training jobs", "spot training jobs")]
    return [{"ServiceCode": "sagemaker", "QuotaName": name, "Value": float(INSTANCES)} for name in names]


def exceeded_quota(instance_type: str, instances: int, spot: bool) -> str | None:
    """What the service says of a job with more instances than the quota; None if it is within it.

    In the service's own words (https://github.com/gabehollombe-aws/jupyter-notebooks/issues/1). Instances of other
    jobs do not count: here those wait in a queue, so that the job alone must fit.
    """
    usage = _USAGES[1 if spot else 0]
    if instances <= INSTANCES:
        return None
    return (
        f"The account-level service limit '{instance_type} for {usage}' is {INSTANCES} Instances, with current"
        f" utilization of 0 Instances and a request delta of {instances} Instances. Ask for {INSTANCES} at most:"
        " ResourceConfig.InstanceCount. (On AWS: request an increase in Service Quotas.)"
    )


def misfits(value: Any, shape: Shape | None, path: str = "") -> list[str]:
    """Where the JSON value is of another type than the shape says, one sentence each; members unknown are left out."""
    if shape is None:  # the operation takes no input
        return []
    wanted, types = _JSON_TYPES.get(shape.type_name, _TEXT)
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        shown = json.dumps(value)
        return [
            f"{path or 'the request'} must be {wanted} in JSON, not {shown[:60]}{'...' * (len(shown) > 60)}"
        ]
    if isinstance(value, list):
        return [v for i, item in enumerate(value) for v in misfits(item, shape.member, f"{path}[{i}]")]
    if isinstance(value, dict) and shape.type_name == "map":
        return [v for key, item in value.items() for v in misfits(item, shape.value, _join(path, key))]
    if isinstance(value, dict):
        known = [(name, shape.members[name]) for name in value if name in shape.members]
        return [v for name, member in known for v in misfits(value[name], member, _join(path, name))]
    return []


def violations(value: Any, shape: Shape | None, path: str = "") -> list[str]:
    """What is wrong with `value`, whose types fit, one sentence each, naming the parameter; empty if all is well."""
    if shape is None:
        return []
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
    limits = {} if shape.type_name == "blob" else shape.metadata  # a blob's are those of what it decodes to
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
