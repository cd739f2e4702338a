"""The page about a run of the notebooks, and how the run is shown meanwhile."""

import io
import json
import re
from datetime import UTC, datetime, timedelta
from html.parser import HTMLParser
from pathlib import Path

import draw_terminal
import pytest
from runs.drawings import curve, intervals
from runs.jobs import Job, read_jobs
from runs.page import FILE, page, write_page
from runs.progress import Now, Progress, Running, block
from runs.report import Report, Run
from runs.screen import Screen
from runs.times import in_words, keep_times, moments, read_times, run_key, seconds_left

BEGIN = datetime(2026, 11, 27, 6, 0, tzinfo=UTC)
NASTY = """<script>alert("1")</script> & 'x'"""
RECORD = {
    "module": "02_example", "recipe": "tiny", "mode": "local", "trainer": "GRPOTrainer", "hosts": 1, "processes": 2,
    "seed": 42, "base": {"value": 0.5, "low": 0.44, "high": 0.56, "n": 300, "decoding": "greedy"},
    "trained": {"value": 0.95, "low": 0.92, "high": 0.97, "n": 300, "decoding": "greedy"},
    "train_seconds": 90.0, "peak_rss_mb": 800.0, "tokens_per_second": 1500.0, "versions": {},
}  # fmt: skip


def job(name: str = "grpo-3f9c2a-20261127060010", seconds: float | None = 60, **changes) -> Job:
    ended = BEGIN + timedelta(seconds=10 + seconds) if seconds else None
    values = {"status": "Completed" if ended else "InProgress", "phase": "Completed" if ended else "Training"}
    history = [{"step": step, "reward": step / 10, "loss": 1 / step} for step in (1, 2, 3)]
    values |= {"failure_reason": None, "steps": 4, "history": history}
    return Job(name=name, created=BEGIN + timedelta(seconds=10), ended=ended, **values | changes)


def report(*runs: Run, not_run: tuple[str, ...] = (), **changes) -> Report:
    values = {
        "seconds": 100.0,
        "parameters": {},
        "machine": "a CPU",
        "versions": {"python": "3.11"},
        "revision": "abc",
    }
    return Report(started=BEGIN, runs=list(runs), not_run=list(not_run), **values | changes)


def run(name: str = "02_example", failure: str | None = None, **changes) -> Run:
    return Run(Path(f"{name}/{name}.ipynb"), Path("/nowhere") / f"{name}.ipynb", 90.0, failure, **changes)


