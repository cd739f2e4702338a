"""Data as people have it becomes rows and pairs; what cannot be read is named by file, line, field and cure."""

import datetime
import decimal
import gzip
import json
import uuid

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, Value
from rl.data_values import json_value, normalised
from rl.own_data import pairs_from, rows_from
from rl.preferences import read_pairs
from rl.tasks import DataError, fingerprint, read_rows, write_splits
from tiny import tiny_tokenizer

CAPITALS = {"France": "Paris", "Norway": "Oslo", "Peru": "Lima", "Italy": "Rome", "Cuba": "Havana"}
ROWS = [{"question": country, "answer": capital} for country, capital in CAPITALS.items()]
ALL = {"train": 1.0}


def csv_text(rows=ROWS, *, delimiter=",", names=None) -> str:
    lines = [names or list(rows[0]), *(row.values() for row in rows)]
    return "".join(delimiter.join(line) + "\n" for line in lines)


def as_file(folder, name: str, content: str | bytes):
    path = folder / name
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    return path


def parquet(folder, rows, name="data.parquet"):
    table = rows if isinstance(rows, pyarrow.Table) else pyarrow.Table.from_pylist(rows)
    pyarrow.parquet.write_table(table, folder / name)
    return folder / name


def read(source, **options) -> list[dict]:
    """All rows in the source's order."""
    splits, _ = rows_from(source, **{"splits": ALL, "verifier": "text", **options})
    return sorted(splits["train"], key=lambda row: row["index"])


def read_as_pairs(source, **options) -> list[dict]:
    splits, _ = pairs_from(source, splits=ALL, **options)
    return sorted(splits["train"], key=lambda row: row["index"])


def capitals(rows) -> dict[str, str]:
    return {row["question"]: row["answer"] for row in rows}


JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", csv_text()),
        ("a.tsv", csv_text(delimiter="\t")),
        ("a.json", json.dumps(ROWS, indent=1)),
        ("a.json", json.dumps({"version": 1, "data": ROWS})),
        ("a.jsonl", JSONL),
        ("a.jsonl", JSONL.replace("\n", "\r\n\r\n")),
        ("a.ndjson", JSONL.rstrip()),
    ],
)
@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_files_packed_and_with_a_byte_order_mark(tmp_path, name, content, packed, mark):
    assert capitals(read(as_file(tmp_path, name + packed, mark + content))) == CAPITALS


@pytest.mark.parametrize(
    "source",
    [ROWS, iter(ROWS), Dataset.from_list(ROWS), pandas.DataFrame(ROWS)],
    ids=["list", "iterator", "Dataset", "DataFrame"],
)
def test_sources_that_are_no_files(source):
    assert capitals(read(source)) == CAPITALS


def test_classes_of_a_dataset_are_called_by_their_names():
    classes = Features(text=Value("string"), label=ClassLabel(names=["world", "sports"]))
    data = Dataset.from_dict({"text": ["A goal!", "A vote.", "?"], "label": [1, 0, -1]}, features=classes)
    rows = read(data, question="text", skip_bad=True)
    assert capitals(rows) == {"A goal!": "sports", "A vote.": "world"}


def test_shards_of_one_kind_in_a_folder(tmp_path):
    parquet(tmp_path, ROWS[:2], "train-00000-of-00002.parquet")
    parquet(tmp_path, ROWS[2:], "train-00001-of-00002.parquet")
    as_file(tmp_path, "README.md", "# Capitals")
    as_file(tmp_path, "_SUCCESS", "")
    assert capitals(read(tmp_path)) == CAPITALS
    as_file(tmp_path, "more.csv", csv_text())
    with pytest.raises(DataError, match=r"several kinds \(1 .csv, 2 .parquet\)\. Name one file"):
        read(tmp_path)


def test_a_folder_of_ours_is_read_again(tmp_path):
    folders = write_splits({"train": read(ROWS)}, tmp_path)
    assert capitals(read(folders["train"])) == CAPITALS


