"""docs/bench.md out of docs/bench/: medians, ratios and exponents, with the machine and the day that each was measured on."""

import json
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from runs.times import in_words
from workshop.checks.instances import find_instance, price_source
from workshop.folders import REPOSITORY

from bench import first_run, growth, learning, library, scaling
from bench.roofline import INSTANCES, recipe_lines
from bench.rows import FOLDER, Row, by_case, read_rows

PAGE = REPOSITORY / "docs" / "bench.md"
STEPS = "steps.jsonl"  # lines of bench.measure_step
# "up to 90 %" of the price on demand, says AWS: https://docs.aws.amazon.com/sagemaker/latest/dg/model-managed-spot-training.html
SPOT_AT_LEAST = 0.1
LINEAR = (0.85, 1.15)  # exponents
GOALS = {"library": 1.02, "learning": 0.5}


def write_page(page: Path = PAGE, folder: Path = FOLDER) -> None:
    """Replace the page; a bench that was never run has no section."""
    page.write_text("\n".join(_text(folder)) + "\n", encoding="utf-8")


def _text(folder: Path) -> Iterator[str]:
    yield "# What it costs, how it grows and scales"
    yield ""
    yield (
        "Measured by `make bench` (all of it, or `make bench ARGS=growth`), which nothing asserts: the figures are of one machine "
        "and one day. Made from the files in [bench](bench), which hold every single value; do not edit this page."
    )
    sections = {
        "first_run": ("The first run", _first_run),
        "library": ("Beside plain TRL", _library),
        "learning": ("Learning by the second", _learning),
        "growth": ("Growth", _growth),
        "scaling": ("From one process to two", _scaling),
    }
    for bench, (title, section) in sections.items():
        if rows := read_rows(bench, folder):
            yield from ("", f"## {title}", "", *section(rows), "", _measured_on(rows))
    yield from ("", "## A step on paper", "", *_on_paper(folder / STEPS))


def _first_run(rows: list[Row]) -> Iterator[str]:
    yield (
        "`make run` in a new clone and with an empty home, so that everything is downloaded and set up; and once more. Each "
        "notebook with its defaults."
    )
    yield ""
    seconds = {case: values[0] for case, values in by_case(rows, "wall time").items()}
    names = list(dict.fromkeys(case.partition(", ")[0] for case in seconds))
    stages = [stage for stage in first_run.STAGES if any(case.endswith(stage) for case in seconds)]
    columns = {stage: [seconds[f"{name}, {stage}"] for name in names] for stage in stages}
    yield from _table(
        ("", *stages),
        (
            (name, *(in_words(column[index]) for column in columns.values()))
            for index, name in enumerate(names)
        ),
    )
    yield f"| all | {' | '.join(in_words(sum(column)) for column in columns.values())} |"
    yield ""
    disk = ", ".join(f"{what} {values[0] / 1000:.1f} GB" for what, values in by_case(rows, "disk").items())
    yield f"Disk: {disk}."


def _library(rows: list[Row]) -> Iterator[str]:
    yield (
        "A module's `train.py` with its tiny recipe, and a plain TRL script "
        "([plain_dpo.py](../scripts/bench/plain_dpo.py), [plain_grpo.py](../scripts/bench/plain_grpo.py)) with the same "
        "model, data, seed, steps and values: one process each, in turns. Each figure is ours over the plain script's, the median "
        f"of {_fewest_and_most(by_case(rows, 'peak memory'))} pairs."
    )
    yield ""
    found: dict[str, dict[str, list[float]]] = {}
    for name, quantity, ratios in library.ratios(rows):
        found.setdefault(name, {})[quantity] = ratios
    quantities = [quantity for quantity, _ in library.QUANTITIES.values()]
    yield from _table(
        ("module, what is beside the training", *quantities),
        ((name, *(_spread(each[quantity]) for quantity in quantities)) for name, each in found.items()),
    )
    yield ""
    yield (
        "A step is one from the second on. Our trackers start before the training and plain TRL's in it, in the first step, so "
        f"that the whole training is no fair comparison where there are any. Goal: {GOALS['library']} for a step's CPU time. "
        + _goal_of_steps(found)
    )
    yield ""
    yield "What a step takes, and what the trackers (MLflow, W&B) and checkpoints (every tenth step) add to it:"
    yield ""
    medians = {
        case: statistics.median(values) for case, values in by_case(rows, "CPU time of a step").items()
    }
    yield from _table(
        ("module", "whose", *(f"{name}, CPU ms" for name in library.VARIANTS)),
        (
            (
                module,
                runner,
                *(f"{1000 * medians[f'{module}, {name}, {runner}']:.0f}" for name in library.VARIANTS),
            )
            for module in library.STEPS
            for runner in ("plain", "ours")
        ),
    )


def _fewest_and_most(runs: dict[str, list[float]]) -> str:
    counts = sorted({len(values) for values in runs.values()})
    return " to ".join(str(count) for count in (counts[0], counts[-1])[: len(counts)])


