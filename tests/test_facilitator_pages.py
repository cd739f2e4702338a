"""The pages for facilitators: tables that are current, commands that exist, names that the SDK has."""

import importlib
import re
import shlex
import subprocess

import boto3
import facilitator_tables
import pytest
from botocore import xform_name
from sagemaker.train import constants
from sagemaker.train.training_session import _utils as training_sessions
from workshop.checks.instances import find_instance
from workshop.folders import REPOSITORY

DOCS = REPOSITORY / "docs"
PAGES = [
    *(DOCS / name for name in ("facilitator.md", "secrets.md", "which-door.md")),
    REPOSITORY / "aws" / "README.md",
]
MODULES = {
    "ModelTrainer": "model_trainer",
    "RLVRTrainer": "rlvr_trainer",
    "RLAIFTrainer": "rlaif_trainer",
    "DPOTrainer": "dpo_trainer",
    "MultiTurnRLTrainer": "multi_turn_rl_trainer",
}
GLOBAL_OPTIONS = {"query", "output", "region", "recursive"}


def blocks(page) -> list[str]:
    """The page's shell blocks, continued lines joined."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [block.replace("\\\n", " ") for language, block in found if not language]


def test_the_tables_are_current():
    page = facilitator_tables.PAGE.read_text()
    assert facilitator_tables.render(page) == page, "run: python scripts/facilitator_tables.py"


def test_every_gpu_recipe_has_the_minutes_and_dollars_of_its_whole_notebook():
    rows = {
        tuple(cell.strip() for cell in line.split("|")[1:3]): line
        for line in facilitator_tables.notebook_table().splitlines()
    }
    for row in facilitator_tables.rows():
        if find_instance(row.machine.instance_type).gpu:
            assert re.search(
                r"\| \d+ \| [\d.]+ (min|h)\b.* \| \$[\d,.]+.* \| \$[\d,.]+ \|$", rows[row.module, row.recipe]
            )


def test_every_machine_has_a_row_and_a_price():
    text = facilitator_tables.cost_table()
    for row in facilitator_tables.rows():
        assert f"x {row.machine.instance_type} |" in text
        assert find_instance(row.machine.instance_type).price
    assert "?" not in text


def test_the_ceiling_is_price_times_hosts_times_hours():
    rows = {(row.module, row.recipe): row for row in facilitator_tables.rows()}
    machine = rows["05", "megatron"].machine
    ceiling = find_instance(machine.instance_type).price * machine.instance_count * machine.max_hours
    assert (
        f"| 05 | megatron | {machine.instance_count} x {machine.instance_type} |"
        in facilitator_tables.cost_table()
    )
    assert f"| {ceiling:,.2f} |" in facilitator_tables.cost_table()


def test_a_quota_is_that_of_the_largest_job_for_each_person():
    quotas = {}
    for line in facilitator_tables.quota_table().splitlines()[2:]:
        name, users, *values = [cell.strip() for cell in line.strip("|").split("|")]
        quotas[name] = (users.split(", "), [int(value) for value in values])
    for name, (users, values) in quotas.items():
        assert values == [values[0] * people for people in facilitator_tables.PEOPLE], name
        assert users
    # 03 spreads a job over two hosts, and starts one on spot
    users, values = quotas["ml.g6.12xlarge for training job usage"]
    assert "03 small" in users
    assert values[0] == 2
    assert quotas["ml.g6.12xlarge for spot training job usage"][0] == ["03 small"]
    assert quotas["ml.p5.48xlarge for training job usage"][1][0] == 2
    assert quotas["Number of instances across all training jobs"] == (["all"], [2, 20, 40, 80])
    assert quotas["Number of instances across all spot training jobs"][1] == [1, 10, 20, 40]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_shell_blocks_are_sound(page):
    for block in blocks(page):
        result = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True)
        assert result.returncode == 0, f"{result.stderr}\n{block}"


def test_the_aws_commands_exist_with_their_options():
    commands = [
        command
        for page in PAGES
        for block in blocks(page)
        for command in re.findall(r"\baws ([a-z0-9]+ [a-z-]+[^|\n);]*)", block)
    ]
    assert len(commands) > 15
    for command in commands:
        service, name, *words = shlex.split(command.replace("'", "").replace('"', ""))
        if service == "s3" or name == "wait":
            continue
        client = boto3.client(service, region_name="us-east-1")
        operations = {
            xform_name(operation, "-"): operation for operation in client.meta.service_model.operation_names
        }
        assert name in operations, f"aws {service} {name}"
        shape = client.meta.service_model.operation_model(operations[name]).input_shape
        options = {xform_name(member, "-") for member in shape.members} | GLOBAL_OPTIONS
        for word in words:
            if word.startswith("--"):
                assert word[2:] in options, f"aws {service} {name} {word}"


def test_the_image_is_built_when_its_bucket_is_there():
    page = facilitator_tables.PAGE.read_text()
    assert page.index("1. The stack: ") < page.index("build_with_codebuild.py us-east-1 --bucket BUCKET")
    assert page.count("container/README.md)") == 1


def test_people_get_in_by_the_domains_own_way():
    page = facilitator_tables.PAGE.read_text()
    (domain_mode,) = re.findall(r"AuthMode: (\w+)", (REPOSITORY / "aws" / "workshop.yaml").read_text())
    assert f"(`AuthMode: {domain_mode}`)" in page
    assert "create-presigned-domain-url" in " ".join(blocks(facilitator_tables.PAGE))


def test_the_doors_are_in_the_pinned_sdk(monkeypatch):
    monkeypatch.setenv(
        "AWS_DEFAULT_REGION", "us-east-1"
    )  # some of its modules ask for one when they are imported
    text = (DOCS / "which-door.md").read_text()
    for name in re.findall(r"`(\w+Trainer)`", text):
        module = importlib.import_module(f"sagemaker.train.{MODULES[name]}")
        assert hasattr(module, name)
    for module in re.findall(r"`(sagemaker\.train\.\w+)`", text):
        importlib.import_module(module)
    assert constants._ALLOWED_REWARD_MODEL_IDS
    listed = {name for models in training_sessions._TRAINABLE_MODELS_BY_REGION.values() for name in models}
    assert {name.split("-", 2)[2] for name in listed} == {
        "gemma-4-31b-it",
        "qwen3-6-27b",
        "qwen3-8-27b",
        "gpt-oss-20b",
    }


def test_the_template_is_small_enough_to_be_sent_as_it_is():
    """CloudFormation takes 51,200 bytes with --template-body."""
    assert (REPOSITORY / "aws" / "workshop.yaml").stat().st_size < 51_200