def test_rows_of_ours_keep_prompt_and_task(tmp_path):
    """read_rows sends those here who have a folder of several files."""
    rows = read([{"question": "Oslo?", "answer": "Yes", "split": "dev"}], system="One word.", task="cities")
    pairs = read_as_pairs(
        [{"prompt": "2 + 2", "chosen": "So 4", "rejected": "5", "gold": "4"}], answer="gold"
    )
    for part in (rows, [{**rows[0], "question": "Rome?", "index": 7}]):
        as_file(tmp_path, f"{part[0]['index']}.jsonl", "".join(json.dumps(row) + "\n" for row in part))
    first, second = read(tmp_path)
    assert (first["prompt"], first["task"]) == (rows[0]["prompt"], "cities")
    assert (second["question"], second["index"], second["source_index"]) == ("Rome?", 1, 7)
    assert (first["source_split"], first["source_split_2"]) == ("dev", "train")  # neither is lost
    assert read(tmp_path, task="towns", system="Be sure.")[0] == {
        **first,
        "task": "towns",
        "prompt": [{"role": "system", "content": "One word.\n\nBe sure."}, USER | {"content": "Oslo?"}],
    }
    (pair,) = read_as_pairs([{**pair, "task": "sums"} for pair in pairs])
    assert (pair["task"], pair["answer"], pair["chosen"]) == ("sums", "4", assistant("So 4"))


def test_rows_are_complete_and_readable_by_a_job(tmp_path):
    splits, report = rows_from(
        as_file(tmp_path, "capitals.csv", csv_text(names=["country", "capital"])),
        question="country",
        answer="capital",
        system="Answer in one word.",
        splits={"train": 3, "test": 2},
        task="capitals",
        verifier="text",
    )
    folders = write_splits(splits, tmp_path / "data")
    assert read_rows(folders["train"]) == splits["train"]
    assert read_rows(folders["test"] / "test.parquet") == splits["test"]
    assert fingerprint(read_rows(folders["train"] / "train.parquet")) == fingerprint(splits["train"])
    row = splits["train"][0]
    assert row["prompt"] == [
        {"role": "system", "content": "Answer in one word."},
        {"role": "user", "content": row["question"]},
    ]
    assert (row["task"], row["split"]) == ("capitals", "train")
    assert capitals([*splits["train"], *splits["test"]]) == CAPITALS
    indices = [row["index"] for part in splits.values() for row in part]
    assert sorted(indices) == [0, 1, 2, 3, 4] != indices
    assert (report.read, report.kept, report.dropped, report.unusable) == (5, {"train": 3, "test": 2}, [], 0)


def test_the_seed_decides_and_earlier_splits_stay():
    rows = [{"question": str(number), "answer": "1"} for number in range(50)]
    small, _ = rows_from(rows, splits={"train": 20, "test": 5})
    more, _ = rows_from(rows, splits={"train": 20, "test": 9, "more": 21})
    assert more["train"] == small["train"] and more["test"][:5] == small["test"]
    other, _ = rows_from(rows, splits={"train": 20}, seed=1)
    assert other["train"] != small["train"]
    shares, _ = rows_from(rows)
    assert {name: len(part) for name, part in shares.items()} == {"train": 45, "test": 5}


@pytest.mark.parametrize(
    "splits", [{}, {"train": 0}, {"train": 0.9, "test": 0.2}, {"train": 2, "test": 0.5}, {"train": True}]
)
def test_splits_that_are_none(splits):
    with pytest.raises(DataError, match="number of rows.*or a share"):
        rows_from(ROWS, splits=splits)


def test_too_few_rows_for_the_splits():
    with pytest.raises(DataError, match=r"Only 5 different rows.*'test' would have 1"):
        rows_from([*ROWS, *ROWS], splits={"train": 4, "test": 2})
    with pytest.raises(DataError, match=r"Left out are 5: came before \(row 6: 'France'\)\. Ask for fewer"):
        rows_from([*ROWS, *ROWS], splits={"train": 4, "test": 2})
    with pytest.raises(DataError, match="'test' would have 0"):
        rows_from(ROWS[:1])


