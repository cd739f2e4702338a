"""LoRA adapters given as a model: merged into the base that they name, and refused where that cannot be."""

import shutil
from pathlib import Path

import pytest
import torch
from job.arguments import LoraArguments
from job.models import ModelNotFound, load_base, load_tokenizer, local_source, lora_config
from peft import PeftModel, get_peft_model
from saved_models import edit, logits
from transformers import AutoModelForCausalLM, AutoTokenizer


@pytest.fixture
def adapters(tmp_path, monkeypatch):
    """Folder of an input channel 'mine' with LoRA adapters on asset:tiny, alone; and the logits of both together."""
    base, _ = load_base("asset:tiny")
    model = get_peft_model(base, lora_config(LoraArguments(lora_rank=4)))
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.copy_(torch.randn_like(parameter) / 5)
    for config in model.peft_config.values():
        config.base_model_name_or_path = "asset:tiny"
    folder = tmp_path / "mine"
    model.save_pretrained(folder, save_embedding_layers=False)
    monkeypatch.setenv("SM_CHANNEL_MINE", str(folder))
    return folder, logits(model)


def test_adapters_are_merged_into_the_base_that_they_name(adapters):
    _, trained = adapters
    model, tokenizer = load_base("channel:mine")
    assert not isinstance(model, PeftModel) and not any(
        "lora" in name for name, _ in model.named_parameters()
    )
    assert torch.allclose(logits(model), trained, atol=1e-3)
    assert not torch.allclose(logits(load_base("asset:tiny")[0]), trained, atol=1e-2)
    assert len(tokenizer) == 327  # that of the base


def test_frameworks_that_read_a_folder_get_adapters_as_a_whole_model(adapters):
    """So Unsloth and verl do, which know nothing of our specs."""
    _, trained = adapters
    folder = local_source("channel:mine")
    assert torch.allclose(logits(AutoModelForCausalLM.from_pretrained(folder)), trained, atol=1e-3)
    assert AutoTokenizer.from_pretrained(folder).chat_template == load_tokenizer("asset:tiny").chat_template
    assert local_source("channel:mine") == folder, "merged once a process"


def test_adapters_below_4_bits_are_merged_before_the_weights_are_packed(adapters):
    from bitsandbytes.functional import dequantize_4bit

    packed = load_base("channel:mine", quantization="nf4")[0].model.layers[0].mlp.up_proj.weight
    merged, plain = (
        load_base(spec)[0].model.layers[0].mlp.up_proj.weight for spec in ("channel:mine", "asset:tiny")
    )
    unpacked = dequantize_4bit(packed.data, packed.quant_state)
    assert (unpacked - merged).norm() < 0.15 * merged.norm()
    assert (unpacked - plain).norm() > 0.5 * plain.norm()


def test_each_process_of_a_job_merges_adapters_for_itself(adapters):
    """On several hosts there is no folder that all see; transformers alone would save on rank 0 only."""
    from torch.testing._internal.distributed.fake_pg import FakeStore

    torch.distributed.init_process_group("fake", store=FakeStore(), rank=1, world_size=2)
    try:
        assert (Path(local_source("channel:mine")) / "model.safetensors").is_file()
    finally:
        torch.distributed.destroy_process_group()


def test_adapters_on_adapters_and_a_base_in_another_channel(adapters, tmp_path, monkeypatch):
    folder, trained = adapters
    (folder / "base_model.json").write_text('{"base_model": "channel:below"}')
    monkeypatch.setenv("SM_CHANNEL_BELOW", local_source("asset:tiny"))
    assert torch.allclose(logits(load_base("channel:mine")[0]), trained, atol=1e-3)
    monkeypatch.setenv("SM_CHANNEL_BELOW", str(tmp_path / "second"))
    shutil.copytree(folder, tmp_path / "second")
    edit(tmp_path / "second" / "base_model.json", base_model="asset:tiny")
    assert not torch.allclose(logits(load_base("channel:mine")[0]), trained, atol=1e-3)  # merged twice
    edit(tmp_path / "second" / "base_model.json", base_model="channel:mine")
    with pytest.raises(
        ModelNotFound, match="which is those adapters again: give their base a channel of its"
    ):
        load_base("channel:mine")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (
            {"base_model_name_or_path": "/home/me/model"},
            "name '/home/me/model' as their base, which no job can load",
        ),
        ({"base_model_name_or_path": None}, "name None as their base.*into base_model.json beside them"),
        ({"base_model_name_or_path": "channel:base"}, "adapters of channel:base, and that is not to be had"),
        ({"base_model_name_or_path": "channel:mine"}, "which is those adapters again"),
        ({"peft_type": "PROMPT_TUNING"}, "only LORA can be merged"),
        ({"task_type": "SEQ_CLS"}, "only adapters of a language model"),
        ({"r": 8}, "do not fit their base asset:tiny.*size mismatch"),
    ],
)
def test_adapters_without_a_base_that_fits(adapters, config, message):
    folder, _ = adapters
    edit(folder / "adapter_config.json", **config)
    loaders = [load_base, local_source] if "r" in config else [load_base, local_source, load_tokenizer]
    for load in loaders:
        with pytest.raises(ModelNotFound, match=f"(?s){message}"):
            load("channel:mine")


def test_adapters_as_a_pickle_are_not_opened(adapters):
    folder, _ = adapters
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")
    for load in (load_base, load_tokenizer):
        with pytest.raises(ModelNotFound, match="no adapter_model.safetensors beside it"):
            load("channel:mine")


def test_adapters_on_the_hub_are_named_as_such(adapters, tmp_path, monkeypatch):
    """A cache of the Hub's libraries stands for the Hub; without the check the base would train below its adapters."""
    folder, _ = adapters
    edit(folder / "adapter_config.json", base_model_name_or_path=local_source("asset:tiny"))
    commit = "a" * 40
    snapshot = tmp_path / "hub" / "models--me--mine" / "snapshots" / commit
    shutil.copytree(folder, snapshot)
    (tmp_path / "hub" / "models--me--mine" / "refs").mkdir()
    (tmp_path / "hub" / "models--me--mine" / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, load_base, local_source):
        with pytest.raises(ModelNotFound, match="hub:me/mine holds adapters, .* base_model: channel:NAME"):
            load("hub:me/mine")
    edit(folder / "adapter_config.json", base_model_name_or_path="me/mine")
    with pytest.raises(ModelNotFound, match="adapters of hub:me/mine, and that is .* holds adapters, which"):
        load_tokenizer("channel:mine")


def test_adapters_whose_base_cannot_be_loaded(adapters, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    edit(adapters[0] / "adapter_config.json", base_model_name_or_path="nobody/nothing")
    with pytest.raises(
        ModelNotFound, match=r"hub:nobody/nothing \(the base of channel:mine\) could not be loaded"
    ):
        load_base("channel:mine")
