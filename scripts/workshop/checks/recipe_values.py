"""A recipe's values as arithmetic needs them: defaults filled in, and numbers where a hyperparameter holds text."""

import json
from typing import Any

from workshop.checks.request import JobRequest
from workshop.checks.signatures import load_signature


def recipe_values(request: JobRequest, settings: dict[str, Any]) -> dict[str, Any]:
    """Every key that the script reads with its value: what the recipe or a hyperparameter says, else the default."""
    known = request.script.reads(load_signature) if request.script else {}
    values = {key: setting.default for key, setting in known.items()} | settings
    return {key: _value(value) for key, value in values.items()}


def _value(value: Any) -> Any:
    """Texts that spell a number, true, false, null, a list or a mapping become it, as a job reads them."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value.lower() if value.lower() in ("true", "false", "null") else value)
    except json.JSONDecodeError:
        return value