class Page(HTMLParser):
    """A page's text and tags; the parser raises for nothing, so what is opened and not closed is kept."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.text, self.tags, self.addresses, self.open = "", [], [], []
        self.feed(source)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in ("href", "src")]
        if tag not in ("meta", "path", "rect", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_data(self, data):
        self.text += data + " "


def test_a_page_is_self_contained_and_well_formed(tmp_path):
    source = page(report(run(jobs=[job()], records=[RECORD])), tmp_path)
    read = Page(source)
    assert read.open == [] and source.startswith("<!doctype html>")
    assert read.addresses == ["#02_example"]
    assert not re.search(r"https?:|url\(|@import|<script|<img|<link", source)
    assert "prefers-color-scheme: dark" in source and "width=device-width" in source
    assert "before 0.500 [0.440, 0.560]" in read.text and "after 0.950 [0.920, 0.970]" in read.text
    assert "Reward: 0.3" in read.text and "Loss: 0.333" in read.text
    assert "3 of 4" in read.text and "1 min 00 s" in read.text and "a CPU" in read.text


def test_whatever_a_run_brings_is_escaped(tmp_path):
    failed = job(NASTY, status="Failed", failure_reason=NASTY)
    record = RECORD | {"trainer": NASTY, "recipe": NASTY}
    source = page(
        report(
            run(NASTY.replace("/", "|"), f"In [1] failed: {NASTY}", jobs=[failed], records=[record]),
            not_run=(NASTY,), parameters={"task": NASTY}, machine=NASTY, versions={NASTY: NASTY}, revision=NASTY,
        ),
        tmp_path,
    )  # fmt: skip
    assert "<script" not in source and "alert(&quot;1&quot;)" in source
    read = Page(source)
    assert read.open == [] and read.text.count(NASTY) >= 8
    assert "<script" not in curve(NASTY, [1], [1.0]) + intervals(NASTY, {NASTY: RECORD["base"]})


def test_a_failed_notebook_is_there_with_its_cell_its_error_and_the_reason_of_its_job(tmp_path):
    failure = "In [12] failed:\n    watch(trainer)\n  \x1b[31mJobFailed\x1b[0m: grpo did not complete."
    failed = job(status="Failed", failure_reason="AlgorithmError: no such reward")
    text = Page(
        page(report(run("01_good", records=[RECORD]), run(failure=failure, jobs=[failed])), tmp_path)
    ).text
    assert "2 notebooks ran, 1 of them failed" in text
    for part in ("In [12] failed", "watch(trainer)", "JobFailed: grpo did", "AlgorithmError: no such reward"):
        assert part in text
    assert "It wrote no results." in text and "\x1b" not in text


def test_a_partial_run_says_what_ran_and_what_did_not(tmp_path):
    text = Page(page(report(run("01_a"), not_run=("02_b", "03_c")), tmp_path)).text
    assert "Ran: 01_a. Did not run: 02_b, 03_c." in text
    assert "Did not run" not in Page(page(report(run("01_a")), tmp_path)).text


def test_a_run_without_results_still_has_a_page(tmp_path):
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "a b.ipynb").write_text("{}")
    short = Run(Path("a b.ipynb"), tmp_path / "notebooks" / "a b.ipynb", 1.0, None)
    written = write_page(report(short), tmp_path)
    assert written == tmp_path / FILE and [path.name for path in tmp_path.iterdir() if path.suffix] == [FILE]
    read = Page(written.read_text())
    assert "notebooks/a%20b.ipynb" in read.addresses and "None of its jobs ran on this machine." in read.text
    assert "Nothing ran" in Page(page(report(), tmp_path)).text


def test_drawings_keep_to_their_field():
    drawn = curve("Reward", [1, 5, 10], [0.0, 0.5, 1.0])
    assert 'points="56.0,128.0 168.9,77.0 310.0,26.0"' in drawn
    assert "NaN" not in curve("Loss", [3], [0.5]) and 'cy="77.0"' in curve("Loss", [1, 2], [0.5, 0.5])
    for steps, values in (([], []), ([1], [float("nan")]), ([1, 2], [1.0])):
        with pytest.raises(ValueError, match="as many finite values"):
            curve("Loss", steps, values)


def write_job(home: Path, name: str, created: datetime, log: str = "", **changes) -> None:
    folder = home / "jobs" / name
    (folder / "logs").mkdir(parents=True)
    record = {"name": name, "status": "InProgress", "secondary_status": "Training", "failure_reason": None}
    record |= {"created": created.isoformat(), "ended": None} | changes
    (folder / "job.json").write_text(json.dumps(record))
    (folder / "logs" / "algo-1.log").write_text(log)


def test_jobs_are_read_from_the_endpoints_files(tmp_path):
    log = "noise\n[metrics] step=1/3 reward=0.5\n[metrics] step=2/3 reward=0.75\n[metrics] step=2/3 eval_pass_at_1=1\n"
    write_job(tmp_path, "earlier-000000-20261127055900", BEGIN - timedelta(seconds=60))
    write_job(tmp_path, "grpo-x-3f9c2a-20261127060010", BEGIN + timedelta(seconds=10), log)
    write_job(tmp_path, "later-000000-20261127070000", BEGIN + timedelta(hours=1))
    (seen,) = read_jobs(tmp_path, BEGIN, BEGIN + timedelta(minutes=5))
    assert (seen.label, seen.step, seen.steps, seen.is_over) == ("grpo-x", 2, 3, False)
    assert seen.history[-1] == {"step": 2, "reward": 0.75, "eval_pass_at_1": 1}
    assert seen.seconds(BEGIN + timedelta(seconds=30)) == 20
    assert read_jobs(tmp_path / "nothing", BEGIN) == []
    assert read_jobs(tmp_path, BEGIN, BEGIN + timedelta(minutes=5), known=[seen])[0] is not seen
    over = job(name=seen.name)
    assert read_jobs(tmp_path, BEGIN, BEGIN + timedelta(minutes=5), known=[over]) == [over]


def test_the_time_left_is_that_of_the_last_run_from_the_last_moment_on_that_both_have():
    last = [0.0, 10.0, 70.0, 100.0]  # a job from 10 to 70
    assert seconds_left(last, [0.0], 5) == 95
    assert seconds_left(last, [0.0], 50) == 90  # the job that comes at 10 has not come yet
    assert seconds_left(last, [0.0, 50.0], 60) == 80
    assert seconds_left(last, [0.0, 50.0, 60.0], 61) == 29  # this job was quicker
    assert seconds_left(last, [0.0, 1.0, 2.0, 3.0, 4.0], 5) == 0  # more jobs than the last time
    assert moments(BEGIN, [job()]) == [0.0, 10.0, 70.0] and moments(BEGIN, [job(seconds=None)]) == [0.0, 10.0]


def test_times_are_kept_for_each_notebook_with_its_parameters(tmp_path):
    key = run_key("02", {"seed": 1, "recipe": "tiny"})
    assert key == run_key("02", {"recipe": "tiny", "seed": 1}) != run_key("02", {})
    assert read_times(tmp_path) == {}
    keep_times(tmp_path, key, [0.0, 9.0])
    keep_times(tmp_path, "01", [0.0, 5.0])
    assert read_times(tmp_path) == {key: [0.0, 9.0], "01": [0.0, 5.0]}
    (tmp_path / "run_times.json").write_text("{")
    assert read_times(tmp_path) == {}
    assert [in_words(s) for s in (4.4, 65, 3600, 59.7)] == ["4 s", "1 min 05 s", "1 h 00 min", "1 min 00 s"]


def running(name: str, last: list[float] | None, *jobs: Job, number: int = 1) -> Running:
    return Running(name, number, last, BEGIN, Path("/nowhere"), list(jobs))


def test_the_block_names_notebook_job_step_and_the_time_left():
    first = running("01_a", [0.0, 10.0, 70.0, 100.0], job(seconds=None))
    now = Now(["01_a", "02_b"], [first.last, [0.0, 50.0]], BEGIN, 1, [1], {0: first})
    lines = block(now, BEGIN + timedelta(seconds=40), 80)
    assert lines[0] == "notebook 1 of 2  01_a: 40 s, about 1 min 00 s left"
    assert lines[1] == "job 1 of 1       grpo: Training, 30 s"
    assert lines[2].startswith("training steps   3/4, reward 0.3  \u2588\u2588")
    assert lines[3] == "whole run        40 s, about 1 min 50 s left"
    assert max(map(len, lines)) < 80 and "#" in block(now, BEGIN, 80, ascii_only=True)[2]


def test_a_first_run_shows_no_invented_time():
    now = Now(["01_a", "02_b"], [None, [0.0, 50.0]], BEGIN, 1, [1], {0: running("01_a", None)})
    lines = block(now, BEGIN + timedelta(seconds=40), 80)
    assert lines == [
        "notebook 1 of 2  01_a: 40 s so far",
        f"{'job':17}none yet",
        "whole run        40 s so far",
    ]


def test_notebooks_side_by_side_each_have_their_lines_and_the_run_ends_with_the_last_of_them():
    names, last = (
        ["01_a", "02_b", "03_c", "04_d"],
        [[0.0, 10.0, 70.0, 100.0], [0.0, 60.0], [0.0, 50.0], [0.0, 20.0]],
    )
    first, second = running(names[0], last[0], job(seconds=None)), running(names[1], last[1], number=2)
    now = Now(names, last, BEGIN, 2, [2, 3], {0: first, 1: second})
    lines = block(now, BEGIN + timedelta(seconds=40), 80)
    assert [line[:17].strip() for line in lines] == [
        "notebook 1 of 4", "job 1 of 1", "training steps", "notebook 2 of 4", "job", "whole run"
    ]  # fmt: skip
    # 60 s of the first, 20 of the second and then 50 of the third: the fourth follows the first.
    assert lines[-1] == "whole run        40 s, about 1 min 20 s left"
    now.running.clear()
    assert now.run_left(BEGIN) == 50  # what waits, on two places
    now.last[3] = None
    assert now.run_left(BEGIN) is None


class Terminal(io.StringIO):
    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def test_a_terminal_gets_one_block_that_is_rewritten_below_what_stays(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "20")
    screen = Screen(out := Terminal())
    screen.show(["one", "x" * 30])
    screen.say("done")
    screen.show([])
    erased = "\x1b[2F\x1b[J"
    shown = re.sub(r"\d\d:\d\d:\d\d", "now", out.getvalue())
    assert shown == f"one\n{'x' * 19}\n{erased}now  done\none\n{'x' * 19}\n{erased}"


def test_a_recorded_terminal_is_drawn_as_it_was_at_one_moment(tmp_path, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(out := Terminal())
    for step in range(3):
        screen.show(["notebook <1>", f"step {step}"])
        screen.say(f"said {step}")
    recording, drawing = tmp_path / "recording", tmp_path / "drawing.svg"
    recording.write_text(f"Script started on today\n{out.getvalue()}\nScript done on today\n")
    assert draw_terminal.main([str(recording), str(drawing), "--contains", "step 1"]) == 0
    texts = [
        text
        for text in Page(drawing.read_text()).text.splitlines()
        if re.search(r"said \d|step \d|notebook <", text)
    ]
    assert [re.sub(r".*  ", "", text.strip()) for text in texts] == [
        "said 0",
        "said 1",
        "notebook <1>",
        "step 1",
    ]
    assert draw_terminal.main([str(recording), str(drawing), "--contains", "step 9"]) == 2


def test_a_log_gets_lines_without_control_characters_and_not_many(monkeypatch):
    out = io.StringIO()
    screen = Screen(out)
    for number in range(30):
        screen.say(f"starts {number}", may_be_left_out=True)
        screen.show([f"block {number}"])
    screen.say("failed")
    lines = out.getvalue().splitlines()
    assert len(lines) == 9 and lines[-1].endswith("failed") and "\x1b" not in out.getvalue()


def test_progress_says_what_happens_to_a_job_once(tmp_path):
    out = io.StringIO()
    with Progress(["01_a"], [None], [0], out=out) as progress:
        started = progress.begin(0, tmp_path / "a.log", tmp_path)
        write_job(
            tmp_path, "grpo-3f9c2a-20261127060010", started, "[metrics] step=1/3 reward=0.5\n", status="Failed",
            failure_reason="AlgorithmError:\nno such reward", ended=(started + timedelta(seconds=7)).isoformat(),
        )  # fmt: skip
        times = progress.end(0, failed=True)
    said = [line.split("  ", 1)[1] for line in out.getvalue().splitlines()]
    assert said[0] == "01_a: notebook 1 of 1; its first run here: how long it takes is not known"
    assert said[2] == "01_a: job 1, grpo: starts"
    assert said[3] == "01_a: job 1, grpo: Failed after 7 s, reward 0.5: AlgorithmError: no such reward"
    assert said[4] == "01_a: FAILED after 0 s" and len(said) == 5
    assert times[1:3] == [0.0, 7.0]
