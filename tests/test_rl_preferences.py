"""rl.preferences and when2call: making pairs, reading them back, and naming what is wrong with one."""

import json

import pytest
from rl.evaluation import score_completions
from rl.preferences import (
    FEWEST,
    check_contrast,
    drop_duplicates,
    hold_out,
    length_report,
    normal_form,
    preference_pairs,
    read_pairs,
    write_pairs,
)
from rl.tasks import DataError, make_splits
from rl.verifiers import get_verifier
from when2call import as_pairs, load_when2call

ROWS = make_splits("chain_sum", {"train": 4})["train"]
WRONG = "<think></think><answer>999</answer>"


def right(row: dict) -> str:
    return f"<think></think><answer>{row['answer']}</answer>"


def sampled(answers: list[list[str]]):
    """An evaluation of ROWS in which the sampled completions are those given, and every greedy one is wrong."""
    items = []
    for row, texts in zip(ROWS, answers, strict=False):
        tries = [("greedy", 0, WRONG), *(("sampled", number, text) for number, text in enumerate(texts))]
        for decoding, number, text in tries:
            item = {key: row[key] for key in ("index", "question", "answer")}
            items.append(
                item
                | {"decoding": decoding, "sample": number, "completion": text, "tokens": 1, "cut_off": False}
            )
    return score_completions(items, get_verifier("number"))


@pytest.fixture
def pairs() -> list[dict]:
    texts = [[right(row), right(row), WRONG, WRONG + " "] for row in ROWS]
    return preference_pairs(ROWS, sampled(texts), per_problem=2)


def test_pairs_join_a_right_with_a_wrong_answer_of_the_same_problem():
    texts = [[right(ROWS[0]), WRONG], [WRONG, right(ROWS[1])], [right(ROWS[2])] * 2, [WRONG] * 2]
    pairs = preference_pairs(ROWS, sampled(texts))
    assert [pair["question"] for pair in pairs] == [row["question"] for row in ROWS[:2]]
    assert [pair["chosen"][0]["content"] for pair in pairs] == [right(row) for row in ROWS[:2]]
    assert {pair["rejected"][0]["content"] for pair in pairs} == {WRONG}


def test_a_problem_gives_at_most_per_problem_pairs(pairs):
    assert len(pairs) == 2 * len(ROWS)
    texts = [[right(row), right(row), WRONG, WRONG] for row in ROWS]
    assert len(preference_pairs(ROWS, sampled(texts), per_problem=1)) == len(ROWS)


def test_duplicates_are_dropped_and_the_order_stays(pairs):
    assert drop_duplicates([*pairs, *pairs]) == pairs
    texts = [[right(row), right(row), WRONG, WRONG] for row in ROWS]
    twice = preference_pairs(ROWS, sampled(texts), per_problem=2)
    assert drop_duplicates(twice) == twice[::2]


