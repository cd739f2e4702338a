"""Preflight of tokenizer and configuration: what a trainer would meet in them is said before there is a job."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from job.model_files import tokenizer_problems
from preflight_findings import findings
from preflight_fixtures import ROOT, TINY, edit, no_template
from rl.tasks import FORMAT_INSTRUCTIONS, make_splits, write_splits
from workshop.checks import tokenizer_checks

CHATML = (TINY / "chat_template.jinja").read_text()


@pytest.fixture(scope="module")
def data_with_system(tmp_path_factory) -> dict[str, Path]:
    rows = make_splits("chain_sum", {"train": 40}, system_prompt=FORMAT_INSTRUCTIONS)
    return write_splits(rows, tmp_path_factory.mktemp("system"))


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


def test_a_template_that_never_ends_holds_nobody_up(model, data, monkeypatch):
    monkeypatch.setattr(tokenizer_checks, "TEMPLATE_S", 5.0)
    template("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}")(model)
    assert "x base_model: its chat template does not end within 5 s" in findings({"model": model, **data})


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
