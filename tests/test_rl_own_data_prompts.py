"""Cells that become a prompt and its answer: options to choose from, conversations."""

import json

import numpy
import pandas
import pytest
from own_data import ALL, BAD, GOOD, SAID, SYSTEM, USER, read, read_as_pairs
from rl.own_data import rows_from
from rl.tasks import DataError

CITIES = ["Rome", "Oslo", "Lima", "3"]
LETTERED = "Which?\n(A) Rome\n(B) Oslo\n(C) Lima\n(D) 3"


@pytest.mark.parametrize(
    ("options", "choices"),
    [
        (dict(zip("ABCD", CITIES, strict=True)), list("ABCD")),
        ({"options": CITIES}, "options"),
        ({"options": json.dumps(CITIES)}, "options"),
        ({"options": str(CITIES)}, ["options"]),  # as pandas' to_csv writes it
        ({"options": numpy.array(CITIES, dtype=object)}, "options"),
        ({"options": ["A) Rome", "B) Oslo", "C) Lima", "D) 3"]}, "options"),  # as AQuA has them
        ({"options": {"text": CITIES, "label": ["1", "2", "3", "4"]}, "answer": "2"}, "options"),  # ARC
    ],
)
def test_options_are_asked_and_the_answer_is_their_letter(options, choices):
    row = {"question": "Which?", "answer": 1, **options}
    splits, report = rows_from([row], choices=choices, verifier="choice", splits=ALL)
    (found,) = splits["train"]
    assert found["question"] == found["prompt"][-1]["content"] == LETTERED
    assert found["answer"] == "B" and report.unusable == 0 and "A" not in found and "options" not in found


@pytest.mark.parametrize(
    ("answer", "letter"),
    [(0, "A"), (3, "D"), ("1", "B"), ("c", "C"), ("(C)", "C"), ("lima", "C"), (2.0, "C")],
)
def test_answers_to_choices_become_letters(answer, letter):
    row = {"question": "Which?", "answer": answer, "choices": CITIES}
    assert read([row], choices="choices", verifier="choice")[0]["answer"] == letter


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"answer": "Paris"}, "column 'answer': the answer 'Paris' is none of the options"),
        ({"answer": "E"}, r"'E' is none of the options\. Write its letter \(A, B, C, D\), or leave"),
        ({"answer": 7}, "'7' is none"),
        ({"answer": 4}, "none of 4 options, which count from 0. If yours count from 1"),
        ({"choices": ["0", "1", "3", "2"], "answer": "3"}, "'3' may be two of the options"),
        ({"choices": [3, 4, 5, 6], "answer": 3}, "'3' may be two of the options"),
        ({"choices": ["B", "A"], "answer": "A"}, "'A' may be two of the options"),
        ({"choices": ["Rome", "", "Lima"]}, "column 'choices': 2 options that are not empty, of 3"),
        ({"choices": "['Rome' 'Oslo']"}, "1 options that are not empty"),  # numpy's own text
        ({"choices": "Rome, Oslo"}, "column 'choices': no list of options"),
        ({"choices": None}, "no list of options"),
    ],
)
def test_choices_in_doubt_are_named(change, message):
    good = {"question": "Which?", "answer": 1, "choices": CITIES}
    with pytest.raises(DataError, match=f"row 2.*{message}"):
        read([good, {**good, **change}], choices="choices")


FOUR = ["p", "q", "r", "s"]


def numbered(answers, choices=FOUR):
    return [{"question": f"Which? {n}", "answer": a, "choices": choices} for n, a in enumerate(answers)]


@pytest.mark.parametrize("as_read", [int, str])
def test_answers_none_of_which_is_0_may_count_from_1(as_read):
    few, many = (numbered(map(as_read, [1, 2, 3] * times)) for times in (2, 10))
    _, report = rows_from(few, choices="choices", verifier="choice", splits=ALL)
    assert "6 answers are numbers of options from 1 to 3, taken as counted from 0, and none is 0" in str(
        report
    )
    with pytest.raises(
        DataError, match="30 answers are numbers .* no answer would be A. If yours count from 1"
    ):
        read(many, choices="choices")


