"""Splits that do not leak, files that hold what they should, and bad files refused with file, line and field."""

import json
import os
import re
import subprocess
import sys
from datetime import date
from decimal import Decimal
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
from rl import tasks
from rl.tasks import TASKS, DataError, fingerprint, make_splits, read_rows, write_splits

OFFLINE = sorted(TASKS.keys() - {"gsm8k"})


@pytest.fixture(scope="module")
def splits():
    return make_splits("chain_sum", {"train": 40, "test": 10})


@pytest.mark.parametrize("task", OFFLINE)
def test_sizes_fields_and_no_question_twice(task):
    splits = make_splits(task, {"train": 1500, "validation": 100, "test": 300})
    rows = [row for split in splits.values() for row in split]
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 1500,
        "validation": 100,
        "test": 300,
    }
    assert len({row["question"] for row in rows}) == 1900
    indices = [row["index"] for row in rows]
    assert indices == sorted(set(indices))  # ranges of one seed's indices
    # These have a thousand million questions; the others repeat some, and those were dropped.
    if task not in ("long_sum", "till"):
        assert indices[-1] >= 1900
    for name, split in splits.items():
        for row in split:
            assert row.keys() == {"prompt", "question", "answer", "task", "split", "index"}
            assert row["prompt"] == [{"role": "user", "content": row["question"]}]
            assert (row["task"], row["split"]) == (task, name)


def test_chain_sum_answers_are_the_sums(splits):
    for row in splits["train"]:
        match = re.fullmatch(
            r"State the final answer to the following arithmetic problem: ([0-9](?: [+-] [0-9]){3,5}) =",
            row["question"],
        )
        assert eval(match[1]) == int(row["answer"])


def test_seed_and_only_the_seed_decides(splits):
    assert make_splits("chain_sum", {"train": 40, "test": 10}) == splits
    assert make_splits("chain_sum", {"train": 40, "test": 25})["test"][:10] == splits["test"]
    other = make_splits("chain_sum", {"train": 40}, seed=10_000)
    assert not {row["question"] for row in other["train"]} & {row["question"] for row in splits["train"]}


def test_system_prompt_comes_first():
    (row,) = make_splits("gsm_symbolic", {"test": 1}, system_prompt="Think.")["test"]
    assert [message["role"] for message in row["prompt"]] == ["system", "user"]
    assert row["prompt"][0]["content"] == "Think."


@pytest.mark.parametrize(
    ("task", "sizes", "message"),
    [
        ("chain_sums", {"train": 1}, "did you mean 'chain_sum'"),
        ("chain_sum", {}, "size of at least 1"),
        ("chain_sum", {"train": 0}, "size of at least 1"),
        ("chain_sum", {"train": 1.5}, "size of at least 1"),
    ],
)
def test_impossible_splits_are_refused(task, sizes, message):
    with pytest.raises(DataError, match=message):
        make_splits(task, sizes)


def test_too_few_problems_are_refused(monkeypatch):
    monkeypatch.setitem(TASKS, "small", lambda seed: iter([("1 + 1", "2"), ("1 + 1", "2"), ("2 + 2", "4")]))
    with pytest.raises(DataError, match="only 2 different questions; 3 were asked for"):
        make_splits("small", {"train": 2, "test": 1})


