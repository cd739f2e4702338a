"""What chat templates put into an answer before the model writes, with a real tokenizer and templates of four kinds."""

import pytest
from job.models import ASSETS
from rl.templates import opening, render, special_tags
from transformers import AutoTokenizer

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
PLAIN = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
OPENS = TURNS + "{% if add_generation_prompt %}<|im_start|>assistant\n<think>\n{% endif %}"
QWEN3 = TURNS + (
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
ALWAYS = TURNS + "<|im_start|>assistant{{ '\n' }}"  # whatever add_generation_prompt says
ALWAYS_OPENS = ALWAYS + "<think>{{ '\n' }}"
REMINDS = PLAIN.replace(
    "{{ m.content }}", "{{ m.content }}\nThink in <think> and </think>.", 1
)  # behind the question
EXPLAINS = "<|im_start|>system\nThink in <think> and </think>.<|im_end|>\n" + PLAIN
# Without the generation prompt another text, so that the one is no beginning of the other.
CLOSES = (
    "{% if add_generation_prompt %}"
    + EXPLAINS
    + "<think>\n{% else %}{{ bos_token }}"
    + TURNS
    + "<end>{% endif %}"
)
SYSTEM_FIRST = "{% if messages[0].role != 'system' %}{{ raise_exception('system first') }}{% endif %}" + OPENS
WITH_TOOLS = "{% for tool in tools or [] %}{{ tool.function.name }};{% endfor %}" + PLAIN


@pytest.fixture
def tokenizer():
    return AutoTokenizer.from_pretrained(ASSETS / "tiny")


@pytest.mark.parametrize(
    ("template", "options", "added"),
    [
        (PLAIN, None, ""),
        (PLAIN, {"enable_thinking": False}, ""),
        (OPENS, None, "<think>\n"),
        (QWEN3, None, ""),
        (QWEN3, {"enable_thinking": True}, ""),
        (QWEN3, {"enable_thinking": False}, "<think>\n\n</think>\n\n"),
        (ALWAYS, None, ""),
        (ALWAYS_OPENS, None, "<think>\n"),
        (EXPLAINS, None, ""),
        (REMINDS, None, ""),
        (CLOSES, None, "<think>\n"),
        (CLOSES.replace("system\n", "system\n" + "Be brief. " * 20), None, "<think>\n"),
    ],
)
def test_opening(tokenizer, template, options, added):
    tokenizer.chat_template = template
    assert opening(tokenizer, options) == added
    prompt = render(tokenizer, [{"role": "user", "content": "2 + 7"}], chat_template_kwargs=options)
    assert prompt.endswith(f"assistant\n{added}")


def test_the_opening_of_a_template_that_insists_on_a_system_message(tokenizer):
    tokenizer.chat_template = SYSTEM_FIRST
    assert opening(tokenizer) == "<think>\n"


def test_our_own_models_open_nothing():
    for name in ("tiny", "tiny-tools"):
        assert opening(AutoTokenizer.from_pretrained(ASSETS / name)) == ""


def test_render_passes_tools_and_options_on(tokenizer):
    tokenizer.chat_template = WITH_TOOLS + "{{ greeting }}"
    tools = [{"type": "function", "function": {"name": "calculator", "parameters": {}}}]
    question = [{"role": "user", "content": "2 + 7"}]
    asked = "<|im_start|>user\n2 + 7<|im_end|>\n<|im_start|>assistant\n"
    assert render(tokenizer, question) == asked
    assert render(tokenizer, question, tools=tools) == f"calculator;{asked}"
    assert render(tokenizer, question, chat_template_kwargs={"greeting": "Hi"}) == f"{asked}Hi"


@pytest.mark.parametrize("name", ["tokenize", "add_generation_prompt", "tools"])
def test_what_is_no_variable_of_a_template_is_refused_by_name(tokenizer, name):
    with pytest.raises(ValueError, match=f"chat_template_kwargs: {name} is no variable"):
        opening(tokenizer, {name: True})


def test_special_tags(tokenizer):
    assert special_tags(tokenizer) == []
    tokenizer.add_tokens(["<think>", "</think>"])  # tokens of their own, as in Qwen3, are decoded as they are
    assert special_tags(tokenizer) == []
    assert tokenizer.decode(tokenizer("<think>a")["input_ids"], skip_special_tokens=True) == "<think>a"
    tokenizer.add_special_tokens({"additional_special_tokens": ["<answer>", "</answer>"]})
    assert special_tags(tokenizer) == ["<answer>", "</answer>"]
    assert "answer" not in tokenizer.decode(tokenizer("<answer>9")["input_ids"], skip_special_tokens=True)
