"""Rehearse the notebooks as an attendee in SageMaker Studio runs them: mode = "sagemaker", recipe = "smoke".

    python scripts/rehearse_notebooks.py          # all five
    python scripts/rehearse_notebooks.py 02       # one

The kernel is given what a Studio kernel has: credentials of an execution role and a region, in its environment. The
addresses there lead to a local endpoint that poses as AWS and carries the jobs out with the tiny model. The notebooks run
side by side, as people do who share an account. Nothing else of local mode is used, and what the endpoint was asked is
looked at afterwards: no path of this machine may be in it, and no name may have been given out twice.

Everything is kept under build/rehearsal/: the executed notebooks and their logs, each job's request, and calls.jsonl, the
AWS operations that were called. Exit code: 0, 1 if a notebook failed or a request is not fit for AWS, 2 for a wrong
command line.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import boto3
import papermill
import yaml
from local_sagemaker import client
from run_notebooks import ROOT, UsageError, find_notebooks, summary_text
from runs.notebook import run_notebook
from runs.report import Run
from workshop.session.telemetry import NO_TELEMETRY

# As few of everything as each cell can work with. A notebook takes those that it has as parameters.
PARAMETERS: dict[str, object] = {
    "mode": "sagemaker",
    "recipe": "smoke",
    "train_problems": 64,
    "test_problems": 8,
    "tool_steps": 2,
    "till_steps": 2,
}
# Where a second process would only import the libraries once more: 03 and 05 spread their jobs over two, and with the
# recipe tiny so do these.
ONE_PROCESS = ("01_dpo_trl", "02_grpo_trl_accelerate")
KERNEL = "rehearsal"
ATTENDEE = "attendee"  # who seems to be working


def rehearse(notebooks: list[Path], output: Path) -> tuple[list[Run], list[str]]:
    """Run the notebooks against an endpoint of their own; what ran, and what is wrong with what AWS would have got."""
    with _endpoint(output) as endpoint:
        environment = studio_environment(endpoint, output)
        runs = asyncio.run(_side_by_side(notebooks, output, environment))
        shutil.copy(endpoint.home / "calls.jsonl", output)  # before this script asks for something itself
        requests = requests_of(endpoint)
    (output / "requests.json").write_text(json.dumps(requests, indent=1, default=str))
    return runs, problems_with(requests)


async def _side_by_side(notebooks: list[Path], output: Path, environment: dict[str, str]) -> list[Run]:
    return await asyncio.gather(*(_rehearse_one(notebook, output, environment) for notebook in notebooks))


async def _rehearse_one(notebook: Path, output: Path, environment: dict[str, str]) -> Run:
    known = papermill.inspect_notebook(str(notebook))
    parameters = {name: value for name, value in PARAMETERS.items() if name in known}
    if notebook.parent.name in ONE_PROCESS:
        parameters["machine_changes"] = {"process_count": 1}
    with open(output / f"{notebook.stem}.log", "w", encoding="utf-8") as log:
        run = await run_notebook(notebook, parameters, output, log, kernel=KERNEL, environment=environment)
    print(f"{notebook.stem}: {'failed' if run.failure else 'ok'} after {run.seconds:.0f} s", flush=True)
    return run


def studio_environment(endpoint: client.Endpoint, output: Path) -> dict[str, str]:
    """The environment of a kernel in Studio, whose AWS is the endpoint, and the folder of its kernel specification."""
    port = endpoint.url.rpartition(":")[2]
    kernels = output / "jupyter"
    specification = kernels / "kernels" / KERNEL / "kernel.json"
    specification.parent.mkdir(parents=True, exist_ok=True)
    kernel = ROOT / "scripts" / "local_sagemaker" / "kernel.py"
    argv = [sys.executable, str(kernel), "-f", "{connection_file}"]
    specification.write_text(json.dumps({"argv": argv, "display_name": KERNEL, "language": "python"}))
    sdk_settings = output / "sagemaker-config.yaml"
    sdk_settings.write_text(yaml.safe_dump(NO_TELEMETRY))  # a rehearsal reaches no one
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "LOCAL_SAGEMAKER_"))
    }
    return kept | {
        # By name and not by number: local mode is known by 127.0.0.1, and this is not local mode.
        "AWS_ENDPOINT_URL": f"http://localhost:{port}",
        "AWS_ACCESS_KEY_ID": "ASIAREHEARSAL",
        "AWS_SECRET_ACCESS_KEY": "rehearsal",
        "AWS_SESSION_TOKEN": "rehearsal",
        "AWS_DEFAULT_REGION": client.REGION,
        "AWS_REGION": client.REGION,
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": client.without_proxy(os.environ.get("NO_PROXY") or os.environ.get("no_proxy")),
        "SAGEMAKER_USER_CONFIG_OVERRIDE": str(sdk_settings),
        "JUPYTER_PATH": str(kernels),
        "LOGNAME": ATTENDEE,
    }


@contextlib.contextmanager
def _endpoint(output: Path) -> Iterator[client.Endpoint]:
    """An endpoint of this rehearsal alone, which writes down every call; it ends with the rehearsal."""
    folder = output / "endpoints"
    folder.mkdir(parents=True, exist_ok=True)
    home = Path(tempfile.mkdtemp(prefix=time.strftime("%Y%m%d-%H%M%S-"), dir=folder))
    try:
        yield client.ensure_endpoint(home, max_jobs=os.cpu_count() or 1)
    finally:
        client.shutdown(home)
        shutil.rmtree(home / "s3", ignore_errors=True)  # no other endpoint serves this home


def requests_of(endpoint: client.Endpoint) -> list[dict]:
    """What DescribeTrainingJob says of each job, in the order of their creation."""
    sagemaker = boto3.client(
        "sagemaker",
        endpoint_url=endpoint.url,
        region_name=client.REGION,
        aws_access_key_id="rehearsal",
        aws_secret_access_key="rehearsal",
    )
    pages = sagemaker.get_paginator("list_training_jobs").paginate(
        SortBy="CreationTime", SortOrder="Ascending"
    )
    names = [job["TrainingJobName"] for page in pages for job in page["TrainingJobSummaries"]]
    described = [sagemaker.describe_training_job(TrainingJobName=name) for name in names]
    return [{key: value for key, value in job.items() if key != "ResponseMetadata"} for job in described]


def problems_with(requests: list[dict]) -> list[str]:
    """What of these jobs would be wrong on AWS, in words."""
    problems, checkpoints = [], {}
    here = {str(ROOT), str(Path.home()), tempfile.gettempdir()} - {"/"}
    for request in requests:
        name, text = request["TrainingJobName"], json.dumps(request, default=str)
        problems += [
            f"{name}: a path of this machine is in its request: {path}" for path in here if f'"{path}' in text
        ]
        problems += [
            f"{name}: its request names {word}"
            for word in ("127.0.0.1", "localhost", "sqlite:")
            if word in text
        ]
        if "MLFLOW_TRACKING_URI" in request.get("Environment", {}):
            problems.append(f"{name}: nobody named a tracking server, and yet its environment does")
        uri = request.get("CheckpointConfig", {}).get("S3Uri")
        if uri in checkpoints:
            problems.append(f"{name} and {checkpoints[uri]} share their checkpoints: {uri}")
        if uri:
            checkpoints[uri] = name
        cap = str(request["StoppingCondition"]["MaxRuntimeInSeconds"])
        if request.get("Environment", {}).get("JOB_MAX_SECONDS") != cap:
            problems.append(f"{name}: JOB_MAX_SECONDS in its environment is not its limit of {cap} s")
    return problems


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        prog="rehearse_notebooks.py",
    )
    parser.add_argument("notebooks", nargs="*", help="module numbers such as 02; all modules if none")
    parser.add_argument(
        "--output", type=Path, default=ROOT / "build" / "rehearsal", help="default: build/rehearsal/"
    )
    options = parser.parse_args(arguments)
    output = options.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    try:
        runs, problems = rehearse(find_notebooks(options.notebooks), output)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"\n{summary_text(runs)}")
    print("\n".join(f"not fit for AWS: {problem}" for problem in problems) or "Every request is fit for AWS.")
    return 1 if problems or any(run.failure for run in runs) else 0


if __name__ == "__main__":
    sys.exit(main())
