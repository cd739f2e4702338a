"""What a cell holds: options to choose from, conversations, solutions, values."""

import datetime
import decimal
import json
import uuid

import numpy
import pandas
import pytest
from datasets import Dataset
from own_data import (
    ALL,
    BAD,
    CAPITALS,
    GOOD,
    ROWS,
    SAID,
    SYSTEM,
    USER,
    as_file,
    capitals,
    parquet,
    read,
    read_as_pairs,
)
from rl.data_values import json_value
from rl.own_data import rows_from
from rl.tasks import DataError, fingerprint, read_rows, write_splits

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


@pytest.mark.parametrize(
    ("raw", "reduced"),
    [
        ("48/2 = <<48/2=24>>24 clips.\n48+24 = 72 altogether.\n#### 72", "72"),
        ("So much.\n#### 1,234", "1234"),
        ("#### -1,234.50\n", "-1234.50"),
        ("Then\n####42", "42"),
        ("The heading is\n#### two words", "two words"),
        ("He has 2 apples. #### 4", "4"),
        ("He has 2 apples.#### 4", "4"),
        ("First #### 3, then #### 1,234", "1234"),
        ("#### 3\nand more", "#### 3\nand more"),
        ("print('####')", "print('####')"),
        ("##### A heading", "##### A heading"),
        ("1,234", "1,234"),
        ("<answer> 2 </answer>", "2"),
        ("<think>Is it <answer>3</answer>?</think>\n<answer>two words</answer>", "two words"),
        ("<answer>2</answer> or <answer>3</answer>", "<answer>2</answer> or <answer>3</answer>"),
        (r"So $x = \boxed{\frac{1}{2}}$.", r"\frac{1}{2}"),
        (r"Not $\boxed{3}$, as it is odd.\n\[\boxed{\{1, 2\}}\]", r"\{1, 2\}"),
        ("<think>3?</think> It is $\\boxed{4}$.", "4"),
        (r"\boxed{4}", r"\boxed{4}"),
        (r"So \boxed{4", r"So \boxed{4"),
        (r"They are $\boxed{3}$ and $\boxed{5}$.", r"They are $\boxed{3}$ and $\boxed{5}$."),
        ("A $\\boxed{3}$.\n\nBut it goes on.", "A $\\boxed{3}$.\n\nBut it goes on."),
    ],
)
def test_solutions_are_reduced_to_their_answer(raw, reduced):
    splits, report = rows_from([{"question": "?", "answer": raw}], splits=ALL)
    assert splits["train"][0]["answer"] == reduced
    assert bool(report.notes) == (reduced != raw.strip())


def test_the_report_counts_what_was_reduced():
    answers = ["So #### 4", "So #### 5", "<answer>6</answer>", r"So \boxed{7}", "8"]
    _, report = rows_from([{"question": f"{answer}?", "answer": answer} for answer in answers], splits=ALL)
    assert [note[:30] for note in report.notes] == [
        "1 answers in <answer> tags are",
        "2 solutions that end in '#### ",
        r"1 solutions that end in \boxed",
    ]
    assert report.unusable == 0
    with pytest.raises(DataError, match="row 1, column 'answer': no answer"):
        rows_from([{"question": "?", "answer": "<answer></answer>"}])


@pytest.mark.parametrize(
    ("value", "answer"),
    [
        (42, "42"),
        (42.0, "42"),
        (0.5, "0.5"),
        (True, "True"),
        (decimal.Decimal("12.50"), "12.50"),
        (b"Oslo", "Oslo"),
    ],
)
def test_answers_that_are_no_texts(value, answer):
    assert read([{"question": "?", "answer": value}])[0]["answer"] == answer


@pytest.mark.parametrize("value", [["Paris"], {"text": "Paris"}])
def test_an_answer_that_is_a_list_is_refused(value):
    with pytest.raises(DataError, match="row 1, column 'answer': one text is needed, not a"):
        read([{"question": "?", "answer": value}])


@pytest.mark.parametrize("empty", ["", " \n", None, float("nan"), pandas.NA, pandas.NaT])
@pytest.mark.parametrize("column", ["question", "answer"])
def test_empty_cells_are_named_or_left_out(empty, column):
    rows = [*ROWS, {**ROWS[0], column: empty}]
    with pytest.raises(DataError, match=rf"row 6, column '{column}': .*skip_bad=True"):
        read(rows)
    splits, report = rows_from(rows, splits=ALL, skip_bad=True)
    assert capitals(splits["train"]) == CAPITALS
    (drop,) = report.dropped
    assert (drop.count, drop.example) == (1, f"row 6, column '{column}'")


@pytest.mark.parametrize("cell", ["", "nan", "NaN", "<NA>", "#N/A"])
def test_empty_cells_of_a_csv_are_named(tmp_path, cell):
    path = as_file(tmp_path, "a.csv", f"question,answer\nFrance,Paris\nNone,{cell}\n")
    with pytest.raises(DataError, match=r"a\.csv, line 3, column 'answer': no answer"):
        read(path)