def _spread(ratios: list[float]) -> str:
    return f"{statistics.median(ratios):.3f} ({ratios[0]:.2f} to {ratios[-1]:.2f})"


def _goal_of_steps(found: dict[str, dict[str, list[float]]]) -> str:
    """Reached is a goal that no pair misses; where pairs lie on both sides of it, they do not decide."""
    verdicts: dict[str, list[str]] = {}
    for name, each in found.items():
        lowest, highest = each["CPU time of a step"][0], each["CPU time of a step"][-1]
        goal = GOALS["library"]
        said = (
            "reached"
            if highest <= goal
            else "not decided by these pairs"
            if lowest <= goal
            else "not reached"
        )
        verdicts.setdefault(said, []).append(name)
    return " ".join(f"It is {said}: {'; '.join(names)}." for said, names in verdicts.items())


def _learning(rows: list[Row]) -> Iterator[str]:
    yield (
        f"CPU seconds of one process until {learning.GOAL} of the last {learning.MEAN_OVER} or so sampled completions are right. "
        "The plain script was tried at one seed with the recipe's values and these changes:"
    )
    yield ""
    yield from _table(
        ("plain TRL with", "CPU time", "steps", "accuracy at the end"), _learned(rows, "grid, ")
    )
    yield ""
    yield "The best of these and 02's tiny recipe over other seeds:"
    yield ""
    yield from _table(("run", "CPU time", "steps", "accuracy at the end"), _learned(rows, "ours", "plain"))
    taken = by_case(rows, "CPU time to the goal")
    ours = [values[0] for case, values in taken.items() if case.startswith("ours")]
    plain = [values[0] for case, values in taken.items() if case.startswith("plain")]
    if ours and plain:
        ratio = statistics.median(ours) / statistics.median(plain)
        said = "reached" if ratio <= GOALS["learning"] else "not reached"
        yield ""
        yield (
            f"Ours takes {ratio:.2f} times what the plain script takes at its best. Goal: {GOALS['learning']}, which is {said}."
        )


def _learned(rows: list[Row], *starts: str) -> Iterator[Iterable[str]]:
    accuracy = by_case(rows, "accuracy at the end")
    for case in (case for case in accuracy if case.startswith(starts)):
        reached = case in by_case(rows, "CPU time to the goal")
        how = "to the goal" if reached else "without reaching the goal"
        seconds, steps = (by_case(rows, f"{name} {how}")[case][0] for name in ("CPU time", "steps"))
        shown = f"{seconds:.0f} s" if reached else f"not in {seconds:.0f} s"
        yield (case.removeprefix("grid, "), shown, f"{steps:.0f}", f"{accuracy[case][0]:.2f}")


def _growth(rows: list[Row]) -> Iterator[str]:
    yield (
        "Time of processes is CPU time, of jobs wall time from the request to the end; memory is that of the process at its peak, "
        "for jobs of the local endpoint. The exponent is that of what is more than at the smallest size: 1 is linear."
    )
    yield ""
    times, memory = (growth.exponents(rows, quantity) for quantity in ("time", "peak memory"))
    seconds, held = by_case(rows, "time"), by_case(rows, "peak memory")
    grown: dict[str, list[str]] = {}
    for case in seconds:
        grown.setdefault(case.partition(" ")[2], []).append(case)
    yield from _table(
        ("what grows", "sizes", "time", "each more", "exponent", "memory", "exponent"),
        (
            (
                what,
                " / ".join(case.partition(" ")[0] for case in cases),
                " / ".join(f"{seconds[case][0]:.3g}" for case in cases) + " s",
                _each_more(cases, seconds),
                _verdict(times.get(what)),
                _range([held[case][0] for case in cases if case in held]),
                _verdict(memory.get(what)),
            )
            for what, cases in grown.items()
        ),
    )


def _each_more(cases: list[str], seconds: dict[str, list[float]]) -> str:
    """Time of one more row, job, line, from the smallest to the largest size."""
    least, most = (float(case.partition(" ")[0].replace(",", "")) for case in (cases[0], cases[-1]))
    each = (seconds[cases[-1]][0] - seconds[cases[0]][0]) / (most - least)
    return f"{1e6 * each:.3g} µs" if each < 1e-3 else f"{1e3 * each:.3g} ms"


def _range(megabytes: list[float]) -> str:
    return f"{megabytes[0]:,.0f} to {megabytes[-1]:,.0f} MB" if megabytes else ""


def _verdict(exponent: float | None) -> str:
    if exponent is None:
        return "does not grow"
    low, high = LINEAR
    words = "less than linear" if exponent < low else "linear" if exponent <= high else "more than linear"
    return f"{exponent:.2f}, {words}"


