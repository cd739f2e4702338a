"""Keeps CreateTrainingJob from being sent: what the SDK would ask AWS for, and answers that let a notebook go on.

Each request is validated against botocore's model of the API and put through preflight, and answered as if the job had
completed at once, with a tiny model, some made-up pairs and evaluations that say to be of what the job would have
evaluated. Everything else goes where it would go, but
for what the SDK reports about its use, which goes nowhere.
"""

import dataclasses
import functools
import io
import json
import re
import shutil
import tarfile
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import boto3
from botocore.client import BaseClient
from botocore.validate import ParamValidator
from job.record import EVALUATION_BEFORE
from rehearse_notebooks import ATTENDEE
from rl.evaluation import Completion, Evaluation, score_completions
from rl.preferences import write_pairs
from rl.tasks import make_splits
from rl.verifiers import get_verifier
from run_notebooks import ROOT
from sagemaker.core.telemetry import telemetry_logging
from sagemaker.train import ModelTrainer
from workshop.checks.base_checks import evaluated_by
from workshop.checks.duration import job_duration
from workshop.checks.instances import training_instance_types
from workshop.checks.machine_checks import job_quotas
from workshop.checks.preflight import run_checks
from workshop.checks.recipe_checks import check_recipe
from workshop.checks.request import read_request
from workshop.s3 import split_uri

_ENDING = re.compile(rf"-{ATTENDEE}-[0-9a-f]{{6}}(-\d{{14}})?")  # what makes a name unique

_OF_A_JOB_ALONE = re.compile(r"/input/(code|sm_drivers)/")  # the script's folder and the SDK's drivers


class RequestKeeper:
    """Keeps CreateTrainingJob from being sent, and answers for the jobs that there would be."""

    def __init__(self) -> None:
        self.jobs: list[dict[str, Any]] = []
        self.section = ""
        self.names: dict[str, Any] = {}  # the notebook's
        self._described: dict[str, dict[str, Any]] = {}
        self._settings: dict[str, Any] = {}  # the job's
        self._checks: list[dict[str, str]] = []
        self._seconds: float | None = None  # that the job is estimated to take
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
        telemetry_logging._send_telemetry_request = lambda *_arguments, **_options: None

    def _preflight(self, trainer: Any, channels: list) -> list[dict[str, str]]:
        reader, request = self.names.get("check_verl_recipe", check_recipe), read_request(trainer, channels)
        checks, self._settings = run_checks(request, reader), reader(request)[0]
        expected = job_duration(request, self._settings)
        self._seconds = expected.total if expected else None
        return [{"name": check.name, "status": check.status, "detail": check.detail} for check in checks]

    def _answer(self, sender: Any, operation: str, parameters: dict[str, Any]) -> Any:
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
                    "seconds": self._seconds,
                }
            )
            self._described[name] = _completed(sender.meta.region_name, parameters)
            _upload_results(parameters, self._settings)
            return {"TrainingJobArn": self._described[name]["TrainingJobArn"]}
        if operation == "ListServiceQuotas":
            return {"Quotas": _quotas()}
        if operation == "PutObject" and _OF_A_JOB_ALONE.search(parameters["Key"]):
            return {}  # nothing reads it, and it is the most of what a job uploads
        if operation == "DescribeTrainingJob":
            return self._described[parameters["TrainingJobName"]]
        return self._send(sender, operation, parameters)


def _quotas() -> list[dict[str, Any]]:
    """Those of an account in which two instances may train, of any type."""
    kinds = [(kind, spot) for kind in training_instance_types() for spot in (False, True)]
    names = {name for kind in kinds for name in job_quotas(*kind)}
    return [{"QuotaName": name, "Value": 2.0} for name in sorted(names)]


def _completed(region: str, request: dict[str, Any]) -> dict[str, Any]:
    """DescribeTrainingJob's answer for a job that has completed."""
    name, end = request["TrainingJobName"], datetime.now(UTC)
    output = request["OutputDataConfig"]["S3OutputPath"].rstrip("/")
    model = "model.tar.gz" if _is_packed(request) else "model/"
    return request | {
        "TrainingJobArn": f"arn:aws:sagemaker:{region}:123456789012:training-job/{name}",
        "TrainingJobStatus": "Completed",
        "SecondaryStatus": "Completed",
        "ModelArtifacts": {"S3ModelArtifacts": f"{output}/{name}/output/{model}"},
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


def _is_packed(request: dict[str, Any]) -> bool:
    return request["OutputDataConfig"].get("CompressionType") != "NONE"


def _upload_results(request: dict[str, Any], settings: dict[str, Any]) -> None:
    """What later cells read: the tiny model as the job's model, made-up pairs and evaluations as its output."""
    bucket, prefix = split_uri(request["OutputDataConfig"]["S3OutputPath"])
    for name, content in results(_is_packed(request), settings).items():
        key = f"{prefix.rstrip('/')}/{request['TrainingJobName']}/output/{name}"
        boto3.client("s3").put_object(Bucket=bucket, Key=key, Body=content)


def results(packed: bool, settings: dict[str, Any]) -> dict[str, bytes]:
    """The files that a job with these settings seems to have left, by name: packed as SageMaker packs them, or one by one."""
    return _model(packed) | _output(packed, settings)


@functools.cache
def _model(packed: bool) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        model = Path(folder) / "model"
        shutil.copytree(ROOT / "scripts" / "assets" / "tiny", model)
        config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 32768}
        (model / "config.json").write_text(json.dumps(config))  # as long as the models that it stands for
        return _uploaded(model, packed)


def _output(packed: bool, settings: dict[str, Any]) -> dict[str, bytes]:
    pairs, evaluation = _pairs(), _evaluation()
    of = {"problems": f"{evaluation.greedy.n} (made up)", **evaluated_by(settings)}
    with tempfile.TemporaryDirectory(prefix="matrix-") as folder:
        output = Path(folder) / ("output" if packed else "data")
        output.mkdir()
        write_pairs(pairs, output / "pairs.jsonl")
        dataclasses.replace(evaluation, of=of).save(output / EVALUATION_BEFORE)
        evaluation.save(output / "evaluation_after.json")
        return _uploaded(output, packed)


def _uploaded(folder: Path, packed: bool) -> dict[str, bytes]:
    if packed:
        archive = io.BytesIO()
        with tarfile.open(fileobj=archive, mode="w:gz") as tar:
            tar.add(folder, ".")
        return {f"{folder.name}.tar.gz": archive.getvalue()}
    files = [file for file in folder.rglob("*") if file.is_file()]
    return {str(file.relative_to(folder.parent)): file.read_bytes() for file in files}


@functools.cache
def _evaluation() -> Evaluation:
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
        for pair in _pairs()[:8]
        for decoding in ("greedy", "sampled")
    ]
    return score_completions(completions, get_verifier("number"))


@functools.cache
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
