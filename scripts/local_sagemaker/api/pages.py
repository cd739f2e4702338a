"""One page of a list that a request asks for with MaxResults and NextToken."""

from collections.abc import Sequence
from typing import Any, TypeVar

from moto.sagemaker.exceptions import ValidationError

Item = TypeVar("Item")
# If the request gives no MaxResults: the most that one may be, since AWS does not say its default.
PAGE_SIZE = 100


def page(found: Sequence[Item], request: dict[str, Any]) -> tuple[Sequence[Item], dict[str, str]]:
    """The page of `found` that the request asks for, and {"NextToken": ...} if others follow.

    Raises ValidationError for a NextToken that no answer has had.
    """
    token = request.get("NextToken") or "0"
    if not token.isdecimal() or int(token) > len(found):
        raise ValidationError(
            f"NextToken={token!r} is not the NextToken of an earlier answer to this request"
        )
    start = int(token)
    end = start + request.get("MaxResults", PAGE_SIZE)
    return found[start:end], {"NextToken": str(end)} if end < len(found) else {}
