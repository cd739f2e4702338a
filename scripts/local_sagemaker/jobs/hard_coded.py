"""Scripts that name /opt/ml themselves, on a machine where jobs have none (isolation "rewrite"): what is said of them."""

import re
from collections.abc import Iterable
from pathlib import Path

from local_sagemaker.hosts.isolation import CONTAINER_ROOT

_REFUSED = re.compile(
    r"(No such file or directory|Permission denied|Read-only file system|cannot (create|open|access)|does(n't| not) exist)"
)
_NAMED = re.compile(re.escape(CONTAINER_ROOT) + r"(/[\w.+-]+)*")
_WRITTEN = ("model", "output", "checkpoints")  # by jobs; a notebook's machine has other things in its /opt/ml
_LONGEST_LINE = 300  # characters: FailureReason has room for other things
_INSTEAD = (
    f"Jobs have no {CONTAINER_ROOT} on this machine (path rewriting). Let the script take its folders from SM_CHANNEL_<NAME>,"
    " SM_MODEL_DIR and SM_OUTPUT_DATA_DIR, which are right here and on AWS, and that of checkpoints from SM_CHECKPOINT_DIR where"
    " it is set, else from /opt/ml/checkpoints: on AWS it is not set."
)


def missed_path(lines: Iterable[str]) -> str | None:
    """The sentence about the last path below /opt/ml that a line of the log says could not be had; None if none does."""
    found = [(named, line) for line in lines if _REFUSED.search(line) and (named := _NAMED.search(line))]
    if not found:
        return None
    named, line = found[-1]
    return f"The script names {named.group()} itself. {_INSTEAD} It got: {line.strip()[:_LONGEST_LINE]}"


def strayed_files(since: float, root: Path = Path(CONTAINER_ROOT)) -> str | None:
    """The sentence about files in this machine's own /opt/ml changed at or after `since` (s since the epoch), if any."""
    there = (path for folder in _WRITTEN for path in sorted((root / folder).rglob("*")))
    changed = [path for path in there if path.is_file() and path.stat().st_mtime >= since]
    if not changed:
        return None
    return (
        f"Written to {changed[0]} of this machine while the job ran, so it is none of its results. {_INSTEAD}"
    )
