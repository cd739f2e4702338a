"""Every job of every notebook with every recipe, as AWS would get it: requests for the tests, a table for readers.

    python scripts/request_matrix.py          # writes tests/golden/requests/*.json and docs/aws-jobs.md
    python scripts/request_matrix.py 02       # one notebook's; the table is written when all are there

Each notebook is run from its first cell to its last with mode = "sagemaker". The SDK builds each request, uploads data and
source to a local endpoint, and calls CreateTrainingJob; there the call is kept back. It is validated against botocore's
model of the API, put through preflight as on AWS, and answered as if the job had completed at once, with a tiny model
and some made-up pairs, so that the next cell can go on. Cells that only look at results find none and may fail; a cell
that starts a job may not.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import nbformat
from local_sagemaker import client
from local_sagemaker.compat import sts_address
from rehearse_notebooks import ATTENDEE, studio_environment
from rl.evaluation import Completion, score_completions
from rl.preferences import write_pairs
from rl.tasks import make_splits
from rl.verifiers import get_verifier
from run_notebooks import ROOT, find_notebooks
from workshop.session.machines import read_machines

GOLDEN = ROOT / "tests" / "golden" / "requests"
TABLE = ROOT / "docs" / "aws-jobs.md"
IMAGE_OF_ONES_OWN = "123456789012.dkr.ecr.us-east-1.amazonaws.com/rl-workshop-verl:verl-0.9.1-0123456789ab"
_ENDING = re.compile(rf"-{ATTENDEE}-[0-9a-f]{{6}}(-\d{{14}})?")  # what makes a name unique
STARTS_A_JOB = re.compile(r"\.train\(|run_job\(|preflight\(")


def recipes_of(notebook: Path) -> list[str]:
    """The recipes that a notebook's parameter may name: the rows of machines.yaml, but for 05's tools, a side job's."""
    return [recipe for recipe in read_machines(notebook.parent / "machines.yaml") if recipe != "tools"]