def test_pairs_are_held_out_by_question():
    pairs = [{"question": str(number // 2)} for number in range(20)]
    learn, held = hold_out(pairs, 0.2)
    assert (len(learn), len(held)) == (16, 4)
    assert not {pair["question"] for pair in learn} & {pair["question"] for pair in held}
    for share in (0.0, 1.0):
        with pytest.raises(DataError, match="cannot be held out of 10 questions"):
            hold_out(pairs, share)


def test_what_is_written_is_read_back(pairs, tmp_path):
    write_pairs(pairs, tmp_path / "channel" / "pairs.jsonl")
    assert read_pairs(tmp_path / "channel") == pairs


def test_pairs_may_say_what_is_bound_to_rewards(pairs, tmp_path):
    seeded = [{**pair, "seed": 7} for pair in pairs]
    write_pairs(seeded, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path) == seeded


@pytest.mark.parametrize(
    "change, said",
    [
        ({"chosen": None}, "the field 'chosen' must be a list"),
        ({"rejected": []}, "the field 'rejected' must be a list"),
        ({"rejected": [{"role": "assistant", "content": "  "}]}, "'rejected' must be a list"),
        ({"rejected": "text"}, "'rejected' must be a list"),
        (
            {"rejected": [{"role": "assistant", "content": "<think></think><answer>SAME</answer>"}]},
            "the same",
        ),
        ({"tools": "[{"}, "'tools' is not the JSON text"),
        ({"tools": "{}"}, "'tools' is not the JSON text"),
        ({"answer": 3}, "the field 'answer' must be str"),
    ],
)
def test_a_bad_pair_is_named(pairs, tmp_path, change, said):
    if "SAME" in str(change):
        change = {"rejected": pairs[2]["chosen"]}
    write_pairs([*pairs[:2], {**pairs[2], **change}], tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match=r"pairs\.jsonl, (line|row) 3") as error:
        read_pairs(tmp_path / "pairs.jsonl")
    assert said in str(error.value)


def test_problems_given_as_pairs_are_named(tmp_path):
    write_pairs(ROWS, tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match="row 1: the field 'chosen' is missing"):
        read_pairs(tmp_path / "pairs.jsonl")


def test_a_line_that_was_cut_off_is_named(pairs, tmp_path):
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    text = (tmp_path / "pairs.jsonl").read_text()
    (tmp_path / "pairs.jsonl").write_text(text[:-20])
    with pytest.raises(DataError, match=f"line {len(pairs)}: not a JSON object"):
        read_pairs(tmp_path / "pairs.jsonl")


def says(role: str, content: str, **more) -> dict:
    return {"role": role, "content": content, **more}


ASKED = [says("user", "Which is the largest planet?")]
FIRST, AGAIN = says("assistant", "Saturn."), says("user", "Are you sure?")


BRIEF = says("system", "Be brief.")


def exchange(chosen: list[dict], rejected: list[dict], prompt: list[dict] = ASKED) -> dict:
    return {**ROWS[0], "prompt": prompt, "chosen": chosen, "rejected": rejected}


GOOD, BAD = says("assistant", "No: Jupiter."), says("assistant", "Yes.")


def test_what_both_sides_begin_with_belongs_to_the_prompt(tmp_path):
    pair = exchange([FIRST, AGAIN, GOOD], [FIRST, AGAIN, BAD])
    write_pairs([pair], tmp_path / "pairs.jsonl")
    [read] = read_pairs(tmp_path)
    assert read["prompt"] == [*ASKED, FIRST, AGAIN]
    assert (read["chosen"], read["rejected"]) == ([GOOD], [BAD])
    assert normal_form(read) == read


@pytest.mark.parametrize("content", ["", None])
def test_a_call_of_a_tool_without_a_text_is_an_answer(content, tmp_path):
    call = says("assistant", content, tool_calls=[{"name": "planets", "arguments": {}}])
    write_pairs([exchange([call], [BAD])], tmp_path / "pairs.jsonl")
    [read] = read_pairs(tmp_path)
    assert read["chosen"][0]["tool_calls"] == call["tool_calls"]


@pytest.mark.parametrize("prompt", [ASKED, [BRIEF, *ASKED]])
def test_a_prompt_that_both_sides_repeat_is_asked_once(prompt):
    """As UltraFeedback and its kin are written."""
    for repeated in (ASKED, prompt):
        formed = normal_form(exchange([*repeated, GOOD], [*repeated, BAD], prompt))
        assert (formed["prompt"], formed["chosen"], formed["rejected"]) == (prompt, [GOOD], [BAD])
    for longer in ([*ASKED, FIRST, AGAIN], [BRIEF, *ASKED], [BRIEF, *ASKED, FIRST, AGAIN]):
        assert normal_form(exchange([*longer, GOOD], [*longer, BAD]))["prompt"] == longer
    again = [FIRST, *ASKED]  # the same question once more, after an answer
    assert normal_form(exchange([*again, GOOD], [*again, BAD]))["prompt"] == [*ASKED, *again]


@pytest.mark.parametrize(
    "chosen, rejected, said",
    [
        ([GOOD, AGAIN, FIRST], [BAD, AGAIN, FIRST], "end both sides with message 1"),
        ([GOOD], [BAD, AGAIN, FIRST], "end both sides with message 1"),
        ([FIRST, AGAIN, GOOD], [FIRST, says("user", "Really?"), GOOD], "end both sides with message 2"),
        ([FIRST, AGAIN, GOOD], [FIRST], "the same as far as the shorter goes"),
        ([FIRST, GOOD], [FIRST, BAD], "the assistant speaks last"),
        ([says("user", "x")], [BAD], "has the role 'user'"),
        (
            [says("assistant", "x", reasoning_content="y")],
            [BAD],
            "'chosen' has 'reasoning_content', which would not",
        ),
        ([AGAIN, GOOD], [AGAIN, BAD], "which is asked?"),
        ([BRIEF, GOOD], [BRIEF, BAD], "which is asked?"),
        ([says("assistant", None)], [BAD], "'chosen' must be a list"),
        ([says("assistant", [{"type": "text", "text": "x"}])], [BAD], "'chosen' must be a list"),
        ([says("assistant", "", tool_calls=[{"name": None}])], [BAD], "'chosen' must be a list"),
    ],
)
def test_a_pair_that_does_not_compare_two_answers_is_named(tmp_path, chosen, rejected, said):
    fine = exchange([GOOD], [BAD])
    write_pairs([fine, exchange(chosen, rejected)], tmp_path / "pairs.jsonl")
    with pytest.raises(DataError, match=r"pairs\.jsonl, row 2: ") as error:
        read_pairs(tmp_path / "pairs.jsonl")
    assert said in str(error.value)


def test_fields_that_parquet_filled_with_nothing_do_not_count(tmp_path):
    import pyarrow
    import pyarrow.parquet

    call = {"function": {"name": "planets", "arguments": {"sort": "size"}}}
    other = {"function": {"name": "moons", "arguments": {"of": "Saturn"}}}
    rows = [
        exchange([says("assistant", None, tool_calls=[call])], [says("assistant", None, tool_calls=[other])]),
        exchange([GOOD], [BAD]),
    ]
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "pairs.parquet")
    called, plain = read_pairs(tmp_path)
    assert called["chosen"] == [says("assistant", "", tool_calls=[call])]
    assert called["rejected"] == [says("assistant", "", tool_calls=[other])]
    assert (plain["chosen"], plain["rejected"]) == ([GOOD], [BAD])


def counted(prompt: int, chosen: int, rejected: int) -> dict:
    return {"prompt_tokens": prompt, "chosen_tokens": chosen, "rejected_tokens": rejected}


def test_pairs_that_are_too_long_are_counted():
    pairs = [counted(10, 5, 9), counted(10, 5, 11), counted(20, 1, 1), counted(70, 9, 1)]
    assert length_report(pairs, None) == length_report(pairs, 79) == length_report([{}], 1) == []
    full, cut = length_report(pairs, 20, least=2)
    assert full.startswith("2 of 4 pairs are left out") and "the longest has 70; with its answer" in full
    assert cut.startswith("1 of 4 pairs lose the end of an answer") and "up to 79 tokens" in cut


@pytest.mark.parametrize(
    "limit, least, said", [(10, 1, "0 pairs are left"), (20, 3, "2 pairs are left to train on")]
)
def test_fewer_pairs_than_a_step_takes_are_refused(limit, least, said):
    pairs = [counted(10, 5, 9), counted(10, 5, 11), counted(20, 1, 1), counted(70, 9, 1)]
    with pytest.raises(
        DataError, match=f"{said}.*a step takes {least}.*the longest has 70.*raise max_length"
    ):
        length_report(pairs, limit, least=least)
    with pytest.raises(
        DataError, match="3 pairs are left to train on, and a step takes 4. Bring more pairs, or take"
    ):
        length_report([{}] * 3, 20, least=4)


TOOL = {"name": "get_weather", "description": "Current weather.", "parameters": {}}
CALL = {
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Do I need an umbrella?"},
    ],
    "tools": [json.dumps(TOOL)],
    "chosen_response": {"role": "assistant", "content": "In which city are you?"},
    "rejected_response": {"role": "assistant", "content": "<TOOLCALL>[]</TOOLCALL>"},
}


def test_when2call_rows_become_pairs(tmp_path):
    pairs = as_pairs([CALL])
    write_pairs(pairs, tmp_path / "pairs.jsonl")
    assert read_pairs(tmp_path) == pairs
    assert pairs[0]["question"] == "Do I need an umbrella?"


def test_tool_calls_are_written_as_the_template_writes_them():
    call = '{"name": "get_weather", "arguments": {"city": "Oslo"}}'
    written = {
        f"<TOOLCALL>[{call}]</TOOLCALL>": f"<tool_call>\n{call}\n</tool_call>",
        f"<TOOLCALL>[{call}, {call}]</TOOLCALL>": "\n".join([f"<tool_call>\n{call}\n</tool_call>"] * 2),
        "<TOOLCALL>[{]</TOOLCALL>": "<TOOLCALL>[{]</TOOLCALL>",
    }
    for content, expected in written.items():
        row = {**CALL, "rejected_response": {"role": "assistant", "content": content}}
        assert as_pairs([row])[0]["rejected"][0]["content"] == expected


@pytest.mark.parametrize(
    "change, said",
    [
        ({"tools": ["{"]}, "is not JSON"),
        ({"tools": ["3"]}, "is no JSON object"),
        ({"chosen_response": "text"}, "is no message"),
    ],
)
def test_a_bad_when2call_row_is_named(change, said):
    with pytest.raises(DataError, match=r"nvidia/When2Call \(train_pref\), row 2.*" + said):
        as_pairs([CALL, {**CALL, **change}])


def test_a_missing_field_of_when2call_is_named():
    with pytest.raises(DataError, match="row 1: the field 'tools' is missing; there are messages"):
        as_pairs([{key: value for key, value in CALL.items() if key != "tools"}])


def test_without_a_network_when2call_says_so(monkeypatch):
    import datasets
    import huggingface_hub.constants

    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(DataError, match="It needs a network; pairs sampled from the base model"):
        load_when2call(10, seed=1)


def test_too_few_pairs_are_refused_with_the_keys_to_raise():
    check_contrast([{}] * FEWEST, 500, 4, keys="pair_samples or pair_problems")
    with pytest.raises(
        DataError, match="only 19 pairs: of 500 problems.*Raise pair_samples or pair_problems, or choose"
    ):
        check_contrast([{}] * (FEWEST - 1), 500, 4, keys="pair_samples or pair_problems")