def test_duplicates_in_another_spelling_are_in_one_split_only():
    twins = [
        {"question": "\uff26rance  and\n spain ", "answer": "1"},  # a full-width F
        {"question": "France and Spain", "answer": "1"},
        {"question": "FRANCE AND SPAIN", "answer": "2"},
        {"question": "3\u00b2", "answer": "9"},
        {"question": "32", "answer": "32"},
        {"question": "cafe\u0301", "answer": "3"},
        {"question": "caf\u00e9", "answer": "3"},
    ]
    splits, report = rows_from(twins, splits={"train": 3, "test": 1})
    questions = [normalised(row["question"]) for part in splits.values() for row in part]
    assert sorted(questions) == ["32", "3\u00b2", "caf\u00e9", "france and spain"]
    assert [(drop.reason, drop.count) for drop in report.dropped] == [
        ("came before", 2),
        ("the question came before, with another answer", 1),
    ]
    assert report.dropped[0].example == "row 2: 'France and Spain'"


def test_columns_are_guessed_where_there_is_no_doubt():
    rows = [{"Problem": "1 + 1", "solution": "2", "level": "easy"}]
    splits, report = rows_from(rows, splits=ALL)
    assert capitals(splits["train"]) == {"1 + 1": "2"}
    assert splits["train"][0]["level"] == "easy"
    assert report.notes == [
        "the column 'Problem' is taken as the question",
        "the column 'solution' is taken as the answer",
        "columns kept beside the rows: level",
    ]
    # MATH's own columns: the answer is the answer, and the solution stays beside it.
    math = [{"problem": "1 + 1", "solution": "Add them: 2.", "answer": "2"}]
    assert read(math)[0]["answer"] == "2" and read(math)[0]["solution"] == "Add them: 2."


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            ["land", "stadt"],
            r"row 1: which column holds the question is not known; there are land, stadt\..*question='...'",
        ),
        (["instruction", "input", "output"], "the question may be 'instruction' or 'input'"),
        (["question", "solution", "target"], "the answer may be 'solution' or 'target'"),
    ],
)
def test_columns_in_doubt_are_asked_for(columns, message):
    with pytest.raises(DataError, match=message):
        rows_from([dict.fromkeys(columns, "1")])


def test_columns_that_have_numbers_for_names():
    rows = [{0: "2 + 2", 1: "4", 2: "easy"}]
    for source in (rows, pandas.DataFrame([["2 + 2", "4", "easy"]])):
        (row,) = read(source, question=0, answer="1")
        assert (row["question"], row["answer"], row["2"]) == ("2 + 2", "4", "easy")
    with pytest.raises(DataError, match="the question is not known; there are 0, 1, 2"):
        read(rows)
    with pytest.raises(DataError, match="row 1: two fields are named '0'"):
        read([{0: "a", "0": "b"}])


def test_a_question_may_stand_in_two_columns():
    """As Alpaca and its kin are written."""
    rows = [
        {"instruction": "Add.", "input": "2 + 2", "output": "4"},
        {"instruction": "Hi", "input": "", "output": "5"},
    ]
    with pytest.raises(DataError, match=r"or join several: question=\['instruction', 'input'\]"):
        read(rows)
    joined = read(rows, question=["instruction", "input"])
    assert [row["question"] for row in joined] == ["Add.\n\n2 + 2", "Hi"]
    _, report = rows_from(rows, question="instruction", splits=ALL)
    note = (
        "the column 'input', filled in 1 rows, looks like a part of the question, and is not in the prompt: "
    )
    assert f"{note}question=['instruction', 'input'] joins them" in report.notes
    pairs = [{**row, "chosen": "4", "rejected": "5"} for row in rows]
    assert read_as_pairs(pairs, prompt=["instruction", "input"])[0]["question"] == "Add.\n\n2 + 2"


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


def test_columns_that_are_not_there_are_named():
    with pytest.raises(DataError, match="no column 'land'; there are question, answer"):
        rows_from(ROWS, question="land")
    with pytest.raises(DataError, match="no column 'image'"):
        rows_from(ROWS, drop=["image"])


USER, SAID = {"role": "user", "content": "2 + 2"}, {"role": "assistant", "content": "4"}
SYSTEM = {"role": "system", "content": "Be brief."}
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


