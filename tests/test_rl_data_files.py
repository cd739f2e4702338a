"""Files, folders and tables as programs write them are read as they were meant, or refused with a cure that works."""

import json

import numpy
import pandas
import pyarrow
import pyarrow.parquet
import pytest
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, load_from_disk
from rl.data_files import files_of, read_records
from rl.data_values import DataError, compatible, json_value, normalised

ROWS = [{"question": "2 + 2", "answer": "4"}, {"question": "1 + 1", "answer": "2"}]
JSONL = "".join(json.dumps(row) + "\n" for row in ROWS)


def values(source, **options) -> list[dict]:
    return [record.values for record in read_records(source, **options)]


def write(path, content: str | bytes):
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def parquet(path, table=None):
    pyarrow.parquet.write_table(table or pyarrow.Table.from_pylist(ROWS), path)
    return path


# Folders


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (["train.jsonl", "test.jsonl"], "test, train"),
        (["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl", "test-00000-of-00001.jsonl"], "test, train"),
        (["gsm8k_train.jsonl", "gsm8k_dev.jsonl"], "dev, train"),
        (["Train.jsonl", "validation.jsonl", "val.jsonl"], "train, val, validation"),
        (["train.part1.jsonl", "eval.jsonl"], "eval, train"),
    ],
)  # fmt: skip
def test_a_folder_of_several_splits_is_not_mixed(tmp_path, names, splits):
    for name in names:
        write(tmp_path / name, JSONL)
    with pytest.raises(
        DataError, match=r"several splits \(.*\).*Name one file \(or one folder of shards\)"
    ) as error:
        read_records(tmp_path)
    assert set(str(error.value).split("(")[1].split(")")[0].split(", ")) == set(splits.split(", "))
    assert values(tmp_path / names[0]) == ROWS


@pytest.mark.parametrize(
    "names",
    [
        ["train-00000-of-00002.jsonl", "train-00001-of-00002.jsonl"],
        ["part-1.jsonl", "part-2.jsonl"],
        ["contest.jsonl", "devices.jsonl", "trainer.jsonl"],  # no splits
    ],
)
def test_shards_are_one_source_and_are_named(tmp_path, names):
    files = [write(tmp_path / name, JSONL) for name in names]
    assert values(tmp_path) == ROWS * len(names)
    assert files_of(tmp_path) == files == files_of(str(tmp_path))
    assert files_of(files[0]) == [files[0]] and files_of(ROWS) == []
    assert {record.where.rpartition(",")[0] for record in read_records(tmp_path)} == set(map(str, files))


def test_parquet_shards_of_two_splits_are_not_mixed(tmp_path):
    parquet(tmp_path / "train-00000-of-00001.parquet")
    parquet(tmp_path / "test-00000-of-00001.parquet")
    with pytest.raises(DataError, match="several splits"):
        read_records(tmp_path)


def test_what_datasets_writes_beside_the_data_is_no_data(tmp_path):
    write(tmp_path / "data.jsonl", JSONL)
    for name in ("dataset_info.json", "dataset_infos.json", "state.json"):
        write(tmp_path / name, '{"splits": [1]}')
    assert values(tmp_path) == ROWS
    assert files_of(tmp_path) == [tmp_path / "data.jsonl"]


def test_folders_of_save_to_disk_are_for_load_from_disk(tmp_path):
    data = Dataset.from_list(ROWS)
    data.save_to_disk(tmp_path / "one")
    DatasetDict(train=data, test=data).save_to_disk(tmp_path / "parts")
    for folder in (tmp_path / "one", tmp_path / "parts"):
        with pytest.raises(DataError, match=rf"datasets\.load_from_disk\('{folder}'\)"):
            read_records(folder)
    assert values(load_from_disk(tmp_path / "one")) == ROWS
    # Without what save_to_disk writes beside them, such files are opened one by one.
    (tmp_path / "one" / "state.json").unlink()
    (arrow,) = (tmp_path / "one").glob("*.arrow")
    for source in (tmp_path / "one", arrow):
        with pytest.raises(DataError, match=rf"datasets\.Dataset\.from_file\('{arrow}'\)"):
            read_records(source)
    assert values(Dataset.from_file(str(arrow))) == ROWS


# Numbers of 32 and 16 bits


