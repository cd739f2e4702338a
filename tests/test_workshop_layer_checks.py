"""Preflight of the layers that a recipe names, against the tiny model: Qwen2, with its weights on this machine."""

import json

import pytest
from preflight_fixtures import TINY
from workshop.checks.layer_checks import check_layers
from workshop.checks.request import PROBLEM, WARNING

CONFIG = json.loads((TINY / "config.json").read_text())
LAYER = {"transformer_layer_cls_to_wrap": ["Qwen2DecoderLayer"]}


def found(config=CONFIG, folder=TINY, **values):
    checks = check_layers(folder, config, {"lora_rank": 4, **values})
    return [(check.name, check.status, check.detail) for check in checks]


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"lora_target_modules": ["all-linear"]},
        {"lora_target_modules": ["q_proj", "self_attn.k_proj", "lm_head"]},
        {"lora_target_modules": ["no_such_proj"], "lora_rank": 0},
        {"fsdp": "full_shard", "fsdp_config": LAYER},
        {"fsdp_config": {"transformer_layer_cls_to_wrap": ["NoSuchLayer"]}},  # without fsdp nobody reads it
    ],
)
def test_names_that_there_are(values):
    assert found(**values) == []


def test_names_that_there_are_not():
    ((name, status, said),) = found(lora_target_modules=["no_such_proj"])
    assert (name, status) == ("lora_target_modules", PROBLEM) and "unknown layer 'no_such_proj'" in said
    ((_, status, said),) = found(lora_target_modules=["q_proj", "k_prj"])
    assert status == WARNING and "did you mean 'k_proj'?" in said
    ((name, status, said),) = found(
        fsdp="full_shard", fsdp_config={"transformer_layer_cls_to_wrap": "Qwen3DecoderLayer"}
    )
    assert (name, status) == ("fsdp_config", PROBLEM) and "did you mean 'Qwen2DecoderLayer'?" in said


def test_what_cannot_be_known_is_left_to_the_job(tmp_path):
    assert found(folder=None, lora_target_modules=["no_such_proj"]) == []
    assert found(config={"model_type": "nonsense"}, lora_target_modules=["no_such_proj"]) == []
    assert found(folder=tmp_path, lora_target_modules=["no_such_proj"]) == []