def jobs_of(notebook: Path, recipe: str, environment: dict[str, str]) -> list[dict[str, Any]]:
    """The jobs that the notebook starts with the recipe, in order, recorded in a process of their own.

    Each has `section`, `name`, `request` (of CreateTrainingJob) and `checks` (preflight's lines).
    Raises RuntimeError with the process's output if a cell that starts a job failed.
    """
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        out = Path(folder) / "jobs.json"
        run = subprocess.run(
            [sys.executable, __file__, "--record", str(notebook), recipe, str(out)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=900,
        )
        if run.returncode:
            raise RuntimeError(
                f"{notebook.parent.name}, {recipe}:\n{run.stdout[-3000:]}\n{run.stderr[:8000]}"
            )
        return json.loads(out.read_text())


def record(notebook: Path, recipe: str, folder: Path) -> list[dict[str, Any]]:
    """Run the notebook's cells in this process, in a copy of its place under `folder`, and keep what it asks AWS for."""
    from IPython.core.interactiveshell import InteractiveShell

    place = folder / notebook.parent.name
    for path in (ROOT / "scripts", ROOT / "requirements.txt"):
        (folder / path.name).symlink_to(path)
    place.mkdir()
    for path in notebook.parent.iterdir():
        if path.suffix != ".ipynb" and not path.name.startswith("."):
            (place / path.name).symlink_to(path)
    os.chdir(place)
    sys.path.insert(0, str(place))
    sts_address.follow_endpoint(os.environ["AWS_ENDPOINT_URL"])  # as in the rehearsal's kernel
    keeper = RequestKeeper()
    shell = InteractiveShell.instance()
    shell.run_cell("import matplotlib; matplotlib.use('Agg')")
    section, failures = "", []
    for cell in nbformat.read(notebook, as_version=4).cells:
        if cell.cell_type == "markdown":
            section = (re.findall(r"^## (\d+\. .*)$", cell.source, re.MULTILINE) or [section])[-1]
            continue
        keeper.section = section
        shown = io.StringIO()
        with contextlib.redirect_stdout(shown), contextlib.redirect_stderr(shown):
            result = shell.run_cell(cell.source)
        if not result.success:
            failures.append(f"{section}\n{cell.source}\n\n{shown.getvalue()[-4000:]}")
            if STARTS_A_JOB.search(cell.source) or not keeper.jobs:
                raise SystemExit("\n\n".join(failures))
        if "parameters" in cell.metadata.get("tags", []):
            shell.user_ns |= {
                "mode": "sagemaker",
                "recipe": recipe,
                "train_problems": 256,
                "test_problems": 64,
            }
            if "image_uri" in shell.user_ns and read_machines("machines.yaml")[recipe].get("own_image"):
                shell.user_ns["image_uri"] = IMAGE_OF_ONES_OWN
            keeper.names = shell.user_ns
    os.chdir(ROOT)  # the place that this process is in goes with the folder
    return keeper.jobs


class RequestKeeper:
    """Keeps CreateTrainingJob from being sent, and answers for the jobs that there would be."""

    def __init__(self) -> None:
        from botocore.client import BaseClient
        from sagemaker.train import ModelTrainer

        self.jobs: list[dict[str, Any]] = []
        self.section = ""
        self.names: dict[str, Any] = {}  # the notebook's
        self._described: dict[str, dict[str, Any]] = {}
        self._checks: list[dict[str, str]] = []
        self._send: Callable = BaseClient._make_api_call
        self._train: Callable = ModelTrainer.train
        keeper = self

        def make_api_call(client: BaseClient, operation: str, parameters: dict[str, Any]) -> Any:
            return keeper._answer(client, operation, parameters)

        def train(trainer: ModelTrainer, input_data_config: list | None = None, **options: Any) -> None:
            keeper._checks = keeper._preflight(trainer, input_data_config or [])
            keeper._train(trainer, input_data_config=input_data_config, **options)

        BaseClient._make_api_call = make_api_call
        ModelTrainer.train = train

    def _preflight(self, trainer: Any, channels: list) -> list[dict[str, str]]:
        from workshop.checks.preflight import run_checks
        from workshop.checks.recipe_checks import check_recipe
        from workshop.checks.request import read_request

        reader = self.names.get("check_verl_recipe", check_recipe)
        checks = run_checks(read_request(trainer, channels), reader)
        return [{"name": check.name, "status": check.status, "detail": check.detail} for check in checks]

    def _answer(self, sender: Any, operation: str, parameters: dict[str, Any]) -> Any:
        from botocore.validate import ParamValidator

        if operation == "CreateTrainingJob":
            shape = sender._service_model.operation_model(operation).input_shape
            if problems := ParamValidator().validate(parameters, shape).generate_report():
                raise ValueError(f"botocore: {problems}")
            name = parameters["TrainingJobName"]
            self.jobs.append(
                {
                    "section": self.section,
                    "name": _ENDING.sub("", name),
                    "request": normal_form(parameters),
                    "checks": self._checks,
                }
            )
            self._described[name] = _completed(sender.meta.region_name, parameters)
            _upload_results(parameters)
            return {"TrainingJobArn": self._described[name]["TrainingJobArn"]}
        if operation == "ListServiceQuotas":
            return {"Quotas": _quotas()}
        if operation == "DescribeTrainingJob":
            return self._described[parameters["TrainingJobName"]]
        return self._send(sender, operation, parameters)


def _quotas() -> list[dict[str, Any]]:
    """Those of an account in which two instances of each type may train."""
    from workshop.checks.instances import training_instance_types

    usages = ("training job usage", "spot training job usage")
    names = [f"{kind} for {usage}" for kind in training_instance_types() for usage in usages]
    return [{"QuotaName": name, "Value": 2.0} for name in names]


def _completed(region: str, request: dict[str, Any]) -> dict[str, Any]:
    """DescribeTrainingJob's answer for a job that has completed."""
    name, end = request["TrainingJobName"], datetime.now(UTC)
    output = request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    return request | {
        "TrainingJobArn": f"arn:aws:sagemaker:{region}:123456789012:training-job/{name}",
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "ModelArtifacts": {"S3ModelArtifacts": f"{output}/{name}/output/model.tar.gz"},
        "CreationTime": end - timedelta(minutes=5),
        "TrainingStartTime": end - timedelta(minutes=4),
        "TrainingEndTime": end,
        "LastModifiedTime": end,
        "TrainingTimeInSeconds": 240,
        "BillableTimeInSeconds": 240,
        "SecondaryStatusTransitions": [
            {
                "Status": "Completed",
                "StartTime": end,
                "EndTime": end,
                "StatusMessage": "Training job completed",
            }
        ],
    }


def _upload_results(request: dict[str, Any]) -> None:
    """What later cells read: the tiny model as the job's model, made-up pairs and evaluations as its output."""
    import boto3

    bucket, _, prefix = request["OutputDataConfig"]["S3OutputPath"].removeprefix("s3://").partition("/")
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        model, output = Path(folder) / "model", Path(folder) / "output"
        shutil.copytree(ROOT / "scripts" / "assets" / "tiny", model)
        config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 32768}
        (model / "config.json").write_text(json.dumps(config))  # as long as the models that it stands for
        output.mkdir()
        _write_output(output)
        for archive, content in (("model", model), ("output", output)):
            packed = Path(folder) / f"{archive}.tar.gz"
            with tarfile.open(packed, "w:gz") as tar:
                tar.add(content, ".")
            key = f"{prefix.rstrip('/')}/{request['TrainingJobName']}/output/{packed.name}"
            boto3.client("s3").upload_file(str(packed), bucket, key)


def _write_output(folder: Path) -> None:
    pairs = _pairs()
    write_pairs(pairs, folder / "pairs.jsonl")
    completions = [
        Completion(
            index=pair["index"],
            question=pair["question"],
            answer=pair["answer"],
            decoding=decoding,
            sample=0,
            completion=pair["chosen"][0]["content"],
            tokens=30,
            cut_off=False,
        )
        for pair in pairs[:8]
        for decoding in ("greedy", "sampled")
    ]
    for moment in ("before", "after"):
        score_completions(completions, get_verifier("number")).save(folder / f"evaluation_{moment}.json")


