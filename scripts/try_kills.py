"""Kill jobs of all five modules, each at another moment, and see that what follows ends as if nothing had happened.

    python scripts/try_kills.py          # all of them: about an hour on two cores; writes docs/kills.md. Linux; in .venv-dev
    python scripts/try_kills.py 02 save  # those of module 02 whose names have this word

What was tried is kept in build/kills.jsonl and not tried again: delete that file, or a line of it, to begin anew. The list is in
kills/cases.py. Exit code: 0; 1 if something did not hold.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile
import time
from datetime import date
from pathlib import Path

from kills.cases import KILLS, Kill, Tried
from kills.jobs import LONGEST_S, Workplace
from kills.verdicts import END_S, END_VERL_S, Result, result_of, try_kill

ROOT = Path(__file__).resolve().parents[1]
KEPT, PAGE = ROOT / "build" / "kills.jsonl", ROOT / "docs" / "kills.md"


def main(words: list[str]) -> int:
    """Tries what was not tried yet; writes the page when all were."""
    chosen = [kill for kill in KILLS if all(word in kill.name for word in words)]
    left = [kill for kill in chosen if kill.name not in _read()]
    print(f"{len(chosen)} kills, {len(left)} of them to be tried", flush=True)
    if left:
        with tempfile.TemporaryDirectory(prefix="kills-") as folder:
            place = Workplace(Path(folder))
            try:
                for module in dict.fromkeys(kill.module for kill in left):
                    undisturbed = _undisturbed(module, place)
                    for kill in (kill for kill in left if kill.module == module):
                        _keep(kill, try_kill(kill, place, undisturbed))
            finally:
                place.end()
    known = _read()
    PAGE.write_text(page(known), encoding="utf-8")
    return int(any(known[kill.name].faults for kill in chosen))


def _undisturbed(module: str, place: Workplace) -> Result:
    began = time.monotonic()
    job = place.start(module, f"s3://sagemaker-us-east-1-123456789012/kills/{module}-undisturbed")
    job.wait(LONGEST_S)
    if (status := job.describe())["TrainingJobStatus"] != "Completed":
        raise SystemExit(f"{job.name}, which nobody killed, failed: {status.get('FailureReason')}")
    print(f"{time.monotonic() - began:5.0f} s  {module} undisturbed", flush=True)
    return result_of(job, place.folder / "results")


def _keep(kill: Kill, tried: Tried) -> None:
    print(
        f"{tried.seconds:5.0f} s  {kill.name}: {'; '.join(tried.faults) or 'holds'} ({tried.said[:200]})",
        flush=True,
    )
    KEPT.parent.mkdir(exist_ok=True)
    with KEPT.open("a", encoding="utf-8") as file:
        file.write(json.dumps([kill.name, dataclasses.asdict(tried)]) + "\n")


def _read() -> dict[str, Tried]:
    if not KEPT.is_file():
        return {}
    lines = (json.loads(line) for line in KEPT.read_text(encoding="utf-8").splitlines())
    return {name: Tried(**tried) for name, tried in lines}


def page(known: dict[str, Tried]) -> str:
    """The page for readers: what was done, and a row for each kill."""
    tried_ones = [kill for kill in KILLS if kill.name in known]
    held = sum(not known[kill.name].faults for kill in tried_ones)
    lines = [
        "# Kills",
        "",
        "What becomes of a job that is killed. Each of these is a job of a notebook's recipe `smoke`, six steps long and with a",
        "checkpoint after each second step, on the local endpoint with real processes. It is killed at a named moment; then the",
        "same job is started again with the same checkpoint address (after a spot interruption the job goes on by itself). Holds",
        "says that all of this was so:",
        "",
        f"- the killed job ended within {END_S:.0f} s ({END_VERL_S:.0f} s for module 05), and none of its processes was left;",
        "- its FailureReason names the signal, or what was killed;",
        "- each checkpoint that was whole is whole in S3, by the digests of all its files;",
        "- of its output and model nothing is there by halves;",
        "- the next job went on from the newest whole checkpoint, and ended with the history and the weights of a job that nobody",
        "  killed: each number of each step, and each byte of each tensor, is the same. Two undisturbed runs of 05 already differ in",
        "  both, since its rollouts come in another order: there it is steps, learning rates and the shapes of the tensors.",
        "",
        f"{len(KILLS)} are in the list, {len(tried_ones)} were tried, {held} of them hold. Tried on {date.today()} with `.venv-dev/bin/python scripts/try_kills.py`; the list is in",
        "[scripts/kills](../scripts/kills).",
        "",
        "| module | killed | when | it ended after | what it said | went on from | verdict | seconds in all |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kill in tried_ones:
        tried = known[kill.name]
        cells = [
            kill.module,
            kill.what + (f", with {_settings(kill)}" if kill.settings else ""),
            kill.when,
            f"{tried.ended_s:.0f} s",
            _cell(tried.said),
            tried.went_on or "the start",
            _cell("; ".join(tried.faults)) or "holds",
            f"{tried.seconds:.0f}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _settings(kill: Kill) -> str:
    return ", ".join(f"`{key}: {value}`" for key, value in kill.settings.items())


def _cell(text: str, longest: int = 160) -> str:
    """As a cell of a table takes it, cut after a word."""
    words = " ".join(text.split()).replace("|", "\\|").replace("<", "&lt;")
    return words if len(words) <= longest else words[:longest].rpartition(" ")[0] + " ..."


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
