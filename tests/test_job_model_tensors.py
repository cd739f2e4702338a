"""A model whose files hold other tensors than its config.json describes is refused by name, in each way to load one."""

import pytest
import torch
from job.models import ModelUnusable, load_base, load_reward_model, save_model
from safetensors.torch import load_file, save_file
from tiny import tiny_model
from transformers import AutoConfig, AutoModelForSequenceClassification


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Folder of an input channel 'base' that holds a tiny model with random weights."""
    folder = tmp_path / "base"
    save_model(*tiny_model(), folder, "test:random")
    monkeypatch.setenv("SM_CHANNEL_BASE", str(folder))
    return folder


def rewrite(folder, change) -> None:
    file = folder / "model.safetensors"
    save_file(change(load_file(file)), file, metadata={"format": "pt"})


def half_of(tensors):
    return dict(list(tensors.items())[::2])


def cut(tensors):
    name = "model.layers.0.mlp.up_proj.weight"
    return {**tensors, name: tensors[name][:5].contiguous()}


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda tensors: {f"module.{name}": value for name, value in tensors.items()},
            r"\d+ tensors are missing, and would be random numbers \(lm_head.weight, .*, \.\.\.\); \d+ tensors are not "
            r"part of it, and would be left out \(module\.model\..*\); .*'module.' come from a wrapper",
        ),
        (half_of, r"\d+ tensors are missing, and would be random numbers \(.*\)\. Take the folder"),
        (cut, r"model.layers.0.mlp.up_proj.weight has the shape \(5, \d+\) and should have \(\d+, \d+\)"),
        (
            lambda tensors: {f"transformer.h.{n}.x": value for n, value in enumerate(tensors.values())},
            r"missing.*not part of it.*transformer\.h\.",
        ),
        (
            lambda tensors: {**tensors, "score.weight": torch.zeros(1, 8)},
            r"1 tensor is not part of it, and would be left out \(score.weight\)",
        ),
    ],
    ids=["wrapped", "half", "shape", "another architecture", "a reward model"],
)
def test_tensors_that_do_not_fit_are_refused_by_name(folder, change, says):
    rewrite(folder, change)
    with pytest.raises(ModelUnusable, match=f"^channel:base does not hold the model.*{says}"):
        load_base("channel:base")


def test_a_head_that_is_tied_need_not_be_there(folder):
    assert AutoConfig.from_pretrained(folder).tie_word_embeddings
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")
    load_base("channel:base")


def test_other_types_and_several_files_are_fine(folder):
    expected = load_base("channel:base")[0]
    expected.to(torch.bfloat16).save_pretrained(folder, max_shard_size="20KB")
    (folder / "model.safetensors").unlink(missing_ok=True)
    assert len(list(folder.glob("model-*.safetensors"))) > 1
    loaded = load_base("channel:base")[0]
    assert all(
        torch.equal(a, b.float()) for a, b in zip(loaded.parameters(), expected.parameters(), strict=True)
    )


def test_a_reward_model_without_its_head_is_refused(folder, tmp_path, monkeypatch):
    """transformers would draw one at random, and its scores would be rewards."""
    with pytest.raises(
        ModelUnusable, match=r"1 tensor is missing, and would be random numbers \(score.weight\)"
    ):
        load_reward_model("channel:base")
    scorer = AutoModelForSequenceClassification.from_pretrained(folder, num_labels=1)
    scorer.save_pretrained(folder)
    assert load_reward_model("channel:base").config.num_labels == 1