def test_answers_that_the_verifier_cannot_use_are_counted():
    golds = ["18 apples", "(B)", "Because it is 4.", "4", "3/4", "18 apples"]
    rows = [{"question": str(number), "answer": gold} for number, gold in enumerate(golds)]
    splits, report = rows_from(rows, splits=ALL)
    assert len(splits["train"]) == 6
    assert report.unusable == 4
    assert set(report.unusable_examples) == {"18 apples", "(B)", "Because it is 4."}
    assert "4 cannot be reached with the verifier 'number'" in str(report)
    assert rows_from(rows, splits=ALL, verifier="text")[1].unusable == 0


def test_prompt_lengths_in_the_models_tokens():
    rows = [{"question": "x" * length, "answer": "1"} for length in range(1, 101)]
    lengths = rows_from(rows, splits=ALL)[1].lengths
    assert (lengths.unit, lengths.median, lengths.p95, lengths.longest) == ("characters", 50, 95, 100)
    # One token a byte, and the template: <|im_start|>user\n ... <|im_end|>\n<|im_start|>assistant\n
    lengths = rows_from(rows, splits=ALL, tokenizer=tiny_tokenizer())[1].lengths
    around = 1 + len("user\n") + 1 + 1 + 1 + len("assistant\n")
    assert (lengths.unit, lengths.median, lengths.longest) == ("tokens", 50 + around, 100 + around)


def test_the_report_is_short_and_shows_in_a_notebook(tmp_path):
    path = as_file(tmp_path, "a.csv", csv_text([*ROWS, {"question": "<i>", "answer": "x"}, ROWS[0]]))
    _, report = rows_from(path, splits={"train": 4, "test": 1}, verifier="text")
    assert str(report).splitlines()[:3] == [
        f"read     7 rows of {path}",
        "kept     4 train, 1 test",
        f"dropped  1: came before ({path}, line 8: 'France')",
    ]
    assert "dropped  1: left over" in str(report) and "prompts  median" in str(report)
    shown = report._repr_html_()
    assert shown.startswith("<table>") and "<i>" not in shown


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


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"PK", r"no data file.*\.csv, \.tsv.*saved as CSV"),
        ("a.csv.gz", gzip.compress(csv_text().encode())[:-9], "damaged or cut off"),
        (
            "a.csv",
            gzip.compress(b"question,answer\n"),
            r"packed by gzip, which its name does not say: add \.gz",
        ),
        (
            "a.csv",
            "question,answer\nFrance,Paris\nIn Paris, where?,Louvre\n",
            "line 3: 3 fields where.* 2 .*quotes",
        ),
        ("a.csv", "question,answer\nFrance\n", "line 2: 1 fields where"),
        (
            "a.csv",
            'question,answer\nFrance,Paris\n"Norway,Oslo\nPeru,Lima\n',
            "line 3: a quote that opens here",
        ),
        ("a.csv", 'question,answer\n"say "hi"",1\n', "line 2: a quote.*twice"),
        ("a.csv", "question;answer\nFrance;Paris\n", "line 1: only one column.*semicolon: delimiter=';'"),
        ("a.csv", "question\tanswer\nFrance\tParis\n", r"parted by a tab: delimiter='\\t'"),
        ("a.tsv", "question,answer\nFrance,Paris\n", "parted by a comma: delimiter=','"),
        ("a.csv", "question,answer,answer\n1,2,3\n", "2 columns are named 'answer'"),
        ("a.csv", "question,,answer\n1,2,3\n", "line 1: column 2 has no name"),
        ("a.csv", "question,answer\n", "holds no rows"),
        ("a.csv", b"", "is empty"),
        ("a.jsonl", b"\n \n", "is empty"),
        (
            "a.csv",
            "question,answer\n1,2\ncaf\u00e9,3\n".encode("cp1252"),
            "line 3: not UTF-8.*encoding='cp1252'",
        ),
        ("a.csv", "question,answer\n1,2\n".encode("utf-16"), "line 1: not UTF-8.*encoding='utf-16'"),
        ("a.json", JSONL, "line 2: not JSON.*named .jsonl"),
        ("a.json", "[1, 2]", "row 1: a row must be an object"),
        (
            "a.json",
            '{"question": ["a"], "answer": ["b"]}',
            r"several lists \(question, answer\).*orient='records'",
        ),
        ("a.json", '{"question": "a"}', r"no list \(its keys: question\)"),
        ("a.json", '[{"a": 1}\n{"b": 2}]', "line 2: not JSON"),
        ("a.json", '[{"question": 1, "question": 2}]', "the key 'question' stands there twice"),
        ("a.jsonl", JSONL + '{"question": "Ch', "line 6: not a JSON object.*cut off"),
        ("a.jsonl", json.dumps(ROWS, indent=1), "line 1: not a JSON object.*named .json"),
        ("a.jsonl", "3\n", "line 1: a row must be an object"),
        ("a.jsonl", "9" * 5000 + "\n", "line 1: not a JSON object"),
        ("a.parquet", b"PAR1 but no more", "no readable parquet"),
    ],
)
def test_what_cannot_be_read_is_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    with pytest.raises(DataError, match=rf"(?s){name}.*{message}"):
        read(path)


