"""What the reader cannot read is named by file, line, field and cure."""

import gzip
import json

import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import Dataset, DatasetDict
from own_data import CAPITALS, JSONL, ROWS, as_file, capitals, csv_text, parquet, read
from rl.tasks import DataError


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.xlsx", b"PK", r"no data file.*\.csv, \.tsv.*saved as CSV"),
        ("a.csv.gz", gzip.compress(csv_text().encode(), mtime=0)[:-9], "damaged or cut off"),
        (
            "a.csv",
            gzip.compress(b"question,answer\n", mtime=0),
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


def test_a_list_of_accepted_answers_is_no_answer_also_where_a_table_has_it_as_text(tmp_path, write):
    accepted = "['Paris', 'City of Paris']"
    file = as_file(tmp_path, "a.csv", f'question,answer\nItaly,Rome\nFrance,"{accepted}"\n')
    for verifier in ("text", "exact", "number"):
        with pytest.raises(
            DataError, match=r"line 3, column 'answer': one text is needed, not a list .*'City"
        ):
            read(file, verifier=verifier)
    write("accepted", "def one_of(given, gold):\n    return given in gold\n")
    assert capitals(read(file, verifier="accepted.one_of"))["France"] == accepted
    interval = [{"question": "Which x?", "answer": "[2, 5]"}]
    assert read(interval, verifier="math")[0]["answer"] == "[2, 5]"
