"""Preflight of a model's weights: what their files' headers give away before a job is created."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from preflight_fixtures import TINY
from safetensors.numpy import load_file, save_file
from workshop.checks.tensor_checks import tensor_shapes, weight_problems

WEIGHTS = "model.safetensors"


@pytest.fixture
def model(tmp_path) -> Path:
    return Path(shutil.copytree(TINY, tmp_path / "model"))


def changed(folder: Path, change) -> None:
    """Saves the weights again: change(tensors) gives the new ones."""
    save_file(change(load_file(folder / WEIGHTS)), folder / WEIGHTS)


def in_two_files(folder: Path) -> dict[str, str]:
    tensors = load_file(folder / WEIGHTS)
    files = {name: f"model-{1 + place % 2:05}-of-00002.safetensors" for place, name in enumerate(tensors)}
    for file in set(files.values()):
        save_file({name: tensors[name] for name in tensors if files[name] == file}, folder / file)
    (folder / WEIGHTS).unlink()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": files}))
    return files


def cut(folder: Path, size: int) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:size])


BROKEN = {
    "begin with 'module.'": lambda folder: changed(
        folder, lambda t: {f"module.{name}": t[name] for name in t}
    ),
    "num_hidden_layers 4, and layer 3 is missing": lambda folder: changed(
        folder, lambda t: {name: t[name] for name in t if ".layers.3." not in name}
    ),
    "has the shape (300, 96), and its config.json says": lambda folder: changed(
        folder, lambda t: t | {"model.embed_tokens.weight": t["model.embed_tokens.weight"][:300].copy()}
    ),
    "and its tensors take": lambda folder: cut(folder, 100_000),
    "its header cannot be read": lambda folder: cut(folder, 100),
    "no whole safetensors file": lambda folder: (folder / WEIGHTS).write_bytes(b"\xff" * 1000),
    "no weights": lambda folder: (folder / WEIGHTS).unlink(),
    "model-00002-of-00002.safetensors of its index is missing": lambda folder: (
        in_two_files(folder) and (folder / "model-00002-of-00002.safetensors").unlink()
    ),
}


def test_every_model_of_the_workshop_is_whole():
    for folder in TINY.parent.iterdir():
        if folder.is_dir():
            assert list(weight_problems(folder)) == [], folder.name


def test_the_header_says_what_the_file_holds():
    tensors = load_file(TINY / WEIGHTS)
    assert tensor_shapes(TINY / WEIGHTS) == {name: tensor.shape for name, tensor in tensors.items()}


def test_a_model_in_several_files(model):
    in_two_files(model)
    assert list(weight_problems(model)) == []


@pytest.mark.parametrize("words", BROKEN)
def test_what_is_wrong_is_said(words, model):
    BROKEN[words](model)
    problems = list(weight_problems(model))
    assert len(problems) == 1 and words in problems[0], problems


def test_packed_weights_are_not_compared_with_the_configuration(model):
    changed(model, lambda t: {name: t[name] for name in t if ".layers.3." not in name})
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(
        json.dumps(config | {"quantization_config": {"quant_method": "bitsandbytes"}})
    )
    assert list(weight_problems(model)) == []


def test_layers_beyond_those_of_the_configuration_are_left_to_the_job(model):
    """Some models bring one for predicting several tokens, which transformers passes over."""
    changed(model, lambda t: t | {name.replace(".layers.3.", ".layers.4."): np.copy(t[name]) for name in t})
    assert list(weight_problems(model)) == []


def test_layers_for_images_are_not_taken_for_those_of_the_text(model):
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps({"text_config": config | {"num_hidden_layers": 6}}))
    assert list(weight_problems(model)) == []
