"""Run the experiments of the modules, each variant with several seeds, and keep what comes of them in the repository.

    python scripts/record_seeds.py                          # every experiment of every module
    python scripts/record_seeds.py 02 rates controls        # two experiments of one module
    python scripts/record_seeds.py 02 --list                # what would be run
    python scripts/record_seeds.py 02 --mode sagemaker --recipe small --instance-type ml.g6.xlarge

Experiments are described in NN_*/recorded/experiments.yaml, results are kept beside it (docs/recorded-runs.md). What is
recorded with the same settings is not run again: stop it when you like, it goes on where it was. Exit code: 0, 1 if a
run failed, 2 for a wrong command line or experiments.yaml, 130 after Ctrl-C.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import psutil
from botocore.exceptions import BotoCoreError, ClientError
from local_sagemaker import client
from rl.spelling import unknown_name
from rl.tasks import DataError
from runs.endpoints import endpoint_of_this_process
from seeds.book import Book
from seeds.experiments import FILE, ExperimentError, read_experiments
from seeds.jobs import LeftBehind, Workplace
from seeds.machine import machine_name, revision
from seeds.runs import Run, missing_runs, settings_of, wanted_runs
from seeds.tables import curve_rows, result_row
from workshop.errors import WorkshopError
from workshop.folders import REPOSITORY
from workshop.jobs.outages import ConnectionLost, Outage, SessionExpired, expired, throttled, unreachable
from workshop.jobs.outputs import JobOutput
from workshop.jobs.status import TERMINAL, aws_client, describe
from workshop.session.connection import MODES, open_session

JOB_GB = 2.0  # of memory, for a job of the tiny recipe and what belongs to it
# What keeps one run from being made and says nothing of the others.
ERRORS = (WorkshopError, DataError, ClientError, BotoCoreError, ValueError)
LOOK_S = {"local": 1.0, "sagemaker": 20.0}  # between two looks at the jobs


@dataclass
class Plan:
    """What is to be done for one module."""

    book: Book
    left: LeftBehind
    missing: list[Run]


@dataclass
class Recorder:
    """Makes a module's missing runs, some side by side, and writes each down as it ends."""

    plan: Plan
    workplace: Workplace
    side_by_side: int
    failures: list[tuple[Run, str]] = field(default_factory=list)  # and why
    _waiting: list[Run] = field(default_factory=list)
    _running: dict[str, Run] = field(default_factory=dict)  # by the job's name

    def record(self) -> None:
        """Returns when all runs have ended. Jobs that still run when it is interrupted are stopped."""
        self._waiting = list(self.plan.missing)
        self._sagemaker, self._revision = aws_client("sagemaker"), revision()
        self._outage = Outage("the jobs", self.workplace.session.mode == "local", time.monotonic())
        try:
            while self._waiting or self._running:
                self._start_some()
                time.sleep(LOOK_S[self.workplace.session.mode] if self._waiting or self._running else 0)
                for name, run in list(self._running.items()):
                    if (job := self._look(name)) and job["TrainingJobStatus"] in TERMINAL:
                        del self._running[name]
                        self._take(run, job)
        finally:
            for name in self._running:
                with contextlib.suppress(ClientError, BotoCoreError):
                    self._sagemaker.stop_training_job(TrainingJobName=name)

    def _start_some(self) -> None:
        """Starts what has what it needs, up to as many as may run; gives up what will never have it."""
        for run in list(self._waiting):
            to_come = {other.key for other in (*self._waiting, *self._running.values())}
            if set(run.needs) & to_come:
                continue
            failed = [str(other) for other, _ in self.failures if other.key in run.needs]
            if failed or not all(self.plan.left.find(key) for key in run.needs):
                self._waiting.remove(run)
                others = "; ".join(failed) or "it is not there any more"
                self._fail(run, f"It starts from what another run leaves, which failed: {others}")
            elif len(self._running) < self.side_by_side:
                try:
                    name = self.workplace.start(run)
                except ERRORS as error:
                    if isinstance(error, ClientError | BotoCoreError) and passes(error):
                        self._outage.note(error, time.monotonic())
                        return  # it is tried again
                    self._waiting.remove(run)
                    self._fail(run, str(error))
                else:
                    self._waiting.remove(run)
                    self._running[name] = run
                    print(f"started  {run}: {name}", flush=True)

    def _look(self, name: str) -> dict | None:
        """The job as it stands; None while there is no answer. Raises when waiting for one does not help."""
        try:
            job = describe(name, self._sagemaker)
        except (ClientError, BotoCoreError) as error:
            self._outage.note(error, time.monotonic())
            return None
        self._outage.over(time.monotonic())
        return job

    def _take(self, run: Run, job: dict) -> None:
        """Writes down what an ended job has left, or why there is nothing."""
        if job["TrainingJobStatus"] != "Completed":
            self._fail(
                run, job.get("FailureReason") or f"SageMaker says {job['SecondaryStatus']}, and no reason."
            )
            return
        try:
            output = self.workplace.fetch(job["TrainingJobName"])
        except ERRORS as error:
            self._fail(run, str(error))
            return
        if "stopped_by" in output.parts.get("summary", {}):
            done, asked = output.summary["steps"], output.summary.get("steps_asked")
            self._fail(
                run, f"Its time cap ended it after step {done} of {asked}: raise max_hours in machines.yaml."
            )
            return
        self.plan.left.keep(run.key, output)
        instance_type = self.workplace.machine(run).instance_type
        row = result_row(output, job.get("TrainingTimeInSeconds")) | {
            "recorded": f"{datetime.now(UTC):%Y-%m-%d}",
            "machine": machine_name(self.workplace.session.mode, instance_type),
            "revision": self._revision,
        }
        self.plan.book.write(run, row, curve_rows(output.history))
        left = len(self._waiting) + len(self._running)
        print(f"recorded {run}: {_in_short(output)}; {left} to go", flush=True)

    def _fail(self, run: Run, reason: str) -> None:
        self.failures.append((run, reason))
        print(f"FAILED   {run}", flush=True)


