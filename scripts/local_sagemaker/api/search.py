"""Search of training jobs: which of their descriptions satisfy a SearchExpression.

The rules are those of https://docs.aws.amazon.com/sagemaker/latest/APIReference/API_Search.html and the pages of its
types (API_SearchExpression, API_Filter, API_NestedFilters). Names and types of properties are those of the shape
TrainingJob in botocore's model. What those pages leave open is decided here: a job without a property satisfies
NotEquals and NotExists of it, and comes last in the order, and a list has a property that one of its items has.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from botocore.model import Shape
from moto.sagemaker.exceptions import ValidationError

from local_sagemaker.api.pages import page
from local_sagemaker.api.service_limits import service_model

Value = str | float | bool | datetime
# Filters, nested filters and subexpressions of one expression: API_Search, SearchExpression.
MAX_ELEMENTS = 50
_ORDER: dict[str, Callable[[Any, Any], bool]] = {
    "GreaterThan": lambda actual, value: actual > value,
    "GreaterThanOrEqualTo": lambda actual, value: actual >= value,
    "LessThan": lambda actual, value: actual < value,
    "LessThanOrEqualTo": lambda actual, value: actual <= value,
}
_BY_TEXT: dict[str, Callable[[str, str], bool]] = {
    "Contains": lambda actual, value: value in actual,
    "In": lambda actual, value: actual in [choice.strip() for choice in value.split(",")],
}
# Properties with names of the user's own, and the kind of their values: "any" is text that may be a number.
_OWN_NAMES = {"Tags": "text", "HyperParameters": "any", "Metrics": "number"}
_KINDS = {"integer": "number", "long": "number", "double": "number", "float": "number"} | {
    kind: kind for kind in ("boolean", "timestamp")
}


def search(request: dict[str, Any], jobs: list[dict[str, Any]]) -> dict[str, Any]:
    """The answer to the Search `request` over the descriptions `jobs`, each with its Tags.

    Raises ValidationError where AWS documents one, or where the request asks for what is not here.
    """
    if request["Resource"] != "TrainingJob":
        raise ValidationError(
            f"local_sagemaker does not support Search of {request['Resource']}: there are TrainingJobs only"
        )
    if request.get("CrossAccountFilterOption") == "CrossAccount":
        raise ValidationError("local_sagemaker does not support CrossAccountFilterOption=CrossAccount")
    expression = request.get("SearchExpression")
    if expression is not None:
        _check(expression)
    found = [
        job
        for job in jobs
        if (expression is None or _satisfies(job, expression))
        and all(_visible(job, condition) for condition in request.get("VisibilityConditions", []))
    ]
    found = _sorted(found, request.get("SortBy", "LastModifiedTime"), request.get("SortOrder", "Descending"))
    results, following = page(found, request)
    total = {"Value": len(found), "Relation": "EqualTo"}
    return {"Results": [{"TrainingJob": job} for job in results], "TotalHits": total} | following


def _check(expression: dict) -> None:
    """Raise ValidationError for what is wrong with an expression whatever jobs there are."""
    elements = list(_elements(expression))
    if len(elements) > MAX_ELEMENTS:
        raise ValidationError(
            f"SearchExpression has {len(elements)} elements; at most {MAX_ELEMENTS} are allowed"
        )
    if sum(element.get("Operator") == "Contains" for element in elements) > 1:
        raise ValidationError("'CONTAINS' operator usage limit of 1 exceeded.")
    _satisfies({}, expression)  # which reads all names and values, though no job is there


def _elements(expression: dict) -> Iterator[dict]:
    """All filters, nested filters and subexpressions, the inner ones too."""
    for name in ("Filters", "NestedFilters", "SubExpressions"):
        for element in expression.get(name, []):
            yield element
            yield from _elements(element)


def _satisfies(job: dict, expression: dict) -> bool:
    """Whether a job satisfies the whole expression, with And or Or between all its parts."""
    results = [_passes(job, item) for item in expression.get("Filters", [])]
    results += [_passes_nested(job, item) for item in expression.get("NestedFilters", [])]
    results += [_satisfies(job, item) for item in expression.get("SubExpressions", [])]
    if not results:
        raise ValidationError(
            "SearchExpression needs at least one of Filters, NestedFilters and SubExpressions"
        )
    return any(results) if expression.get("Operator") == "Or" else all(results)


def _passes_nested(job: dict, nested: dict) -> bool:
    """Whether one item of the list passes all filters, whose names begin with the list's."""
    name = nested["NestedPropertyName"]
    shape = _shape_of(name)
    if shape is None or shape.type_name != "list":
        raise ValidationError(f"NestedPropertyName={name!r} is not a list of a TrainingJob")
    return any(
        all([_passes({**job, name: [item]}, condition) for condition in nested["Filters"]])
        for item in job.get(name) or []
    )