@pytest.mark.parametrize(
    "rows",
    [
        numbered([1, 2, 3] * 10 + [0]),
        numbered(["B", "C", "D"] * 10),
        numbered(["q", "r"] * 15),
        numbered(["1", "2"] * 15, {"text": FOUR, "label": ["1", "2", "3", "4"]}),
        numbered([3, 2]),
    ],
)
def test_answers_that_say_which_option_they_mean_are_in_no_doubt(rows):
    _, report = rows_from(rows, choices="choices", verifier="choice", splits=ALL)
    assert "count from 1" not in str(report)


def test_options_that_nobody_named_are_noted():
    row = {"question": "Which?", "answer": 3, **dict(zip("ABCD", CITIES, strict=True))}
    note = r"what looks like options (A, B, C, D) is not in the prompt: choices=['A', 'B', 'C', 'D'] writes it there"
    assert any(said.startswith(note) for said in rows_from([row], splits=ALL)[1].notes)
    row = {"question": "Which?", "answer": 3, "choices": CITIES}
    assert any("choices='choices' writes" in said for said in rows_from([row], splits=ALL)[1].notes)
    assert not any("options" in said for said in rows_from([row], splits=ALL, drop=["choices"])[1].notes)
    with pytest.raises(DataError, match="no column 'E'; there are"):
        read([row], choices=["choices", "E"])


SHARED_GPT = [
    {"from": "system", "value": "Be brief."},
    {"from": "human", "value": "2 + 2"},
    {"from": "gpt", "value": "4"},
]


@pytest.mark.parametrize(
    ("row", "prompt", "answer"),
    [
        ({"messages": [USER, SAID]}, [USER], "4"),
        ({"messages": json.dumps([USER, SAID])}, [USER], "4"),  # as a CSV holds it
        ({"messages": [USER, SAID], "answer": "four"}, [USER], "four"),
        ({"messages": [USER], "answer": "4"}, [USER], "4"),
        ({"messages": [USER], "solution": "4"}, [USER], "4"),
        ({"messages": [USER, {**SAID, "content": "It is four."}], "solution": "So\n#### 4"}, [USER], "4"),
        ({"messages": str([USER, SAID])}, [USER], "4"),  # as pandas' to_csv writes it
        ({"messages": json.dumps([USER, SAID], indent=1)}, [USER], "4"),
        ({"prompt": str([USER]), "answer": "4"}, [USER], "4"),
        ({"prompt": "Human: 2 + 2\n\nAssistant:", "answer": "4"}, [USER], "4"),
        ({"conversations": SHARED_GPT[1:]}, [USER], "4"),
        ({"prompt": "2 + 2", "answer": "4"}, [USER], "4"),
        ({"prompt": [USER], "answer": "4"}, [USER], "4"),
        (
            {"prompt": [{"role": "user", "content": [{"type": "text", "text": "2 + 2"}]}], "answer": "4"},
            [USER],
            "4",
        ),
        (
            {"prompt": '[{"a": 1}, how many?', "answer": "1"},
            [{"role": "user", "content": '[{"a": 1}, how many?'}],
            "1",
        ),
        ({"prompt": '[{"a": 1}]', "answer": "1"}, [{"role": "user", "content": '[{"a": 1}]'}], "1"),
        ({"prompt": "Human: yes?", "answer": "1"}, [{"role": "user", "content": "Human: yes?"}], "1"),
    ],
)
def test_messages_and_prompts(row, prompt, answer):
    (found,) = read([row])
    assert (found["prompt"], found["answer"]) == (prompt, answer)
    assert found["question"] == prompt[0]["content"]