def test_the_advice_helps(tmp_path):
    french = "question;answer\ncaf\u00e9;1\n".encode("cp1252")
    (row,) = read(as_file(tmp_path, "a.csv", french), encoding="cp1252", delimiter=";")
    assert row["question"] == "caf\u00e9"
    wide = as_file(tmp_path, "b.csv", csv_text().encode("utf-16"))
    assert capitals(read(wide, encoding="utf-16")) == CAPITALS
    with pytest.raises(DataError, match="no encoding 'utf-99'"):
        read(wide, encoding="utf-99")


def test_a_csv_may_have_line_breaks_in_texts_and_the_index_of_pandas(tmp_path):
    table = pandas.DataFrame(
        [{"question": 'One,\n"two"\n\nthree', "answer": "3"}, {"question": "x", "answer": ""}]
    )
    table.to_csv(tmp_path / "a.csv")
    with pytest.raises(DataError, match=r"a\.csv, line 6, column 'answer'"):
        read(tmp_path / "a.csv")
    (row,) = read(tmp_path / "a.csv", skip_bad=True)
    assert row["question"] == 'One,\n"two"\n\nthree' and "" not in row


def test_other_things_are_no_source(tmp_path):
    with pytest.raises(DataError, match="There is no file"):
        read(tmp_path / "gone.csv")
    (tmp_path / "data").mkdir()
    with pytest.raises(DataError, match="no data file.*Name one of the folders in it: data"):
        read(tmp_path)
    with pytest.raises(DataError, match=r"source\['train'\], not all: train, test"):
        read(DatasetDict(train=Dataset.from_list(ROWS), test=Dataset.from_list(ROWS)))
    with pytest.raises(DataError, match="not int"):
        read(3)
    with pytest.raises(DataError, match="row 1: a row must be an object"):
        read(["a"])
    with pytest.raises(DataError, match="no rows"):
        read([])
    with pytest.raises(DataError, match="Several columns are named 'answer'"):
        read(pandas.DataFrame([["?", "1", "2"]], columns=["question", "answer", "answer"]))


def test_parquet_columns_that_cannot_be_read(tmp_path):
    twice = pyarrow.table([pyarrow.array(["1"]), pyarrow.array(["2"])], names=["question", "question"])
    with pytest.raises(DataError, match="several columns are named 'question'"):
        read(parquet(tmp_path, twice))
    far = {
        **{name: pyarrow.array(["1"]) for name in ("question", "answer")},
        "t": pyarrow.array([2**60], pyarrow.timestamp("ms")),
    }
    with pytest.raises(DataError, match=r"the column 't' \(timestamp\[ms\]\) cannot be read"):
        read(parquet(tmp_path, pyarrow.table(far)))
    fine = {**far, "t": pyarrow.array([1_000_000_001], pyarrow.timestamp("ns"))}
    assert read(parquet(tmp_path, pyarrow.table(fine)))[0]["t"] == "1970-01-01T00:00:01"


# Pairs


def assistant(text: str) -> list[dict]:
    return [{"role": "assistant", "content": text}]


GOOD, BAD = assistant("4"), assistant("5")