@pytest.mark.parametrize("number", [2.7, 0.3, -1.1, 1e20, 1.5, 123456.7])
def test_short_floats_are_the_numbers_that_were_written(number, tmp_path):
    single = pyarrow.float32()
    table = pyarrow.table(
        {
            "plain": pyarrow.array([number, None], single),
            "list": pyarrow.array([[number], None], pyarrow.list_(single)),
            "struct": pyarrow.array([{"a": [number], "b": "x"}, None], pyarrow.struct([("a", pyarrow.list_(single)), ("b", pyarrow.string())])),
            "map": pyarrow.array([[("k", number)], None], pyarrow.map_(pyarrow.string(), single)),
            "code": pyarrow.array([number, None], single).dictionary_encode(),
            "double": pyarrow.array([0.1 + 0.2, None], pyarrow.float64()),
        }
    )  # fmt: skip
    row, missing = values(parquet(tmp_path / "a.parquet", table))
    assert row == {
        "plain": number,
        "list": [number],
        "struct": {"a": [number], "b": "x"},
        "map": [("k", number)],
        "code": number,
        "double": 0.1 + 0.2,
    }
    assert set(missing.values()) == {None}


def test_half_floats_too(tmp_path):
    table = pyarrow.table({"half": pyarrow.array([2.7, 65504], pyarrow.float16())})
    rows = values(parquet(tmp_path / "a.parquet", table))
    assert [json_value(row["half"]) for row in rows] == [2.7, 65500.0]  # both are that half float


@pytest.mark.parametrize("form", [None, "numpy", "arrow-like"])
def test_short_floats_of_a_dataset(form):
    features = Features(answer=Value("float32"), scores=List(Value("float32")), meta={"a": Value("float16")})
    data = Dataset.from_list([{"answer": 2.7, "scores": [0.3], "meta": {"a": 1.1}}], features=features)
    if form == "numpy":
        data = data.with_format("numpy")
    elif form == "arrow-like":
        data = data.select([0, 0]).select([1])
    (row,) = values(data)
    assert json_value(row) == {"answer": 2.7, "scores": [0.3], "meta": {"a": 1.1}}


def test_classes_are_called_by_their_names_in_every_format():
    features = Features(question=Value("string"), label=ClassLabel(names=["no", "yes"]))
    data = Dataset.from_dict({"question": ["a", "b"], "label": [1, -1]}, features=features)
    for source in (data, data.with_format("numpy")):
        assert [row["label"] for row in values(source)] == ["yes", None]


@pytest.mark.parametrize("dtype", ["float32", "float16", "Float32", "float[pyarrow]", "object"])
def test_short_floats_of_a_table(dtype):
    column = [numpy.float32(2.7)] if dtype == "object" else [2.7]
    table = pandas.DataFrame({"question": ["?"], "answer": pandas.Series(column, dtype=dtype)})
    (row,) = values(table)
    assert json_value(row) == {"question": "?", "answer": 2.7}


def test_short_floats_of_numpy():
    assert json_value(numpy.float32(0.3)) == 0.3
    assert json_value(numpy.float16(0.3)) == 0.3
    assert json_value(numpy.float64(0.1 + 0.2)) == 0.1 + 0.2
    assert json_value({"a": numpy.array([[0.3, float("nan")]], "float32")}) == {"a": [[0.3, None]]}
    assert json_value(numpy.array([numpy.float32(0.3), "x"], object)) == [0.3, "x"]
    with pytest.raises(DataError, match="no infinity"):
        json_value(numpy.float32("inf"))


# CSV


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("quote", ["", '"'])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_the_delimiter_hint_works_when_it_is_followed(tmp_path, delimiter, quote, end):
    lines = [["question", "answer"], *([*row.values()] for row in ROWS)]
    text = "".join(delimiter.join(f"{quote}{cell}{quote}" for cell in line) + end for line in lines)
    path = write(tmp_path / "a.csv", text)
    if delimiter != ",":
        with pytest.raises(DataError, match=r"a\.csv, line 1: .*Its fields seem to be parted by a") as error:
            read_records(path)
        assert f"delimiter={delimiter!r}" in str(error.value) and "Close it" not in str(error.value)
    assert values(path, delimiter=delimiter) == ROWS


def test_the_delimiter_of_a_tsv_that_is_none(tmp_path):
    path = write(tmp_path / "a.tsv", '"question","answer"\n"2 + 2","4"\n')
    with pytest.raises(DataError, match="delimiter=','"):
        read_records(path)
    assert values(path, delimiter=",") == ROWS[:1]
    with pytest.raises(DataError, match="A delimiter is one character"):
        read_records(path, delimiter=", ")


def test_quotes_that_are_not_closed_are_still_named(tmp_path):
    path = write(tmp_path / "a.csv", 'question,answer\n2 + 2,4\n"1; 1,2\n')
    with pytest.raises(DataError, match="line 3: a quote that opens here.*Close it"):
        read_records(path)
    with pytest.raises(DataError, match="line 1: a quote that opens here"):
        read_records(write(tmp_path / "b.csv", '"question,answer\n2 + 2,4\n'))


