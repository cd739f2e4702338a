"""One HTML page about a run: self-contained, for a phone as for a desk, light or dark as its reader has it."""

import html
import os
import tempfile
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from workshop.views.plots import points

from runs.drawings import curve, intervals
from runs.jobs import Job
from runs.report import Report, Run
from runs.times import in_words

FILE = "run.html"
_STYLE = Path(__file__).with_name("page.css")
_CURVES = {  # drawn of each job that logs them, at most three: those that come first
    "reward": "Reward",
    "eval_pass_at_1": "pass@1 while training",
    "rewards/margins": "Margin of the preferences",
    "loss": "Loss",
}
_CURVES_A_JOB = 3


def write_page(report: Report, folder: Path) -> Path:
    """Write the page into `folder`, in one step; return its path. Links lead to files below that folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=folder, delete=False, encoding="utf-8") as new:
        new.write(page(report, folder))
    os.chmod(new.name, 0o644)
    os.replace(new.name, folder / FILE)
    return folder / FILE


def page(report: Report, folder: Path) -> str:
    """The page's text. Everything that a run brought is escaped: a log or an error may hold anything."""
    failed = [run for run in report.runs if run.failure]
    title = "Nothing ran" if not report.runs else f"{_count(len(report.runs), 'notebook')} ran"
    if report.runs:
        title += f", {len(failed)} of them failed" if failed else " to the end"
    started = report.started.astimezone().strftime("%Y-%m-%d %H:%M")
    parts = [
        f"<h1>{_e(title)}</h1>",
        f'<p class="quiet">Begun {_e(started)}, {_e(in_words(report.seconds))} in all. {_e(_parameters(report))}</p>',
        _not_run(report),
        _overview(report, folder),
        *(_notebook(run) for run in report.runs),
        _surroundings(report),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Workshop run: {_e(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style>\n</head>\n"
        "<body>\n" + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"
    )


def _parameters(report: Report) -> str:
    if not report.parameters:
        return "The notebooks' own parameters."
    return "Parameters: " + ", ".join(f"{name}={value}" for name, value in report.parameters.items()) + "."


def _not_run(report: Report) -> str:
    if not report.not_run:
        return ""
    ran = ", ".join(run.name for run in report.runs) or "none"
    return f"<p>A part of the workshop. Ran: {_e(ran)}. Did not run: {_e(', '.join(report.not_run))}.</p>"


def _overview(report: Report, folder: Path) -> str:
    if not report.runs:
        return ""
    rows = [
        (
            f'<a href="#{_id(run)}">{_e(run.name)}</a>',
            _state(run),
            _e(in_words(run.seconds)),
            str(len(run.jobs)),
            " ".join(filter(None, [_link(run.executed, "notebook", folder), _link(run.log, "log", folder)])),
        )
        for run in report.runs
    ]
    return _table(("notebook", "", "time", "jobs", "executed"), rows, numbers={2, 3})


def _state(run: Run) -> str:
    return '<span class="failed">failed</span>' if run.failure else '<span class="ok">ok</span>'


def _link(path: Path | None, text: str, folder: Path) -> str:
    if path is None or not path.exists():
        return ""
    return f'<a href="{_e(quote(os.path.relpath(path, folder)))}">{_e(text)}</a>'


def _notebook(run: Run) -> str:
    parts = [f'<h2 id="{_id(run)}">{_e(run.name)}</h2>']
    if run.failure:
        parts.append(f'<p class="failed">It failed.</p><pre>{_e(run.plain_failure)}</pre>')
    for job in run.jobs:
        if job.failure_reason:
            parts.append(f"<p>Why its job {_e(job.name)} failed:</p><pre>{_e(job.failure_reason)}</pre>")
    parts += [_comparison(record) for record in run.records]
    if not run.records:
        parts.append('<p class="quiet">It wrote no results.</p>')
    parts += [_curves(job) for job in run.jobs]
    parts.append(_jobs(run))
    return "\n".join(filter(None, parts))


def _comparison(record: dict) -> str:
    """One record of the results file: pass@1 before and after, with intervals, and what it took."""
    drawn = []
    for kind, suffix in (("sampled", "_sampled"), ("greedy", "")):
        sides = {"before": record.get(f"base{suffix}"), "after": record.get(f"trained{suffix}")}
        rows = {name: side for name, side in sides.items() if side}
        if rows:
            problems = next(iter(rows.values()))["n"]
            drawn.append(intervals(f"pass@1, {kind}, on {_count(problems, 'problem')}", rows))
    facts = [
        record["trainer"], f"recipe {record['recipe']}", f"mode {record['mode']}",
        f"{_count(record['hosts'], 'host')}, {_count(record['processes'], 'process')}",
        f"seed {record['seed']}",
        f"{in_words(record['train_seconds'])} of training", f"{record['tokens_per_second']:,.0f} tokens/s",
        f"{record['peak_rss_mb']:,.0f} MB at most",
    ]  # fmt: skip
    if "stopped_by" in record:
        facts.append(f"{record['stopped_by']} after step {record['steps']} of {record['steps_asked']}")
    return (
        f'<h3>Before and after training, with 95 % intervals</h3><p class="quiet">{_e(", ".join(map(str, facts)))}</p>'
        f'<div class="drawings">{"".join(drawn)}</div>'
    )


def _curves(job: Job) -> str:
    drawn = []
    for key, title in _CURVES.items():
        steps, values = points(job.history, key)
        if len(values) > 1 and len(drawn) < _CURVES_A_JOB:
            drawn.append(curve(title, steps, values))
    if not drawn:
        return ""
    return f'<h3>Training: {_e(job.label)}</h3><div class="drawings">{"".join(drawn)}</div>'


def _jobs(run: Run) -> str:
    if not run.jobs:
        return '<p class="quiet">None of its jobs ran on this machine.</p>'
    now = datetime.now(UTC)
    rows = [
        (
            _e(job.label),
            f'<span class="{"ok" if job.status == "Completed" else "failed"}">{_e(job.status)}</span>',
            f"{job.step} of {job.steps}" if job.steps else "",
            _e(in_words(job.seconds(now))),
        )
        for job in run.jobs
    ]
    return "<h3>Training jobs</h3>" + _table(("job", "", "steps", "time"), rows, numbers={2, 3})


def _surroundings(report: Report) -> str:
    rows = [(_e(name), _e(version)) for name, version in report.versions.items()]
    return (
        f"<h2>Machine and versions</h2><p>{_e(report.machine)}. The workshop's revision: {_e(report.revision)}.</p>"
        + _table(("package", "version"), rows, numbers=set())
    )


def _table(header: Iterable[str], rows: Iterable[Iterable[str]], numbers: set[int]) -> str:
    """A table of cells that are HTML already; those in the columns `numbers` stand at the right."""

    def line(cells: Iterable[str], tag: str) -> str:
        classes = (' class="number"' if column in numbers else "" for column, _ in enumerate(header))
        return "".join(f"<{tag}{c}>{cell}</{tag}>" for c, cell in zip(classes, cells, strict=True))

    header = tuple(header)
    body = "".join(f"<tr>{line(cells, 'td')}</tr>" for cells in rows)
    return f'<div class="wide"><table><thead><tr>{line(header, "th")}</tr></thead><tbody>{body}</tbody></table></div>'


def _count(number: int, what: str) -> str:
    plural = f"{what}es" if what.endswith("s") else f"{what}s"
    return f"{number} {what if number == 1 else plural}"


def _id(run: Run) -> str:
    return _e(run.name)


def _e(text: object) -> str:
    return html.escape(str(text))
