"""Command line of the endpoint: serve, jobs, logs NAME, stop NAME, interrupt NAME, shutdown."""

import argparse
import json
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from local_sagemaker import client
from local_sagemaker.home import EndpointFile, JobFile, home_folder
from local_sagemaker.hosts.isolation import MODES, IsolationError

MOST_JOBS = 1  # at a time: CPU jobs that run together only slow each other down


def main() -> int:
    options = _parse()
    try:
        return options.run(options) or 0
    except (client.EndpointError, IsolationError) as error:
        print(f"local_sagemaker: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m local_sagemaker", description=__doc__)
    parser.add_argument("--home", help="folder of the endpoint's files (default: build/local_sagemaker)")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    serve = commands.add_parser("serve", help="run the endpoint in the foreground")
    serve.add_argument(
        "--port", type=_number(0, 65535), default=0, help="loopback port (default: a free one)"
    )
    serve.add_argument(
        "--isolation", choices=MODES, help="how hosts get their /opt/ml (default: the best that works)"
    )
    serve.add_argument(
        "--max-jobs",
        type=_number(1, 64),
        default=MOST_JOBS,
        help="jobs that run at once (default: %(default)s)",
    )
    serve.add_argument(
        "--stop-grace",
        type=float,
        default=120.0,
        help="seconds from SIGTERM to SIGKILL (default: %(default)s)",
    )
    serve.add_argument(
        "--idle-hours",
        type=float,
        default=8.0,
        help="end after this long without a request or a job (default: %(default)s)",
    )
    serve.set_defaults(run=_serve)
    commands.add_parser("jobs", help="list all jobs, earlier endpoints' too").set_defaults(run=_jobs)
    commands.add_parser("shutdown", help="end the endpoint and its jobs").set_defaults(run=_shutdown)
    for name, run, text in (
        ("logs", _logs, "print a job's logs"),
        ("stop", _stop, "stop a job as StopTrainingJob does"),
        ("interrupt", _interrupt, "interrupt a spot job, as AWS does when it needs the machines"),
    ):
        command = commands.add_parser(name, help=text)
        command.add_argument("name", metavar="NAME", help="the training job's name")
        command.set_defaults(run=run)
    return parser.parse_args()


def _number(least: int, most: int) -> Callable[[str], int]:
    """An argument type: a whole number between these two."""

    def parse(text: str) -> int:
        if not text.isdecimal() or not least <= int(text) <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return int(text)

    return parse


def _serve(options: argparse.Namespace) -> int:
    # Here and not above: moto takes a second to import, and the other commands do not need it.
    from local_sagemaker.api import operations, server
    from local_sagemaker.hosts import isolation

    chosen = isolation.choose(options.isolation)
    print(f"Hosts are kept apart by {chosen.meaning}", file=sys.stderr)
    try:
        server.serve(
            server.Options(
                home=home_folder(options.home),
                isolation=chosen,
                port=options.port,
                max_jobs=options.max_jobs,
                stop_grace_s=options.stop_grace,
                idle_hours=options.idle_hours,
            )
        )
    except (server.CannotServe, operations.UnknownMoto) as error:
        print(f"local_sagemaker: {error}", file=sys.stderr)
        return 1
    return 0


def _jobs(options: argparse.Namespace) -> None:
    home = home_folder(options.home)
    alive = client.find_endpoint(home)
    records: list[JobFile] = [json.loads(file.read_text()) for file in home.glob("jobs/*/job.json")]
    for record in sorted(records, key=lambda record: record["created"]):
        status = record["status"]
        if record["ended"] is None and not _belongs_to(record, alive, home):
            status = "Lost (its endpoint ended)"
        reason = (record["failure_reason"] or "").partition("\n")[0]
        print(
            f"{record['created'][:19]}  {status:<12} {record['secondary_status']:<12} {record['name']}  {reason}"
        )
    if not records:
        print(f"No jobs in {home}")


def _belongs_to(record: JobFile, alive: client.Endpoint | None, home: Path) -> bool:
    """Whether the job was created in the endpoint that is running now."""
    if alive is None:
        return False
    endpoint: EndpointFile = json.loads((home / "endpoint.json").read_text())
    return datetime.fromisoformat(record["created"]).timestamp() >= endpoint["started"]


def _logs(options: argparse.Namespace) -> int:
    folder = home_folder(options.home) / "jobs" / options.name
    files = sorted((folder / "logs").glob("*.log"))
    if not files:
        if (folder / "job.json").exists():
            status = json.loads((folder / "job.json").read_text())["secondary_status"]
            print(f"{options.name} has not written a log: it is {status}", file=sys.stderr)
        else:
            print(f"No logs of a job named {options.name} in {folder.parent}", file=sys.stderr)
        return 1
    for file in files:
        prefix = f"{file.stem} | " if len(files) > 1 else ""
        with open(file, encoding="utf-8", errors="replace") as lines:
            for line in lines:
                print(prefix + line, end="")
    return 0


def _stop(options: argparse.Namespace) -> int:
    from botocore.exceptions import ClientError

    from local_sagemaker.jobs.storage import aws_client

    try:
        sagemaker = aws_client("sagemaker", _running(options).url, client.REGION, key="local")
        sagemaker.stop_training_job(TrainingJobName=options.name)
    except ClientError as error:
        print(f"local_sagemaker: {error.response['Error']['Message']}", file=sys.stderr)
        return 1
    return 0


def _interrupt(options: argparse.Namespace) -> None:
    client.call(_running(options).url, "interrupt", name=options.name)


def _shutdown(options: argparse.Namespace) -> None:
    print("The endpoint has ended." if client.shutdown(options.home) else "No endpoint was running.")


def _running(options: argparse.Namespace) -> client.Endpoint:
    running = client.find_endpoint(options.home)
    if running is None:
        raise client.EndpointError("No endpoint is running; start one with: python -m local_sagemaker serve")
    return running


if __name__ == "__main__":
    sys.exit(main())