def test_gsm8k_solutions_are_reduced_as_those_of_ones_own_data_are(tmp_path):
    """A folder of that name stands for the one on the Hub."""
    answers = {"How many?": "He has 2 apples. #### 4", "How much?": "So it is.\n#### 1,234"}
    rows = "".join(json.dumps({"question": q, "answer": a}) + "\n" for q, a in answers.items())
    folder = tmp_path / "openai" / "gsm8k"
    folder.mkdir(parents=True)
    (folder / "train.jsonl").write_text(rows)
    (folder / "README.md").write_text("---\nconfigs:\n- config_name: main\n  data_files: train.jsonl\n---\n")
    code = "from rl.tasks import make_splits\nfor row in make_splits('gsm8k', {'train': 2})['train']: print(row['answer'])"
    from job_variables import job_variables

    settings = {**job_variables(), "HF_HOME": str(tmp_path / "cache"), "HF_HUB_OFFLINE": "1"}
    command = [sys.executable, "-c", code]
    output = subprocess.run(command, env=settings, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert sorted(output.stdout.split()) == ["1234", "4"], output.stderr


def test_gsm8k_without_a_network_says_what_to_do():
    code = (
        "from rl.tasks import DataError, make_splits\n"
        "try:\n    make_splits('gsm8k', {'train': 1})\n"
        "except DataError as error:\n    print('refused:', error)\n"
    )
    # A closed port stands for the missing network; the variables are read when the library is imported.
    closed = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_DATASETS_OFFLINE": "1", "HF_HUB_OFFLINE": "1"}
    from job_variables import job_variables

    output = subprocess.run(
        [sys.executable, "-c", code],
        env={**job_variables(), **closed},
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout
    assert "refused: openai/gsm8k could not be loaded" in output
    assert "gsm_symbolic" in output


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_written_rows_are_read_as_they_were(splits, suffix, tmp_path):
    folders = write_splits(splits, tmp_path)
    assert folders == {"train": tmp_path / "train", "test": tmp_path / "test"}
    assert sorted(path.name for path in folders["train"].iterdir()) == ["train.jsonl", "train.parquet"]
    assert read_rows(folders["train"] / f"train.{suffix}") == splits["train"]
    assert read_rows(folders["test"]) == splits["test"]


def test_nothing_is_overwritten_silently(splits, tmp_path):
    write_splits(splits, tmp_path)
    write_splits(splits, tmp_path)  # the same again is fine
    other = {"validation": splits["test"], "train": splits["test"]}
    with pytest.raises(DataError, match=r"train\.jsonl exists and holds other rows"):
        write_splits(other, tmp_path)
    assert read_rows(tmp_path / "train") == splits["train"]
    assert not (tmp_path / "validation").exists()


def test_a_parquet_of_ones_own_is_not_overwritten(splits, tmp_path):
    (tmp_path / "train").mkdir()
    own = tmp_path / "train" / "train.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([{"question": "2 + 2", "answer": "4"}]), own)
    before = own.read_bytes()
    with pytest.raises(DataError, match=r"train\.parquet exists and holds other rows\. Move"):
        write_splits(splits, tmp_path)
    assert own.read_bytes() == before
    assert [path.name for path in tmp_path.rglob("*.*")] == ["train.parquet"]


def test_splits_that_were_cut_short_are_written_to_the_end(splits, tmp_path, monkeypatch):
    with monkeypatch.context() as killed:
        killed.setattr(tasks, "_parquet", lambda _: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_splits(splits, tmp_path)
    folders = write_splits(splits, tmp_path)
    assert read_rows(folders["train"] / "train.parquet") == splits["train"]


def test_two_notebooks_may_write_the_same_splits_at_once(tmp_path):
    code = "import sys; from rl.tasks import make_splits, write_splits; s = make_splits('chain_sum', {'train': 50})\n"
    code += "for _ in range(100): write_splits(s, sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path)]
    settings = os.environ | {"PYTHONPATH": str(Path(tasks.__file__).parents[1])}
    writers = [subprocess.Popen(command, env=settings, stderr=subprocess.PIPE, text=True) for _ in "ab"]
    assert [writer.communicate(timeout=120)[1] for writer in writers] == ["", ""]
    assert sorted(path.name for path in (tmp_path / "train").iterdir()) == ["train.jsonl", "train.parquet"]


def test_fingerprint_is_of_the_content(splits, tmp_path):
    folders = write_splits(splits, tmp_path)
    prints = {fingerprint(read_rows(folders["train"] / f"train.{suffix}")) for suffix in ("jsonl", "parquet")}
    assert prints == {fingerprint(splits["train"])}
    assert fingerprint(splits["test"]) not in prints
    changed = [{**splits["train"][0], "answer": "0.5"}, *splits["train"][1:]]
    assert fingerprint(changed) not in prints


def row(**changes):
    good = {
        "prompt": [{"role": "user", "content": "1 + 1 ="}],
        "question": "1 + 1 =",
        "answer": "2",
        "task": "chain_sum",
        "split": "train",
        "index": 0,
    }
    return {name: value for name, value in {**good, **changes}.items() if value is not ...}


def line(**changes):
    return json.dumps(row(**changes)).encode() + b"\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"\n \n", "empty"),
        (line() + b"\n" + line()[:30], "line 3: not a JSON object.*cut off"),
        (b"[\n" + line() + b"]", r"line 1: not a JSON object.*a file named \.json: rl\.own_data\.rows_from"),
        (line().decode().encode("utf-16"), "line 1: not UTF-8.*utf-16"),
        (b'{"question": "?", "answer": "2"}', "'prompt' is missing; there are question, answer.*own_data"),
        (
            line() + line(level=3) + line(level="x"),
            "line 3: the column 'level' holds text here and a number in .*line 2",
        ),
        (
            line(prompt="1 + 1", chosen="2"),
            r"'prompt' must be list, not str\. rl\.own_data\.pairs_from makes such rows",
        ),
        (line(level=2**64), "line 1: the integer 18446744073709551616... needs more than 64 bits"),
        (line(hint="\ud83d"), "line 1: .*half a character"),
        (line() + b'\xff\xfe{"a": 1}\n', "line 2: not UTF-8"),
        (line() + b"[1, 2]\n", "line 2: expected an object"),
        (line() + line(answer=...), "line 2: the field 'answer' is missing"),
        (line(index="7"), "line 1: the field 'index' must be int, not str"),
        (line(index=True), "the field 'index' must be int, not bool"),
        (line(answer=2), "the field 'answer' must be str, not int"),
        (line(answer=None), "the field 'answer' must be str, not NoneType"),
        (line(answer=" "), "the field 'answer' is empty"),
        (line(prompt="1 + 1 ="), "the field 'prompt' must be list"),
        (line(prompt=[]), "the field 'prompt' must be a list of"),
        (line(prompt=[{"role": "user"}]), "the field 'prompt' must be a list of"),
        (line(prompt=[{"role": "user", "content": None}]), "the field 'prompt' must be a list of"),
        (line(prompt=["1 + 1 ="]), "the field 'prompt' must be a list of"),
        (line(prompt=[{"role": "user", "content": " \n"}]), "the field 'prompt' asks nothing"),
        *((line(**{name: 1}), f"may not be named '{name}'") for name in ("trainer_state", "seed", "opening")),
    ],
)
def test_bad_jsonl_is_refused_with_the_place(content, message, tmp_path):
    path = tmp_path / "train.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"train\.jsonl.*{message}"):
        read_rows(tmp_path)


def test_bad_parquet_is_refused(tmp_path):
    path = tmp_path / "train.parquet"
    path.write_bytes(b"PAR1 but no more")
    with pytest.raises(DataError, match="no readable parquet"):
        read_rows(path)
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(), row(answer=None)]), path)
    with pytest.raises(DataError, match="row 2: the field 'answer'"):
        read_rows(path)