@pytest.mark.parametrize("length", [131_073, 1_000_000])
def test_long_cells_are_read(tmp_path, length):
    path = write(tmp_path / "a.csv", f"question,answer\n{'x' * length},4\n")
    assert values(path) == [{"question": "x" * length, "answer": "4"}]


@pytest.mark.parametrize("first", ["sep=;\r\n", '"sep=;"\n', "SEP=;\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_the_first_line_of_excel_names_the_delimiter(tmp_path, first, encoding):
    path = write(tmp_path / "a.csv", (first + "question;answer\n2,5;4\n").encode(encoding))
    for delimiter in (None, ";"):
        (record,) = read_records(path, encoding=encoding, delimiter=delimiter)
        assert record.values == {"question": "2,5", "answer": "4"}
        assert record.where == f"{path}, line 3"
    bad = write(tmp_path / "b.csv", first + "question;;answer\n1;2;3\n")
    with pytest.raises(DataError, match="line 2: column 2 has no name"):
        read_records(bad)


# Tables in memory, and deep values


def test_columns_without_names_are_called_by_their_numbers(tmp_path):
    path = write(tmp_path / "a.txt", "2 + 2,4\n1 + 1,2\n")
    rows = values(pandas.read_csv(path, header=None))
    assert json_value(rows) == [{"0": "2 + 2", "1": 4}, {"0": "1 + 1", "1": 2}]
    assert values([{0: "2 + 2", 1: "4"}]) == [{"0": "2 + 2", "1": "4"}]
    with pytest.raises(DataError, match="row 1: two fields are named '0'"):
        read_records([{0: "a", "0": "b"}])
    with pytest.raises(DataError, match="Several columns are named '0'"):
        read_records(pandas.DataFrame([["a", "b"]], columns=[0, "0"]))


def test_tables_keep_their_types():
    table = pandas.DataFrame(
        {
            "when": pandas.to_datetime(["2024-01-02"]),
            "count": [3],
            "right": [True],
            "none": [None],
            "of": ["x"],
        }
    )
    assert json_value(values(table.astype({"of": "category"}))) == [
        {"when": "2024-01-02T00:00:00", "count": 3, "right": True, "none": None, "of": "x"}
    ]
    with pytest.raises(DataError, match="no rows"):
        read_records(table[:0])


class Frame:
    """A table as polars has it: not iterable by rows, and its to_dict takes no orient."""

    columns = ("question", "answer")

    def to_dict(self, *, as_series: bool = True) -> dict:
        return {name: [row[name] for row in ROWS] for name in self.columns}

    def to_dicts(self) -> list[dict]:
        return ROWS


def test_a_frame_of_polars_is_taken():
    assert values(Frame()) == ROWS


@pytest.mark.parametrize("depth", [99, 3000, 100_000])
@pytest.mark.parametrize("wrap", [lambda inner: [inner], lambda inner: {"a": inner}, lambda inner: (inner,)])
def test_deep_values_are_refused_in_words(depth, wrap):
    value = 1
    for _ in range(depth):
        value = wrap(value)
    if depth < 100:
        assert json.dumps(json_value(value))
    else:
        with pytest.raises(DataError, match="row 1: nested more than 100 levels deep"):
            json_value(value, "row 1")


@pytest.mark.parametrize(("name", "line"), [("a.json", "[%s]"), ("a.jsonl", "%s\n")])
def test_deep_values_of_files_are_refused_in_words(tmp_path, name, line):
    row = '{"question": "?", "answer": "1", "extra": ' + "[" * 3000 + "]" * 3000 + "}"
    with pytest.raises(DataError, match=rf"{name}, line 1: not"):
        json_value([record.values for record in read_records(write(tmp_path / name, line % row))])


# The same text


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("\uff26\uff12", "F2"),
        ("\ufb01ne", "fine"),
        ("\u2474", "(1)"),
        ("e\u0301", "\u00e9"),
        ("3\u00b2", "3\u00b2"),
        ("H\u2082O", "H\u2082O"),
        ("1\u00bd", "1\u00bd"),
        ("\u2460", "\u2460"),
        ("x\u00aa\u2122", "x\u00aa\u2122"),
    ],
)
def test_variants_of_letters_are_one_where_they_mean_one(text, same):
    assert compatible(text) == compatible(same) == same
    assert normalised(f" {text}\n") == same.casefold()