@pytest.mark.parametrize(
    "pair",
    [
        {"prompt": "2 + 2", "chosen": "4", "rejected": "5"},
        {"prompt": [USER], "chosen": GOOD, "rejected": BAD},
        {"prompt": [USER], "chosen": "4", "rejected": BAD},
        {"chosen": [USER, *GOOD], "rejected": [USER, *BAD]},
        {"prompt": "2 + 2", "chosen": [USER, *GOOD], "rejected": [USER, *BAD]},  # as UltraFeedback has it
        {"chosen": "\n\nHuman: 2 + 2\n\nAssistant: 4", "rejected": "\n\nHuman: 2 + 2\n\nAssistant: 5"},
        {"prompt": "\n\nHuman: 2 + 2\n\nAssistant:", "chosen": " 4", "rejected": "5"},
        {"prompt": "2 + 2 ", "chosen": "2 + 2 4", "rejected": "2 + 2\n5"},
        {"conversations": [{"from": "human", "value": "2 + 2"}], "chosen": GOOD[0], "rejected": BAD[0]},
        {"question": "2 + 2", "chosen_response": GOOD[0:], "rejected_response": json.dumps(BAD)},
    ],
)
def test_pairs_in_every_form(pair, tmp_path):
    (found,) = read_as_pairs([pair])
    assert found["prompt"] == [USER] and found["question"] == "2 + 2"
    assert (found["chosen"], found["rejected"], found["answer"]) == (GOOD, BAD, "4")
    folder = write_splits({"train": [found]}, tmp_path)["train"]
    assert read_pairs(folder) == read_pairs(folder / "train.parquet") == [found]


def test_a_common_beginning_of_several_turns_is_prompt():
    system = {"role": "system", "content": "Be brief."}
    sure = {"role": "user", "content": "Sure?"}
    (found,) = read_as_pairs(
        [
            {
                "chosen": [system, USER, SAID, sure, *assistant("Yes")],
                "rejected": [system, USER, SAID, sure, *assistant("No")],
            }
        ]
    )
    assert found["prompt"] == [system, USER, SAID, sure]
    assert (found["chosen"], found["rejected"]) == (assistant("Yes"), assistant("No"))
    (found,) = read_as_pairs([{"prompt": [system, USER], "chosen": [USER, *GOOD], "rejected": [USER, *BAD]}])
    assert found["prompt"] == [system, USER]


def test_words_in_common_are_prompt_only_if_asked_for():
    texts = {"user_text": "Which?", "chosen": "The sky is blue.", "rejected": "The sky is black."}
    with pytest.raises(DataError, match=r"row 1: no prompt; there are user_text, chosen.*prompt='\.\.\.'"):
        read_as_pairs([texts])
    (found,) = read_as_pairs([texts], prompt="common")
    assert found["prompt"] == [{"role": "user", "content": "The sky is"}]
    assert (found["chosen"], found["rejected"]) == (assistant("blue."), assistant("black."))
    (found,) = read_as_pairs([texts], prompt="user_text")
    assert found["question"] == "Which?" and found["chosen"] == assistant("The sky is blue.")
    with pytest.raises(DataError, match="row 1: no question before"):
        read_as_pairs([{"chosen": "yes", "rejected": "no"}], prompt="common")


def test_a_prompt_within_the_answers_is_asked_once():
    system = {"role": "system", "content": "Be brief."}
    spaced = {"role": "user", "content": "2 + 2 "}
    (found,) = read_as_pairs(
        [{"prompt": "2 + 2", "chosen": [system, spaced, *GOOD], "rejected": [system, spaced, *BAD]}]
    )
    assert found["prompt"] == [system, spaced]
    # An answer that is the prompt and nothing more repeats nothing, and "2 + 2" does not begin "2 + 22".
    for echo in ("2 + 2", "2 + 22"):
        (found,) = read_as_pairs([{"prompt": "2 + 2", "chosen": "2 + 2 4", "rejected": echo}])
        assert (found["chosen"], found["rejected"]) == (assistant("2 + 2 4"), assistant(echo))


