"""The base model's evaluation, which jobs that start from the same base and the same problems need to pay for once only.

    before = base_evaluation(partial(evaluate, policy, tokenizer), test_rows, job, made_of, **decoding)

The channel `base` brings what another job wrote, its evaluation_before.json. Without that channel the base is evaluated.
"""

import dataclasses
import json
from collections.abc import Callable, Sequence
from typing import Any

from rl.evaluation import Evaluation
from rl.tasks import DataError, Row, fingerprint

from job.arguments import VerdictArguments, WeightsArguments
from job.container import channel, has_channel, is_main_process, print_line
from job.fingerprints import SHOWN, verifier_fingerprint
from job.record import BASE_CHANNEL, EVALUATION_BEFORE

DECODED_BY = ("samples", "max_new_tokens", "seed", "chat_template_kwargs", "prefill")


def base_evaluation(
    evaluate: Callable[..., Evaluation],
    rows: Sequence[Row],
    job: VerdictArguments,
    made_of: dict[str, str],
    **decoding: Any,
) -> Evaluation:
    """The evaluation that the channel `base` brings, or else `evaluate(rows, **decoding)`. Every process must call this.

    Args:
        made_of: what job.fingerprints.fingerprints returned; its "base" is the model that is evaluated.

    Raises:
        DataError: the channel brings none, or one of another model, other problems or other decoding.
    """
    of = {
        "base model": made_of["base"],
        "dtype": job.dtype if isinstance(job, WeightsArguments) else "",
        "tools": made_of.get("tools", "none"),
        "problems": f"{len(rows)} ({fingerprint(list(rows))[:SHOWN]})",
        "verifier": verifier_fingerprint(job.verifier),
        **{name: _text(decoding.get(name)) for name in DECODED_BY},
    }
    if not has_channel(BASE_CHANNEL):
        return dataclasses.replace(evaluate(rows, **decoding), of=of)
    known = Evaluation.load(channel(BASE_CHANNEL) / EVALUATION_BEFORE)
    if differences := [
        f"{name}: {known.of.get(name, 'not said')} there, {value} here"
        for name, value in of.items()
        if known.of.get(name) != value
    ]:
        raise DataError(
            f"The channel {BASE_CHANNEL!r} brings the evaluation of something else ({'; '.join(differences)}). Leave the "
            "channel out: then the job evaluates its base model itself."
        )
    if is_main_process():
        print_line(f"[evaluation] of the base model: that of the channel {BASE_CHANNEL}, not made again")
    return known


def _text(value: Any) -> str:
    """As it is compared: None and {} are the same, nothing."""
    return json.dumps(value or None, sort_keys=True)