def passes(error: ClientError | BotoCoreError) -> bool:
    """Whether the same call may do well in a while."""
    return throttled(error) or unreachable(error) or expired(error)


def _in_short(output: JobOutput) -> str:
    took = f"{output.summary['train_seconds']:.0f} s of training" if "summary" in output.parts else "done"
    if not {"before", "after"} <= output.parts.keys():
        return took
    return f"{took}, sampled pass@1 {output.before.sampled.value:.3f} -> {output.after.sampled.value:.3f}"


def find_modules(root: Path, wanted: str | None) -> list[Path]:
    """Folders of modules that have experiments; with `wanted`, the one whose name begins so. Raises ExperimentError."""
    there = sorted(path.parents[1] for path in root.glob(f"[0-9][0-9]_*/{FILE}"))
    found = [module for module in there if module.name.startswith(wanted or "")]
    if not found:
        known = ", ".join(module.name for module in there) or "none"
        raise ExperimentError(f"No module {wanted or 'with experiments'}. With {FILE}: {known}.")
    return found


def make_plan(module: Path, options: argparse.Namespace) -> Plan:
    """What is missing of the experiments asked for. Raises ExperimentError, MachineError."""
    experiments = read_experiments(module)
    for name in options.experiments:
        if name not in experiments:
            raise ExperimentError(f"{module.name}: {unknown_name('experiment', name, experiments)}")
    if options.recipe:
        experiments = {k: dataclasses.replace(e, recipe=options.recipe) for k, e in experiments.items()}
    chosen = options.experiments or list(experiments)
    settings = {name: settings_of(module, experiments[name]) for name in chosen}
    book = Book(module, experiments, settings)
    left = LeftBehind(options.build / "seeds" / module.name, options.mode)
    wanted = wanted_runs([(experiments[name], settings[name]) for name in chosen], options.seeds)
    missing = missing_runs(
        wanted,
        is_recorded=lambda run: not options.again and book.find(run) is not None,
        has_output=lambda run: left.find(run.key) is not None,
    )
    print(f"{module.name}: {len(wanted)} runs, {len(missing)} of them to make")
    for name in chosen:
        for variant, seeds in book.stale(name).items():
            listed = ", ".join(map(str, sorted(seeds)))
            gone = "" if variant in settings[name] else ", and there is no such variant now"
            print(f"  {name}, {variant}: recorded with other settings{gone}; its rows go (seeds {listed})")
    for run in missing if options.list else []:
        print(f"  {run}")
    for run in wanted if not options.list else []:
        for name in book.share(run) if run not in missing else []:
            print(f"  {run}: the same run as in another experiment, copied to {name}")
    return Plan(book, left, missing)


def run_plan(plan: Plan, options: argparse.Namespace) -> list[tuple[Run, str]]:
    """Makes the missing runs; returns those that failed, and why."""
    room = int(psutil.virtual_memory().available / (JOB_GB * 1e9))
    most = max(1, min(os.cpu_count() or 1, room))
    side_by_side = options.jobs or (most if options.mode == "local" else 1)
    # One that runs already is used, and is left running.
    with endpoint_of_this_process(options.build) if options.mode == "local" else contextlib.nullcontext():
        if options.mode == "local":
            client.ensure_endpoint(max_jobs=side_by_side)
        session = open_session(options.mode)
        workplace = Workplace(session, plan.book.module, plan.left, options.instance_type)
        recorder = Recorder(plan, workplace, side_by_side)
        recorder.record()
    return recorder.failures


def _arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="record_seeds.py"
    )
    parser.add_argument(
        "module", nargs="?", help="a module's number, such as 02; all that have experiments if none"
    )
    parser.add_argument("experiments", nargs="*", help="names in its experiments.yaml; all if none")
    parser.add_argument("--seeds", nargs="+", type=int, default=[], help="in place of the experiments' own")
    parser.add_argument("--mode", choices=MODES, default="local", help="local (default), or sagemaker: AWS")
    parser.add_argument("--recipe", default="", help="in place of the experiments' own")
    parser.add_argument("--instance-type", default="", help="in place of that of machines.yaml")
    parser.add_argument(
        "--jobs", type=int, default=0, help="jobs side by side; default: one a core, on AWS 1"
    )
    parser.add_argument("--again", action="store_true", help="also make the runs that are recorded already")
    parser.add_argument("--list", action="store_true", help="say what would be run, and end")
    parser.add_argument("--root", type=Path, default=REPOSITORY, help=argparse.SUPPRESS)  # for tests
    options = parser.parse_intermixed_args(arguments)  # 02 --list rates
    options.build = options.root / "build"
    return options


def main(arguments: list[str] | None = None) -> int:
    options = _arguments(arguments)
    # So that the endpoint and the jobs are stopped.
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    failures: list[tuple[Run, str]] = []
    try:
        plans = [make_plan(module, options) for module in find_modules(options.root, options.module)]
        for plan in plans if not options.list else []:
            failures += run_plan(plan, options) if plan.missing else []
    except (ConnectionLost, SessionExpired) as error:
        print(f"error: {error}\nWhat is recorded stays: the same command goes on.", file=sys.stderr)
        return 1
    except (WorkshopError, DataError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(
            "\nInterrupted: the jobs were stopped. What is recorded stays: the same command goes on.",
            file=sys.stderr,
        )
        return 130
    for run, reason in failures:
        print(f"\nFAILED {run}\n  " + reason.strip().replace("\n", "\n  "))
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
