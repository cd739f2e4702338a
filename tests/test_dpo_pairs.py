"""01_dpo_trl, pair_tokens.py, prepared_pairs.py and the view of pairs: what DPO trains on, token by token."""

import json

import pytest
from lesson.preference_views import show_pairs
from pair_tokens import as_texts, count_tokens, pair_tokens
from rl.tasks import DataError, make_splits
from rl.templates import render
from tiny import CHAT_TEMPLATE, tiny_model, tiny_tokenizer
from tokenizers.processors import TemplateProcessing
from when2call import as_pairs

[ROW] = make_splits("chain_sum", {"train": 1})["train"]
# Qwen's and Hermes' way with calls, and with the thoughts of Qwen3, which only a whole answer gets.
CALLING = (
    "{% for tool in tools or [] %}[{{ tool.function.name }}]{% endfor %}"
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' %}<think>\n\n</think>\n\n{% endif %}"
    "{{ m.content }}{% for call in m.tool_calls or [] %}{% if m.content or not loop.first %}{{ '\n' }}{% endif %}<tool_call>\n"
    '{"name": "{{ call.function.name }}", "arguments": {{ call.function.arguments | tojson }}}\n</tool_call>{% endfor %}'
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if enable_thinking is defined and not enable_thinking %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
CALL = {"type": "function", "function": {"name": "get_weather", "arguments": {"city": "Oslo"}}}
WRITTEN = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Oslo"}}\n</tool_call>'


def says(role: str, content: str | None, **more) -> dict:
    return {"role": role, "content": content, **more}


def pair(chosen, rejected, **more) -> dict:
    """A pair of two texts, or of lists of messages."""
    sides = [[says("assistant", side)] if isinstance(side, str) else side for side in (chosen, rejected)]
    return {**ROW, "chosen": sides[0], "rejected": sides[1], **more}


def calling_tokenizer():
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CALLING
    return tokenizer


def bos_tokenizer():
    """As Llama's: it puts <s> before and </s> behind what it tokenizes, and its template writes <s> too."""
    tokenizer = tiny_tokenizer()
    tokenizer.add_special_tokens({"bos_token": "<s>"})
    ids = [("<s>", tokenizer.bos_token_id), ("<|im_end|>", tokenizer.eos_token_id)]
    tokenizer._tokenizer.post_processor = TemplateProcessing(single="<s> $A <|im_end|>", special_tokens=ids)
    tokenizer.chat_template = "<s>" + CHAT_TEMPLATE
    return tokenizer


def trainer_of(pairs: list[dict], tokenizer, folder, **settings):
    """The job's trainer on these pairs."""
    from prepared_pairs import PreparedDPOTrainer, prepared
    from trl import DPOConfig

    config = DPOConfig(
        output_dir=str(folder), use_cpu=True, bf16=False, report_to="none", max_steps=1, **settings
    )
    model, reference = (tiny_model()[0] for _ in range(2))
    for each in (model, reference):
        each.resize_token_embeddings(len(tokenizer))
    data = prepared(pairs, tokenizer, config, name="train")
    return PreparedDPOTrainer(
        model=model, ref_model=reference, args=config, train_dataset=data, processing_class=tokenizer
    )


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("make", [tiny_tokenizer, calling_tokenizer, bos_tokenizer])
def test_lengths_and_tokens_are_those_that_dpo_trains_on(make, tmp_path):
    """One BOS; the end token once; the line break that ChatML's template writes behind it not at all."""
    tokenizer = make()
    pairs = [pair("<answer>3</answer>", "<answer>4</answer>"), pair("3", "I do not know.<|im_end|>")]
    trainer = trainer_of(pairs, tokenizer, tmp_path)
    seen = list(trainer.get_train_dataloader())[0]
    texts = {
        tokenizer.decode(ids[mask.bool()])
        for ids, mask in zip(seen["input_ids"], seen["attention_mask"], strict=True)
    }
    prompt = render(tokenizer, ROW["prompt"])
    answers = ["<answer>3</answer>", "<answer>4</answer>", "3", "I do not know."]
    assert texts == {f"{prompt}{answer}<|im_end|>" for answer in answers}
    for counted, row in zip(count_tokens(pairs, tokenizer), trainer.train_dataset, strict=True):
        for name in ("prompt", "chosen", "rejected"):
            assert counted[f"{name}_tokens"] == len(row[f"{name}_ids"])
        assert row["prompt_ids"] == tokenizer(prompt, add_special_tokens=False)["input_ids"]
        assert row["prompt_ids"].count(tokenizer.bos_token_id) == (make is bos_tokenizer)


def test_keywords_of_the_template_reach_the_prompt():
    tokenizer = calling_tokenizer()
    off = as_texts(pair("3", "4"), tokenizer, {"enable_thinking": False})
    assert off["prompt"].endswith("assistant\n<think>\n\n</think>\n\n") and off["chosen"] == "3"
    assert as_texts(pair("3", "4"), tokenizer)["prompt"].endswith("assistant\n")
    [with_block], [without] = (
        count_tokens([pair("3", "4")], tokenizer, kw) for kw in ({"enable_thinking": False}, None)
    )
    assert with_block["prompt_tokens"] - without["prompt_tokens"] == len("<think>\n\n</think>\n\n")


def test_a_prompt_keeps_its_end_where_an_answer_would_merge_with_it():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocab = {"<e>": 0, "a": 1, "b": 2, "ab": 3, "?": 4}
    inner = Tokenizer(models.BPE(vocab=vocab, merges=[("a", "b")]))
    inner.pre_tokenizer = pre_tokenizers.Split("?", "isolated")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<e>")
    tokenizer.chat_template = "?a"
    assert pair_tokens(pair("b", "a"), tokenizer) == {
        "prompt_ids": [4, 1],
        "chosen_ids": [2, 0],
        "rejected_ids": [1, 0],
    }


@pytest.mark.parametrize("content", ["", None, "Let me look."])
@pytest.mark.parametrize("arguments", [{"city": "Oslo"}, '{"city": "Oslo"}'])
def test_calls_are_learned_as_the_template_writes_them(content, arguments):
    call = {"type": "function", "function": {"name": "get_weather", "arguments": arguments}}
    texts = as_texts(pair([says("assistant", content, tool_calls=[call])], "No idea."), calling_tokenizer())
    assert texts["chosen"] == (f"{content}\n{WRITTEN}" if content else WRITTEN)
    assert texts["rejected"] == "No idea."
    [when2call] = as_pairs(
        [
            {
                "messages": ROW["prompt"],
                "tools": [],
                "chosen_response": says(
                    "assistant",
                    '<TOOLCALL>[{"name": "get_weather", "arguments": {"city": "Oslo"}}]</TOOLCALL>',
                ),
                "rejected_response": says("assistant", "No idea."),
            }
        ]
    )
    assert as_texts(when2call, calling_tokenizer())["chosen"] == WRITTEN


def test_calls_that_both_sides_share_are_in_the_prompt_with_the_tools():
    shared = [says("assistant", "", tool_calls=[CALL]), says("tool", "4 degrees, rain")]
    tools = json.dumps([{"type": "function", "function": {"name": "get_weather"}}])
    texts = as_texts(
        pair([*shared, says("assistant", "Yes.")], [*shared, says("assistant", "No.")], tools=tools),
        calling_tokenizer(),
    )
    assert texts["prompt"].startswith("[get_weather]<|im_start|>user")
    assert f"{WRITTEN}<|im_end|>\n<|im_start|>tool\n4 degrees, rain<|im_end|>" in texts["prompt"]
    assert texts["prompt"].endswith("<|im_start|>assistant\n")
    assert (texts["chosen"], texts["rejected"]) == ("Yes.", "No.")


def test_calls_that_a_template_leaves_out_are_refused_by_row():
    called = says("assistant", "Let me look.", tool_calls=[CALL])
    in_answer = pair([called], "No idea.")
    shared = [called, says("tool", "4 degrees")]
    in_prompt = pair([*shared, says("assistant", "Yes.")], [*shared, says("assistant", "No.")])
    for damaged, where in ((in_answer, "an answer has"), (in_prompt, "'prompt' has")):
        with pytest.raises(
            DataError, match=f"pair 2: {where} tool_calls, which the model's chat template does not"
        ):
            count_tokens([pair("3", "4"), damaged], tiny_tokenizer())


def test_calls_that_a_template_writes_without_their_text_are_refused():
    """As Llama's: a message is a text or a call."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}<|im_start|>{{ m.tool_calls[0].function | tojson if m.tool_calls else m.content }}"
        "<|im_end|>{% endfor %}"
    )
    function = json.dumps(CALL["function"])
    assert as_texts(pair([says("assistant", "", tool_calls=[CALL])], "No."), tokenizer)["chosen"] == function
    with pytest.raises(DataError, match="does not write behind a text. Write the call into 'content'"):
        as_texts(pair([says("assistant", "Let me look.", tool_calls=[CALL])], "No."), tokenizer)


@pytest.mark.parametrize(
    "template, said",
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ 'a' + messages }}", "concatenate"),
    ],
)
def test_what_a_template_refuses_is_said_by_row(template, said):
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = template
    with pytest.raises(DataError, match=f"pair 1: .*refuses this exchange: .*{said}"):
        count_tokens([pair("3", "4")], tokenizer)


def test_pairs_that_nothing_can_be_learned_from_are_left_out_and_said(tmp_path, capsys):
    """Too long a prompt, equal tokens, equal as far as max_length goes."""
    tokenizer = tiny_tokenizer()
    prompt = len(pair_tokens(pair("3", "4"), tokenizer)["prompt_ids"])
    same = pair("3", "3<|im_end|>")
    cut = pair("0" * 50 + "1", "0" * 50 + "2")
    shortened = pair("1" * 50, "2" * 50)
    long = pair("3", "4", prompt=[says("user", "x" * 200)])
    limit = prompt + 20
    trainer = trainer_of([pair("3", "4"), same, cut, shortened, long], tokenizer, tmp_path, max_length=limit)
    assert [row["chosen_ids"][:1] for row in trainer.train_dataset] == [
        tokenizer(first)["input_ids"] for first in ("3", "1")
    ]
    said = capsys.readouterr().out
    assert "train: 1 of 5 pairs are left out: their prompt alone fills max_length" in said
    assert "train: 2 of 5 pairs lose the end of an answer" in said
    assert "train: 2 of 5 pairs are left out: both answers are the same tokens" in said
    assert "'3' and '3<|im_end|>'" in said


def test_when_all_pairs_are_too_long_that_is_the_error(tmp_path):
    with pytest.raises(
        DataError, match="train: 0 pairs are left.*1 of 1 pairs are left out.*raise max_length"
    ):
        trainer_of([pair("3", "4")], tiny_tokenizer(), tmp_path, max_length=8)


def test_answers_that_would_be_learned_as_thoughts_are_said(tmp_path, capsys):
    """Templates as R1's or Qwen3.5's begin every answer with <think>."""
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = CHAT_TEMPLATE.replace(
        "assistant\n{% endif %}", "assistant\n<think>\n{% endif %}"
    )
    trainer_of([pair("sum</think>3", "4"), pair("3", "4")], tokenizer, tmp_path)
    assert "train: 1 of 2 chosen answers have no </think>" in capsys.readouterr().out
    trainer_of([pair("3", "4")], tiny_tokenizer(), tmp_path)
    assert "</think>" not in capsys.readouterr().out


def test_pairs_are_shown_as_they_are_trained_on():
    shared = [says("assistant", "", tool_calls=[CALL]), says("tool", "4 degrees")]
    shown = show_pairs(
        [pair([*shared, says("assistant", "Take a coat.")], [*shared, says("assistant", "Take a hat.")])]
    )
    for text in (
        'assistant: calls get_weather({"city": "Oslo"})',
        "tool: 4 degrees",
        "Take a [coat].",
        "Take a [hat].",
    ):
        assert text in repr(shown)
    assert "tool: 4 degrees<br>" in shown._repr_html_()
    assert repr(show_pairs([pair("3", "4")])).splitlines()[0] == ROW["question"]