def test_the_answer_column_wins_over_the_last_message():
    for name in ("answer", "solution"):
        _, report = rows_from(
            [{"messages": [USER, SAID], name: "5"}, {"messages": [SAID, USER], name: "5"}], splits=ALL
        )
        assert f"1 last messages of the assistant are left out: '{name}' has the answers" in report.notes
    rows = [{"messages": [USER, SAID], "solution": "5", "target": "6"}]
    with pytest.raises(DataError, match="the answer may be 'solution' or 'target'"):
        read(rows)
    assert read(rows, drop=["solution", "target"])[0]["answer"] == "4"


def test_conversations_in_a_csv_are_conversations(tmp_path):
    table = pandas.DataFrame([{"messages": [SYSTEM, USER, SAID]}, {"messages": SHARED_GPT}])
    table["messages"] = table["messages"].map(json.dumps).where([False, True], table["messages"])
    table["number"] = [1, 2]
    table.to_csv(tmp_path / "a.csv", index=False)
    splits, report = rows_from(tmp_path / "a.csv", splits=ALL)
    assert splits["train"][0]["prompt"] == [SYSTEM, USER] and splits["train"][0]["answer"] == "4"
    assert [drop.reason for drop in report.dropped] == ["came before"]  # both are one conversation
    table = pandas.DataFrame([{"prompt": [USER], "chosen": GOOD, "rejected": BAD}])
    table.to_csv(tmp_path / "pairs.csv", index=False)
    (pair,) = read_as_pairs(tmp_path / "pairs.csv")
    assert (pair["prompt"], pair["chosen"], pair["rejected"]) == ([USER], GOOD, BAD)


def test_rows_that_differ_in_the_system_message_alone_are_different_rows():
    """The text that is asked about often stands there, and each row asks the same of it."""
    texts = ["It rains.", "It snows.", "IT  rains."]
    rows = [{"messages": [{"role": "system", "content": text}, USER, SAID]} for text in texts]
    splits, report = rows_from(rows, splits={"train": 1, "test": 1}, system="Be brief.")
    kept = {row["prompt"][0]["content"] for part in splits.values() for row in part}
    assert kept == {"It rains.\n\nBe brief.", "It snows.\n\nBe brief."}
    assert [(drop.reason, drop.count) for drop in report.dropped] == [("came before", 1)]
    pairs = [
        {"prompt": [{"role": "system", "content": text}, USER], "chosen": GOOD, "rejected": BAD}
        for text in texts
    ]
    assert len(read_as_pairs(pairs)) == 2


def test_conversations_of_several_turns():
    turns = [{"role": "system", "content": "Be brief."}, USER, SAID, {"role": "user", "content": "Sure?"}]
    (row,) = read([{"messages": [*turns, {"role": "assistant", "content": "Yes"}]}], system="Say a word.")
    assert row["prompt"] == [{"role": "system", "content": "Be brief.\n\nSay a word."}, *turns[1:]]
    assert row["question"] == "user: 2 + 2\n\nassistant: 4\n\nuser: Sure?"
    assert row["answer"] == "Yes"


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [USER]}, "row 1, column 'messages': no answer"),
        ({"messages": [SAID]}, "row 1: no question before the answer"),
        ({"messages": []}, "row 1, column 'messages': it is empty"),
        ({"messages": [{"who": "human", "said": "hi"}]}, "needs 'role' and 'content'.*with who, said"),
        ({"messages": [{"from": "bot", "value": "hi"}]}, "is from 'bot'; known are human, gpt"),
        ({"messages": json.dumps([USER, {"content": "4"}])}, "needs 'role' and 'content'.*with content"),
        ({"messages": "[{'role': 'user', 'content': 'a'}\n {'role'"}, "that cannot be read.*as JSON"),
        ({"messages": "[{'role': 'user', 'content'"}, "a list of messages that cannot be read.*as JSON"),
        ({"messages": [{"role": "user", "content": [{"type": "image"}]}]}, "must be text, not a list"),
    ],
)
def test_broken_conversations_are_named(row, message):
    with pytest.raises(DataError, match=message):
        read([row])