@pytest.mark.parametrize(
    ("pair", "message"),
    [
        ({"prompt": "2 + 2", "chosen": "4", "rejected": "4"}, "'chosen' and 'rejected' are the same"),
        ({"prompt": "2 + 2", "chosen": "4", "rejected": " "}, "no answer in 'rejected'"),
        ({"prompt": "2 + 2", "chosen": None, "rejected": "4"}, "no answer in 'chosen'"),
        ({"prompt": "", "chosen": "4", "rejected": "5"}, "column 'prompt': it is empty"),
        ({"chosen": [USER, *GOOD], "rejected": [USER]}, "the same as far as the shorter goes"),
        (
            {"chosen": [USER, *GOOD], "rejected": [{"role": "user", "content": "?"}, *BAD]},
            "end both sides with message 1, where",
        ),
        (
            {
                "chosen": "Human: 2 + 2\n\nAssistant: 4\n\nHuman: Sure?\n\nAssistant: Yes",
                "rejected": "Human: 2 + 2\n\nAssistant: 5\n\nHuman: Sure?\n\nAssistant: Yes",
            },
            "go on after the message at which they part.*with message 2",
        ),
        ({"prompt": "2 + 2", "chosen": [SYSTEM, *GOOD], "rejected": [SYSTEM, *BAD]}, "which is asked"),
        ({"chosen": GOOD, "rejected": BAD}, "no question before the answer"),
        ({"chosen": "yes", "rejected": "no"}, "no prompt.*prompt='...'"),
    ],
)
def test_bad_pairs_are_named_or_left_out(pair, message):
    good = {
        "chosen": [{"role": "user", "content": "1 + 1"}, *GOOD],
        "rejected": "Human: 1 + 1\n\nAssistant: 5",
    }
    if "prompt" in pair:
        good["prompt"] = "1 + 1"
    with pytest.raises(DataError, match=f"(?s)row 2.*{message}"):
        read_as_pairs([good, pair])
    splits, report = pairs_from([good, pair], splits=ALL, skip_bad=True)
    assert len(splits["train"]) == 1 and [drop.count for drop in report.dropped] == [1]


@pytest.mark.parametrize("early", ["Human: Hi\n\nAssistant: No\n\nHuman: Bye\n\nAssistant: Bye", "Hi"])
def test_what_is_read_as_a_pair_can_be_read_by_a_job(early, tmp_path):
    """One rule says what a pair is: a job takes all that was written, as it was written."""
    texts = [f"Human: {number}?\n\nAssistant: Yes\n\nHuman: Sure?\n\nAssistant: " for number in range(9)]
    rows = [{"chosen": f"{text}Yes", "rejected": f"{text}No"} for text in texts]
    rows.append({"chosen": f"{texts[0]}Yes", "rejected": early})
    splits, report = pairs_from(rows, splits=ALL, skip_bad=True)
    assert read_pairs(write_splits(splits, tmp_path)["train"]) == splits["train"]
    assert (len(splits["train"]), [drop.count for drop in report.dropped]) == (9, [1])


def test_pairs_of_one_question_stay_together_and_duplicates_go():
    pairs = [
        {"prompt": f"{number} + 1", "chosen": f"good {answer}", "rejected": f"bad {answer}"}
        for number in range(20)
        for answer in range(3)
    ]
    splits, report = pairs_from(
        [*pairs, {**pairs[0], "chosen": "GOOD  0"}], splits={"train": 0.8, "validation": 0.2}
    )
    assert {name: len(part) for name, part in splits.items()} == {"train": 48, "validation": 12}
    train, validation = ({row["question"] for row in part} for part in splits.values())
    assert not train & validation
    assert [(drop.reason, drop.count) for drop in report.dropped] == [("came before", 1)]
    assert report.verifier is None and "verifier" not in str(report)


def test_pairs_keep_tools_scores_and_the_known_answer():
    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    row = {
        "prompt": "2 + 2",
        "chosen": "4",
        "rejected": "5",
        "tools": [tool],
        "score_chosen": 9.5,
        "gold": "So\n#### 4",
    }
    (found,) = read_as_pairs([row], answer="gold")
    assert json.loads(found["tools"]) == [tool]
    assert (found["score_chosen"], found["answer"]) == (9.5, "4")
