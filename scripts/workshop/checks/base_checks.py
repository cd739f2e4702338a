"""Preflight of the channel `base`, which brings the evaluation of the base model that an earlier job has made."""

import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from job.record import BASE_CHANNEL, EVALUATION_BEFORE
from rl.evaluation import Evaluation
from rl.tasks import DataError

from workshop.checks.data_checks import Unread, local_path
from workshop.checks.request import OK, PROBLEM, Check, JobRequest


def check_base_evaluation(request: JobRequest, settings: dict[str, Any]) -> Iterator[Check]:
    """It can be read, and is of this recipe's model, verdict and decoding; the job compares the problems too."""
    source = dict(request.channels).get(BASE_CHANNEL)
    if source is None:
        return
    with TemporaryDirectory(prefix="preflight-") as copies:
        try:
            path, _ = local_path(request, source, Path(copies))
            known = Evaluation.load(path if path.is_file() else path / EVALUATION_BEFORE)
        except (Unread, DataError) as error:
            yield Check("base", getattr(error, "status", PROBLEM), str(error))
            return
    differences = [
        f"{name}: {known.of.get(name, 'not said')} there, {value} here"
        for name, value in evaluated_by(settings).items()
        if not _same(known.of.get(name, ""), value)
    ]
    if differences:
        detail = f"the evaluation in the channel is of something else ({'; '.join(differences)})"
        yield Check(
            "base", PROBLEM, f"{detail}: leave the channel out, and the job measures its base model itself"
        )
    else:
        yield Check(
            "base", OK, f"sampled pass@1 {known.sampled.value:.3f} of {known.of['problems']} problems"
        )


def evaluated_by(settings: dict[str, Any]) -> dict[str, str]:
    """What Evaluation.of will say of the base model's evaluation (job.base_evaluation), as far as the recipe tells it: the
    digests of model and verifier are missing, and the problems."""
    told = {
        "base model": settings.get("base_model"),
        "dtype": settings.get("dtype"),
        "verifier": settings.get("verifier"),
        "samples": json.dumps(settings.get("eval_samples")),
        "max_new_tokens": json.dumps(settings.get("eval_max_new_tokens")),
    }
    return {name: str(value) for name, value in told.items() if value not in (None, "null")}


def _same(text: str, value: str) -> bool:
    """Whether a text of Evaluation.of names this value; behind a model's or a file's name stands its digest."""
    return text == value or text.startswith(f"{value} (") or text.startswith(f"{value} in ")