OWN_COLUMNS = {
    "when": (datetime.datetime(2024, 1, 2, 3, 4, 5), "2024-01-02T03:04:05"),
    "day": (datetime.date(2024, 1, 2), "2024-01-02"),
    "clock": (datetime.time(3, 4), "03:04:00"),
    "took": (datetime.timedelta(minutes=1), 60.0),
    "price": (decimal.Decimal("12.50"), "12.50"),
    "raw": (b"caf\xc3\xa9", "caf\u00e9"),
    "none": (None, None),
    "tags": (["a", "b"], ["a", "b"]),
    "meta": ({"level": 3}, {"level": 3}),
}


@pytest.mark.parametrize("kind", ["list", "parquet", "Dataset"])
def test_own_columns_are_kept_as_json_has_them(kind, tmp_path):
    rows = [{**row, **{name: value for name, (value, _) in OWN_COLUMNS.items()}} for row in ROWS]
    if kind == "parquet":
        rows = parquet(tmp_path, rows)
    elif kind == "Dataset":
        rows = Dataset.from_list([{key: item for key, item in row.items() if key != "took"} for row in rows])
    found = read(rows)[0]
    for name, (_, plain) in OWN_COLUMNS.items():
        if name in found or kind != "Dataset":
            assert found[name] == plain and type(found[name]) is type(plain)
    splits = {"train": read(rows)}
    folder = write_splits(splits, tmp_path / "data")["train"]
    assert read_rows(folder) == read_rows(folder / "train.parquet") == splits["train"]


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (numpy.float64(1.5), 1.5),
        (numpy.int32(3), 3),
        (numpy.bool_(True), True),
        (numpy.array([1, 2]), [1, 2]),
        (pandas.Timestamp("2024-01-02"), "2024-01-02T00:00:00"),
        (decimal.Decimal("1E+3"), "1000"),
        (decimal.Decimal("NaN"), None),
        ((1, 2), [1, 2]),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (2**63 - 1, 2**63 - 1),
    ],
)
def test_values_as_json_has_them(value, plain):
    assert json_value(value) == plain and type(json_value(value)) is type(plain)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (b"\x89PNG\r\n", "6 bytes that are no UTF-8 text.*drop="),
        (float("inf"), "no infinity"),
        (decimal.Decimal("-Infinity"), "no infinity"),
        (2**63, "more than 64 bits"),
        ({1, 2}, "type set.*drop="),
        ({"bytes": b"\xff"}, "no UTF-8 text"),
        ("cut \ud83d", "half a character"),
    ],
)
def test_values_that_no_file_can_hold_are_named(value, message):
    rows = [{**ROWS[0], "extra": value}]
    with pytest.raises(DataError, match=f"row 1, column 'extra': .*{message}"):
        read(rows)
    with pytest.raises(DataError, match=f"row 1: .*{message}"):
        fingerprint(rows)
    assert capitals(read(rows, drop=["extra"])) == {"France": "Paris"}


def test_a_column_missing_in_row_1_is_kept(tmp_path):
    rows = [ROWS[0], {**ROWS[1], "hint": "fjord"}]
    found = read(as_file(tmp_path, "a.jsonl", "".join(json.dumps(row) + "\n" for row in rows)))
    assert [row["hint"] for row in found] == [None, "fjord"]
    folder = write_splits({"train": found}, tmp_path / "data")["train"]
    assert read_rows(folder) == read_rows(folder / "train.parquet") == found
    assert Dataset.from_list(read_rows(folder))["hint"][:] == [None, "fjord"]


def test_a_column_of_two_types_is_named():
    with pytest.raises(
        DataError, match=r"row [23]: the column 'level' holds .* here and .* in row [23]\..*drop=\['level'\]"
    ):
        read([ROWS[0], {**ROWS[1], "level": 3}, {**ROWS[2], "level": "hard"}])
    with pytest.raises(DataError, match=r"the column 'meta\.tags\[\]' holds"):
        read([{**ROWS[0], "meta": {"tags": ["a"]}}, {**ROWS[1], "meta": {"tags": [1]}}])
    numbers = read([{**ROWS[0], "level": 3}, {**ROWS[1], "level": 2.5}])
    assert [repr(row["level"]) for row in numbers] == ["3.0", "2.5"]


def test_columns_whose_names_trainers_use_get_another(tmp_path):
    row = {**ROWS[0], "index": 7, "split": "dev", "image": "a.png", "prompts": "x", "trainer_state": "y"}
    (found,) = read([row])
    assert (found["index"], found["split"]) == (0, "train")
    for name in ("index", "split", "image", "prompts", "trainer_state"):
        assert found[f"source_{name}"] == row[name]
    assert not {"image", "prompts", "trainer_state"} & found.keys()