def test_missing_files_are_refused(tmp_path):
    with pytest.raises(DataError, match="no file"):
        read_rows(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match=r"no \.jsonl or \.parquet file\.$"):
        read_rows(tmp_path)
    for name in ("a.jsonl", "b.jsonl"):
        (tmp_path / name).write_bytes(line())
    with pytest.raises(
        DataError, match=rf"several \.jsonl files: a\.jsonl, b\.jsonl.*rows_from\('{tmp_path}'\)"
    ):
        read_rows(tmp_path)


@pytest.mark.parametrize("name", ["rows.csv", "rows.json", "rows.tsv.gz", "rows.jsonl.gz"])
def test_other_files_are_refused_with_the_way_forward(tmp_path, name):
    (tmp_path / name).write_text("question,answer\n")
    with pytest.raises(
        DataError, match=rf"neither \.jsonl nor \.parquet.*rows_from\('{tmp_path / name}'\).*pairs_from"
    ):
        read_rows(tmp_path / name)
    with pytest.raises(DataError, match=rf"There is {name}\. A job reads one file.*rows_from"):
        read_rows(tmp_path)


def test_a_byte_order_mark_is_accepted(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(b"\xef\xbb\xbf" + line() * 2)
    assert read_rows(tmp_path) == [row(), row()]


def test_a_column_that_a_row_lacks_is_none(tmp_path):
    (tmp_path / "train.jsonl").write_bytes(line() + line(hint="two"))
    rows = read_rows(tmp_path)
    assert rows == [row(hint=None), row(hint="two")]
    assert list(rows[0]) == list(rows[1])


def test_values_that_json_lacks_are_read_from_parquet_as_from_jsonl(tmp_path):
    own = {"day": date(2024, 1, 2), "price": Decimal("1.50"), "raw": b"text", "share": float("nan")}
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row(**own)]), tmp_path / "train.parquet")
    rows = read_rows(tmp_path)
    assert rows == [row(day="2024-01-02", price="1.50", raw="text", share=None)]
    folder = write_splits({"train": [row(**own)]}, tmp_path / "written")["train"]
    assert read_rows(folder) == rows
    assert fingerprint([row(**own)]) == fingerprint(rows) == fingerprint(read_rows(folder))


@pytest.mark.parametrize(
    "column",
    [[1, "one"], [1, 2.5], [{}, {}], [[1], ["one"]], [{"a": 1}, {"b": 2}], [True, 1]],
    ids=["types", "numbers", "empty objects", "lists", "keys", "truth"],
)
def test_rows_that_parquet_would_change_are_written_as_jsonl_alone(column, tmp_path):
    rows = [row(own=value) for value in column]
    folder = write_splits({"train": rows}, tmp_path)["train"]
    assert [path.name for path in folder.iterdir()] == ["train.jsonl"]
    assert [json.loads(text) for text in (folder / "train.jsonl").read_text().splitlines()] == rows


def test_columns_of_all_rows_reach_the_parquet(tmp_path):
    rows = [row(), row(hint="two", chosen=[{"role": "assistant", "content": "2"}])]
    folder = write_splits({"train": rows}, tmp_path)["train"]
    assert read_rows(folder / "train.parquet") == read_rows(folder / "train.jsonl")
    assert [found["hint"] for found in read_rows(folder / "train.parquet")] == [None, "two"]


def test_a_value_that_no_file_can_hold_is_named(tmp_path):
    with pytest.raises(DataError, match="row 2: 1 bytes that are no UTF-8 text"):
        write_splits({"train": [row(), row(image=b"\xff")]}, tmp_path)
    assert not list(tmp_path.iterdir())