def _pairs() -> list[Any]:
    answers = {"chosen": "{answer}", "rejected": "{answer}0"}
    return [
        {
            **row,
            **{
                side: [
                    {"role": "assistant", "content": f"<think></think><answer>{text.format(**row)}</answer>"}
                ]
                for side, text in answers.items()
            },
            **{f"{part}_tokens": 30 for part in ("prompt", *answers)},
        }
        for row in make_splits("chain_sum", {"train": 200}, seed=1)["train"]
    ]


def normal_form(request: dict[str, Any]) -> dict[str, Any]:
    """The request without what differs from run to run: random names, times, folders, the revision."""
    text = json.dumps(request, sort_keys=True, default=str)
    text = _ENDING.sub("-NAME", text)
    text = re.sub(r'("WORKSHOP_GIT_REVISION": )"[^"]*"', r'\1"REVISION"', text)
    return json.loads(text)


def collect(notebooks: list[Path], folder: Path) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """All jobs: module -> recipe -> jobs. Two notebooks run at a time."""
    home = folder / "endpoint"
    endpoint = client.ensure_endpoint(home)
    try:
        environment = studio_environment(endpoint, folder) | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
        with concurrent.futures.ThreadPoolExecutor(2) as pool:
            running = {
                (notebook.parent.name, recipe): pool.submit(jobs_of, notebook, recipe, environment)
                for notebook in notebooks
                for recipe in recipes_of(notebook)
            }
            found: dict[str, dict[str, list[dict[str, Any]]]] = {}
            for (module, recipe), jobs in running.items():
                found.setdefault(module, {})[recipe] = jobs.result()
            return found
    finally:
        client.shutdown(home)


def golden_text(recipes: dict[str, list[dict[str, Any]]]) -> str:
    """A module's requests as the golden file has them."""
    requests = {
        recipe: [{key: job[key] for key in ("section", "name", "request")} for job in jobs]
        for recipe, jobs in recipes.items()
    }
    return json.dumps(requests, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def table_text(modules: dict[str, dict[str, list[dict[str, Any]]]]) -> str:
    """docs/aws-jobs.md: what each cell starts, by recipe."""
    lines = [
        "# What the notebooks start on AWS",
        "",
        'Made by `scripts/request_matrix.py`, and checked by a test: each notebook is run with `mode = "sagemaker"` and each recipe,',
        "up to the call of CreateTrainingJob, which is validated against botocore's model of the API and put through preflight. The",
        "hours are caps. Dollars are the cap's, by the price table of",
        "[instances.json](../scripts/workshop/checks/instances.json). **No job of this table has been run on AWS.**",
    ]
    for module, recipes in sorted(modules.items()):
        lines += ["", f"## {module}"]
        for recipe, jobs in recipes.items():
            lines += [
                "",
                f"### {recipe}",
                "",
                "| section | job | on | processes | image | at most | memory |",
                "|---|---|---|---|---|---|---|",
            ]
            lines += [_row(job) for job in jobs]
    return "\n".join(lines) + "\n"


def _row(job: dict[str, Any]) -> str:
    request, checks = job["request"], {check["name"]: check["detail"] for check in job["checks"]}
    resources = request["ResourceConfig"]
    image = request["AlgorithmSpecification"]["TrainingImage"].partition("/")[2]
    hours = request["StoppingCondition"]["MaxRuntimeInSeconds"] / 3600
    dollars = re.search(r"at most \$[\d,.]+", checks.get("cost", ""))
    processes = re.search(r"processes each: (\d+)", checks.get("machines", ""))
    return (
        f"| {job['section']} | {job['name']} | {resources['InstanceCount']} x {resources['InstanceType']} "
        f"| {processes[1] if processes else ''} | {image} "
        f"| {hours:g} h{', ' + dollars[0].removeprefix('at most ') if dollars else ''} | {checks.get('memory', '')} |"
    )


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, prog="request_matrix.py"
    )
    parser.add_argument("notebooks", nargs="*", help="module numbers such as 02; all modules if none")
    parser.add_argument("--record", nargs=3, metavar=("NOTEBOOK", "RECIPE", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.record:
        notebook, recipe, out = options.record
        with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
            Path(out).write_text(
                json.dumps(record(Path(notebook).resolve(), recipe, Path(folder)), default=str)
            )
        return 0
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        found = collect(find_notebooks(options.notebooks), Path(folder))
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for module, recipes in found.items():
        (GOLDEN / f"{module}.json").write_text(golden_text(recipes), encoding="utf-8")
    if not options.notebooks:
        TABLE.write_text(table_text(found), encoding="utf-8")
    refused = [
        f"{module}, {recipe}, {job['section']}, {job['name']}: {check['name']}: {check['detail']}"
        for module, recipes in found.items()
        for recipe, jobs in recipes.items()
        for job in jobs
        for check in job["checks"]
        if check["status"] == "problem"
    ]
    print("\n".join(refused) or "Preflight refuses none of them.")
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
