"""The reader of one's own data: sources, splits, columns, the report."""

import json

import pandas
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from own_data import (
    ALL,
    CAPITALS,
    JSONL,
    ROWS,
    USER,
    as_file,
    assistant,
    capitals,
    csv_text,
    parquet,
    read,
    read_as_pairs,
)
from rl.data_values import normalised
from rl.own_data import rows_from
from rl.tasks import DataError, fingerprint, read_rows, write_splits
from tiny import tiny_tokenizer


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


def test_columns_that_are_not_there_are_named():
    with pytest.raises(DataError, match="no column 'land'; there are question, answer"):
        rows_from(ROWS, question="land")
    with pytest.raises(DataError, match="no column 'image'"):
        rows_from(ROWS, drop=["image"])


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


@pytest.mark.parametrize(
    ("names", "options", "noted"),
    [
        (("train", "test"), {}, True),
        (("train", "train"), {}, False),
        (("easy", "hard"), {}, False),
        (("train", "test"), {"drop": ["split"]}, False),
    ],
)
def test_a_column_that_names_several_splits_is_noted(names, options, noted):
    rows = [{**row, "split": names[n % 2]} for n, row in enumerate(ROWS)]
    _, report = rows_from(rows, splits=ALL, verifier="text", **options)
    assert ("the column 'split' names splits (3 train, 2 test), which are mixed" in str(report)) is noted


def test_columns_that_are_kept_of_a_csv_are_texts(tmp_path):
    rows = [{**row, "capital": "True", "level": "3"} for row in ROWS]
    note = "columns kept beside the rows: capital, level"
    for source, said in [
        (as_file(tmp_path, "a.csv", csv_text(rows)), f"{note} (texts)"),
        (as_file(tmp_path, "a.tsv.gz", csv_text(rows, delimiter="\t")), f"{note} (texts)"),
        (parquet(tmp_path, rows), note),
        (rows, note),
    ]:
        assert rows_from(source, splits=ALL, verifier="text")[1].notes == [said]
