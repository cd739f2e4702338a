"""Try bad inputs of all five modules as a user would: preflight and the request first and, where they say nothing, the job itself.

    python scripts/try_bad_inputs.py              # all of them: half an hour on two cores; writes docs/bad-inputs.md
    python scripts/try_bad_inputs.py 02 reward    # those of module 02 whose names have this word

It needs what requirements-dev.txt installs: the jobs of modules 01 to 03 run in the same environment.
What was tried, what preflight had nothing to say of included, is kept in build/bad-inputs.jsonl and not tried again: delete that
file to begin anew. The list is in bad_inputs/.
Exit code: 0; 1 if preflight raised or hung, or if a job completed and nobody has said why that is right.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "05_grpo_verl"), str(ROOT / "05_grpo_verl" / "scripts")]

from bad_inputs.before import ready_endpoint, refused_before, try_before  # noqa: E402
from bad_inputs.cases import BEFORE, COMPLETED, IN_JOB, OUTCOMES, PASSED, SOUND, Case, Tried  # noqa: E402
from bad_inputs.file_cases import file_cases  # noqa: E402
from bad_inputs.in_job import Server  # noqa: E402
from bad_inputs.places import Ground, overrides  # noqa: E402
from bad_inputs.settings_cases import settings_cases  # noqa: E402
from local_sagemaker import client  # noqa: E402
from local_sagemaker.environments import job_environment  # noqa: E402

RESULTS, PAGE = ROOT / "build" / "bad-inputs.jsonl", ROOT / "docs" / "bad-inputs.md"
AT_ONCE = 2  # preflights
EXAMPLES = 6  # on the page, of each module and topic
# Of a case, and of its source as it was staged.
_OWN_FOLDERS = re.compile(r"[^\s']*/bad-inputs-\w+/(?:case-\d+/(?:source/)?|staged/[^/\s]+/)?")
# One process that is a group of its own, as a launcher would start it.
ALONE = {
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
    "MASTER_ADDR": "127.0.0.1",
}
VARIABLES = {"01": ALONE, "02": {}, "03": ALONE, "04": {}, "05": {"RAY_SLOTS_PER_HOST": "2"}}
_MACHINE = ("MLFLOW_", "WANDB_", "AWS_", "SM_", "ACCELERATE_")  # variables that a job does not have from here


def main(words: list[str]) -> int:
    """Tries what was not tried yet; writes the page when all were."""
    cases = {(case.name, case.script): case for case in [*settings_cases(), *file_cases()]}
    known = dict(_read(cases))
    chosen = [
        key
        for key, case in cases.items()
        if all(word in case.name.split() or word in case.name for word in words)
    ]
    left = [cases[key] for key in chosen if key not in known]
    waiting = [cases[key] for key in chosen if key in known and known[key].outcome == PASSED]
    print(f"{len(chosen)} cases: {len(left)} to be tried, {len(waiting)} of which the job alone is left")
    with tempfile.TemporaryDirectory(prefix="bad-inputs-") as folder, contextlib.ExitStack() as endings:
        home = Path(folder) / "endpoint"
        endings.callback(client.shutdown, home)
        endings.callback(client.connect(client.ensure_endpoint(home).url))
        ready_endpoint()
        ground = Ground(Path(folder))
        # Sound jobs, in this process: those forked from it have then imported what preflight needs, which takes longest.
        for module, script in sorted({(case.module, case.script) for case in left}):
            sound = Case(module, "recipe", SOUND, script=script)
            if said := refused_before(sound, ground.place(sound)):
                sys.exit(
                    f"A sound job ({module} {script}) is refused, and the bad ones would tell nothing: {said}"
                )
        with ThreadPoolExecutor(AT_ONCE) as pool:
            for tried in pool.map(lambda case: try_before(case, ground.place(case)), left):
                _keep(tried)
                waiting += [tried.case] if tried.outcome == PASSED else []
        for tried in _in_jobs(waiting, ground):
            _keep(tried)
    known = dict(_read(cases))
    if known.keys() == cases.keys() and not any(tried.outcome == PASSED for tried in known.values()):
        PAGE.write_text(page(list(known.values())), encoding="utf-8")
    return int(any(faulty(known[key]) for key in chosen))


def faulty(tried: Tried) -> bool:
    """Whether it should have gone another way."""
    if tried.case.bad == SOUND:
        return tried.outcome != COMPLETED
    return tried.outcome not in (BEFORE, IN_JOB) and not (tried.outcome == COMPLETED and tried.case.right)


def _in_jobs(cases: list[Case], ground: Ground) -> Iterator[Tried]:
    """What the jobs of these cases come to, module by module."""
    for module in sorted({case.module for case in cases}):
        python = Path(sys.executable)
        if module in ("04", "05"):  # other versions of the libraries
            requirements = ground.source(module) / "requirements.txt"
            python = (
                job_environment(requirements, log=lambda line: print(line, file=sys.stderr))
                / "bin"
                / "python"
            )
        own = {key: value for key, value in os.environ.items() if not key.startswith(_MACHINE)}
        plain = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        server = Server(module, python, ground.source(module), {**own, **plain, **VARIABLES[module]})
        try:
            for case in (case for case in cases if case.module == module):
                started = time.perf_counter()
                place = ground.place(case)
                arguments = ["--config", place.recipe]
                if module == "05":
                    arguments += ["--overrides", json.dumps(overrides(place.settings))]
                else:
                    for key, value in place.settings.items():
                        arguments += [f"--{key}", value if isinstance(value, str) else json.dumps(value)]
                channels = {f"SM_CHANNEL_{name.upper()}": str(path) for name, path in place.channels.items()}
                folder = Path(tempfile.mkdtemp(prefix="job-", dir=ground.folder))
                code, words = server.run(place.source, case.script, arguments, folder, **channels)
                outcome = IN_JOB if code > 0 else COMPLETED if code == 0 else "JOB hung or was killed"
                yield Tried(case, outcome, "" if code == 0 else words[:600], time.perf_counter() - started)
        finally:
            server.end()


def _keep(tried: Tried) -> None:
    print(
        _shown(f"{tried.seconds:5.1f} s  {tried.outcome:21} {tried.case.name}: {tried.words[:160]}"),
        flush=True,
    )
    RESULTS.parent.mkdir(exist_ok=True)
    with RESULTS.open("a", encoding="utf-8") as file:
        line = [tried.case.name, tried.case.script, tried.outcome, tried.words, tried.seconds]
        file.write(json.dumps(line) + "\n")


def _read(cases: dict[tuple[str, str], Case]) -> Iterator[tuple[tuple[str, str], Tried]]:
    """What was tried, the later of two lines of one case. A last line that was cut off is taken off the file."""
    if not RESULTS.is_file():
        return
    whole, _, cut = RESULTS.read_text(encoding="utf-8").rpartition("\n")
    if cut:
        print(f"The last line of {RESULTS} was cut off: its case is tried again.")
        RESULTS.write_text(f"{whole}\n" if whole else "", encoding="utf-8")
    for line in whole.splitlines():
        name, script, *found = json.loads(line)
        if case := cases.get((name, script)):
            yield (name, script), Tried(case, *found)


def page(all_tried: list[Tried]) -> str:
    """The page for readers: figures by module and topic, what completed and why, and one refusal in full of each topic."""
    lines = [
        "# Bad inputs",
        "",
        "What happens to an input that is bad: a number out of its range, a misspelt key, a file that is cut off, a reward that",
        "raises. Each is tried as a user would. `ModelTrainer` and preflight come first; where they say nothing, the request is sent",
        "to the local endpoint, which refuses what CreateTrainingJob would; and where that takes it, the module's training script",
        "runs as its job runs it, with the recipe `smoke` and one step, in one process on CPU.",
        "",
        f"Tried on {date.today()} with `.venv-dev/bin/python scripts/try_bad_inputs.py`; the list is in [scripts/bad_inputs](../scripts/bad_inputs).",
        "",
        "| module | about | tried | " + " | ".join(OUTCOMES) + " |",
        "|---|---|---|---|---|---|",
    ]
    counts = Counter((tried.case.module, tried.case.topic, tried.outcome) for tried in all_tried)
    topics = Counter((tried.case.module, tried.case.topic) for tried in all_tried)
    for (module, topic), number in sorted(topics.items()):
        numbers = [number, *(counts[module, topic, outcome] for outcome in OUTCOMES)]
        lines.append(f"| {module} | {topic} | " + " | ".join(map(str, numbers)) + " |")
    totals = [sum(tried.outcome == outcome for tried in all_tried) for outcome in OUTCOMES]
    lines.append("| all | | " + " | ".join(map(str, [len(all_tried), *totals])) + " |")
    faults = [tried for tried in all_tried if faulty(tried)]
    for heading, found in (
        ("Open: these should have gone another way", faults),
        ("Completed, and why that is right", [tried for tried in all_tried if tried.outcome == COMPLETED]),
        ("Refused in the job alone", [tried for tried in all_tried if tried.outcome == IN_JOB]),
    ):
        if not found:
            continue
        lines += ["", f"## {heading}", "", "| module | what is bad | why |", "|---|---|---|"]
        for tried in sorted(found, key=lambda tried: tried.case.name):
            if found is faults or tried not in faults:
                words = (
                    f"{tried.outcome}. {tried.words}" if found is faults else tried.case.right or tried.words
                )
                lines.append(f"| {tried.case.module} | {_bad(tried.case)} | {_cell(words, 200)} |")
    lines += [
        "",
        "## In preflight's words",
        "",
        "A few of each kind.",
        "",
        "| what is bad | what is said |",
        "|---|---|",
    ]
    shown: list[tuple[str, str, str]] = []
    for tried in all_tried:
        topic = (tried.case.module, tried.case.topic)
        kind = (*topic, tried.words[:30])
        if (
            tried.outcome == BEFORE
            and kind not in shown
            and sum(other[:2] == topic for other in shown) < EXAMPLES
        ):
            shown.append(kind)
            words = tried.words.splitlines()[0].replace("preflight: 1. ", "")
            lines.append(f"| {tried.case.module} {_bad(tried.case)} | {_cell(words, 250)} |")
    return "\n".join(lines) + "\n"


def _shown(text: str) -> str:
    """What no file and no terminal takes is written as \\ud800."""
    return text.encode(errors="backslashreplace").decode()


def _bad(case: Case) -> str:
    return _cell(case.bad if case.script == "train.py" else f"{case.bad} ({case.script})")


def _cell(text: str, most: int = 100) -> str:
    """A text for a table, without the folders of the machine on which the cases were tried."""
    text = " ".join(_OWN_FOLDERS.sub("", _shown(text)).split())
    text = text if len(text) <= most else f"{text[:most].rstrip()} ..."
    return text.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