def _scaling(rows: list[Row]) -> Iterator[str]:
    yield str(scaling.__doc__).split("\n\n")[2].replace("\n", " ").strip()
    yield ""
    for names in (scaling.PARTS, tuple(scaling.VERL_PARTS)):
        if found := scaling.parts(rows, names):
            yield from _table(
                ("module", "a step", *names, "rest"),
                ((case, *(f"{seconds:.3f} s" for seconds in each.values())) for case, each in found.items()),
            )
            yield ""
    said = ", ".join(f"{module} {value:.2f}" for module, value in scaling.efficiency(rows).items())
    if not said:
        said = "not measured"
    yield (
        f"Efficiency with two processes: {said}. Backward holds what the processes tell one another of their gradients; the rewards "
        "are gathered, and wait there for the slower rollout; the rest is advantages, log-probabilities, optimizer and logging."
    )


def _on_paper(steps: Path) -> Iterator[str]:
    yield (
        "What the three phases of the full recipes' steps take at least ([phases.py](../scripts/bench/phases.py) has the arithmetic): "
        "operations at the GPU's peak, bytes at its memory's speed, FSDP's weights at the link's, whichever is longest. Completions run "
        "to their limit. The batch on one GPU stays the recipe's. Whether a recipe fits, preflight says. A run costs at least "
        "this; what a job is expected to take, which is several times as much, is in [aws-jobs.md](aws-jobs.md)."
    )
    yield ""
    header = (
        "recipe `full` of",
        "on",
        "rollout",
        "log-probabilities",
        "update",
        "all steps",
        "on demand",
        "on spot, from",
    )
    yield from _table(header, recipe_lines(SPOT_AT_LEAST))
    yield ""
    yield (
        f"Prices are those of {price_source(INSTANCES[0])}. No price of spot training was found that could be named with its source: "
        "the last column is what AWS promises at the best, "
        "[a tenth](https://docs.aws.amazon.com/sagemaker/latest/dg/model-managed-spot-training.html)."
    )
    yield ""
    yield from _table(
        ("GPU", "TFLOP/s, bfloat16", "GB/s of memory", "GB/s of the link"),
        (
            (gpu.name, f"{gpu.flops / 1e12:g}", f"{gpu.bandwidth / 1e9:g}", f"{gpu.link / 1e9:g}")
            for name in INSTANCES
            if (found := find_instance(name)) and (gpu := found.gpu)
        ),
    )
    yield ""
    yield "[instances.json](../scripts/workshop/checks/instances.json) has the source of each of these."
    if steps.is_file():
        yield from ("", "### The arithmetic against real steps", "", *_measured_steps(steps))


def _measured_steps(steps: Path) -> Iterator[str]:
    yield (
        "`python -m bench.measure_step` times the three phases on the device at hand, with random weights, rollouts by transformers' "
        "generate and all weights trained, and takes the device's own speeds from a matrix product and a copy. At least "
        "is the arithmetic at these speeds. Rollouts are far from it: every token starts hundreds of kernels, which is what "
        "vLLM and its CUDA graphs are for."
    )
    yield ""
    measured = [json.loads(line) for line in steps.read_text(encoding="utf-8").splitlines()]
    yield from _table(
        (
            "model, completions x tokens",
            "device",
            "TFLOP/s, GB/s",
            "phase",
            "at least",
            "measured",
            "reached",
            "peak",
        ),
        (
            (
                f"{run['model']}, {run['step']['sequences']} x ({run['step']['prompt']} + {run['step']['answer']})",
                f"{run['device']}, {run['dtype']}",
                f"{run['speeds']['flops'] / 1e12:.3g}, {run['speeds']['bandwidth'] / 1e9:,.0f}",
                phase,
                f"{each['least_seconds']:.3g} s, {each['limit']}",
                f"{each['median_seconds']:.3g} s",
                f"{each['reached']:.0%}",
                f"{run['peak_bytes'] / 1e9:.1f} GB",
            )
            for run in measured
            for phase, each in run["phases"].items()
        ),
    )
    yield ""
    where = sorted(
        {
            f"torch {run['torch']}, transformers {run['transformers']}, {run.get('measured', 'no date')}"
            for run in measured
        }
    )
    yield f"Measured with {'; '.join(where)}."


def _measured_on(rows: Sequence[Row]) -> str:
    where = " and ".join(sorted({f"{row.machine}; {row.versions}; {row.measured}" for row in rows}))
    revisions = " and ".join(sorted({row.revision for row in rows}))
    loads = [float(row.load) for row in rows if row.load]
    load = (
        f"a load of {statistics.median(loads):.1f} ({min(loads):.1f} to {max(loads):.1f})"
        if loads
        else "a load not noted"
    )
    took = by_case(rows, "wall time of all").get("this bench")
    time = f"{took[0] / 60:.0f} minutes" if took else "Interrupted"
    return f"*{where}; revision {revisions}. {time}, at {load}.*"


def _table(header: Iterable[str], rows: Iterable[Iterable[str]]) -> Iterator[str]:
    header = tuple(header)
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    for row in rows:
        yield f"| {' | '.join(row)} |"