def _passes(job: dict, condition: dict) -> bool:
    """Whether a job passes one filter. Without an Operator it is Equals."""
    name, operator = condition["Name"], condition.get("Operator", "Equals")
    kind, actual = _kind(name), [_text(value) for value in _values(job, name)]
    if operator in ("Exists", "NotExists"):
        return bool(actual) == (operator == "Exists")
    if "Value" not in condition:
        raise ValidationError(f"The filter of {name} needs a Value for its Operator {operator}")
    value = condition["Value"]
    if operator in _BY_TEXT:
        if kind not in ("text", "any"):
            raise ValidationError(
                f"Operator {operator} is only supported for text properties, and {name} is a {kind}"
            )
        return any(_BY_TEXT[operator](one, value) for one in actual)
    if operator in _ORDER:
        if kind not in ("number", "timestamp", "any"):
            raise ValidationError(
                f"Operator {operator} is not supported for {kind} properties such as {name}"
            )
        kind = "number" if kind == "any" else kind
        return any(_ORDER[operator](*pair) for pair in _comparable(name, kind, actual, value))
    equal = any(one == other for one, other in _comparable(name, kind, actual, value))
    return equal if operator == "Equals" else not equal


def _comparable(name: str, kind: str, actual: list[str], value: str) -> list[tuple[Any, Any]]:
    """Each actual value with the filter's, both as values of the property's kind.

    Hyperparameters are texts that may be numbers: "If the specified Value is an integer, the decimal hyperparameter
    values are treated as integers" (API_Filter).
    """
    wanted = _parse(value, kind)
    if wanted is None:
        forms = {"timestamp": "a time such as 2026-01-31T12:00:00", "boolean": "true or false"}
        raise ValidationError(
            f"The filter of {name} needs {forms.get(kind, 'a number')} as its Value, not {value!r}"
        )
    found = [_parse(one, kind) for one in actual]
    if name.startswith("HyperParameters.") and re.fullmatch(r"[-+]?\d+", value):
        found = [float(int(one)) if isinstance(one, float) and math.isfinite(one) else one for one in found]
    return [(one, wanted) for one in found if type(one) is type(wanted)]


def _parse(text: str, kind: str) -> Value | None:
    """A text as a value of this kind; None if it is none. "any" is a number if it can be one."""
    if kind == "text":
        return text
    if kind == "boolean":
        return {"true": True, "false": False}.get(text.lower())
    try:
        if kind == "timestamp":
            time = datetime.fromisoformat(text)
            return time if time.tzinfo else time.replace(tzinfo=UTC)
        return float(text)
    except ValueError:
        return text if kind == "any" else None


def _text(value: Any) -> str:
    """A value of a description as a filter would write it; moto's times are UTC without saying so."""
    return value.isoformat() if isinstance(value, datetime) else str(value)


def _kind(name: str) -> str:
    """ "text", "number", "boolean" or "timestamp"; "any" for texts that may be numbers.

    Raises ValidationError for a property that training jobs do not have.
    """
    first, _, rest = name.partition(".")
    if rest and first in _OWN_NAMES:
        return _OWN_NAMES[first]
    shape = _shape_of(name)
    while shape is not None and shape.type_name == "list":
        shape = shape.member
    if shape is None or shape.type_name in ("structure", "map"):
        raise ValidationError(f"Unknown property name: {name}")
    return _KINDS.get(shape.type_name, "text")


def _shape_of(name: str) -> Shape | None:
    """The shape that a dotted name leads to in a TrainingJob, through lists and maps; None if there is none."""
    shape: Any = service_model("sagemaker").shape_for("TrainingJob")
    for part in name.split("."):
        while shape.type_name == "list":
            shape = shape.member
        if shape.type_name == "map":
            shape = shape.value
        else:
            shape = shape.members.get(part) if shape.type_name == "structure" else None
        if shape is None:
            return None
    return shape


def _values(job: dict, name: str) -> list[Any]:
    """All values of a property: none, one, or several where it is inside a list."""
    first, _, rest = name.partition(".")
    if rest and first == "Tags":
        return [tag["Value"] for tag in job.get("Tags") or [] if tag["Key"] == rest]
    if rest and first == "Metrics":
        metrics = job.get("FinalMetricDataList") or []
        return [metric["Value"] for metric in metrics if metric["MetricName"] == rest]
    if rest and first in ("HyperParameters", "Environment"):  # whose names may have dots
        job, name = job.get(first) or {}, rest
        return [job[name]] if name in job else []
    nodes: list[Any] = [job]
    for part in name.split("."):
        nodes = [node[part] for node in nodes if isinstance(node, Mapping) and node.get(part) is not None]
        nodes = [item for node in nodes for item in (node if isinstance(node, list) else [node])]
    return nodes


def _visible(job: dict, condition: dict[str, str]) -> bool:
    """Whether a job lacks the condition's tag or has it with this value (API_VisibilityConditions)."""
    values = _values(job, condition.get("Key", ""))
    return not values or condition.get("Value") in values


def _sorted(jobs: list[dict], name: str, order: str) -> list[dict]:
    kind = _kind(name)

    def key(job: dict) -> Any:
        value = _parse(_text(_values(job, name)[0]), kind)
        return (isinstance(value, str), value) if kind == "any" else value  # numbers before texts

    with_it = [job for job in jobs if _values(job, name)]
    without = [job for job in jobs if not _values(job, name)]
    return sorted(with_it, key=key, reverse=order == "Descending") + without
