"""What a cell holds: a solution, nothing, or a value that JSON does not have."""

import datetime
import decimal
import json
import uuid

import numpy
import pandas
import pytest
from datasets import Dataset
from own_data import ALL, CAPITALS, ROWS, as_file, capitals, parquet, read
from rl.data_golds import reduced
from rl.data_values import json_value
from rl.own_data import rows_from
from rl.tasks import DataError, fingerprint, read_rows, write_splits
from rl.verifiers import VERIFIERS


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


@pytest.mark.parametrize(
    "solution",
    [
        *(
            r"$2 - 7 = -\boxed{5}$",
            "It is \u2212\\boxed{5}",
            r"$x = - \boxed{5}$",
            r"$-\,\boxed{5}$",
            r"$x = \pm\boxed{5}$",
        ),
        *(r"x = - \boxed{5}", r"Answer -\boxed{5}", r"$$x = - \boxed{5}$$", r"\[ - \boxed{5} \]"),
        *(
            r"$\frac{1}{\boxed{5}}$",
            r"$\frac{\boxed{5}}{2}$",
            r"$\sqrt{\boxed{5}}$",
            r"$\sqrt[3]{2 \boxed{5}}$",
        ),
        *(r"$x^{\boxed{5}}$", r"$2\boxed{5}$", r"$2 \cdot \boxed{5}$", r"$1/\boxed{5}$", r"$2 + \boxed{5}$"),
        *(r"so $\boxed{5}^2$", r"so $\boxed{101}_2$", r"so $\boxed{5}/7$", r"so $\boxed{5}\sqrt{2}$"),
    ],
)
def test_a_box_to_which_something_is_done_is_not_the_answer(solution):
    assert reduced(solution) == (solution, "")


@pytest.mark.parametrize(
    "solution",
    [
        *(
            r"$\text{\boxed{5}}$",
            r"\text{The answer is \boxed{5}}",
            r"${\boxed{5}}$",
            r"$\left(\boxed{5}\right)$",
        ),
        *(
            "Answer - \\boxed{5}",
            "Answer \u2013 \\boxed{5}",
            "**Answer** - \\boxed{5}",
            "So:\n- \\boxed{5}",
            "So\n---\n\\boxed{5}",
        ),
        *(
            r"It is $\boxed{5}^\circ$",
            r"the $\boxed{5}^{\text{th}}$",
            r"the $\boxed{5}^{th}$",
            r"It is \$\boxed{5}",
            r"\boxed{5}\% of it",
            r"a \boxed{5}!",
        ),
        *(r"\begin{align*}x &= \boxed{5}\end{align*}", r"$10 - 5 = \boxed{5}$", r"**Answer:** \boxed{5}"),
        *(
            "$x = \\boxed{3}$.\nThen $y = \\boxed{5}$",
            "$\\boxed{5}$\n\n**Final answer**\n\\boxed{5}",
            r"a \boxed{3} $\frac{1}{2}$ and $\boxed{5}$",
        ),
    ],
)
def test_a_box_is_the_answer_whatever_stands_beside_it(solution):
    assert reduced(solution) == ("5", "box")


@pytest.mark.parametrize(
    "solution",
    [
        *(
            r"so $x = \boxed{3}$ or $x = \boxed{4}$.",
            r"$\boxed{3}$ or $-\boxed{4}$",
            r"$x_1 = \boxed{3}, x_2 = \boxed{4}$",
        ),
        *(
            "(a) \\boxed{3}\n(b) \\boxed{4}",
            "(a) $\\boxed{3}$.\n(b) $\\boxed{4}$.",
            "1. \\boxed{3}\n2. \\boxed{4}",
        ),
        *("Part (a): $\\boxed{3}$\n\nPart (b): $\\boxed{4}$", "- $x = \\boxed{3}$\n- $y = \\boxed{4}$"),
        *(
            r"$\boxed{3} \text{ or } \boxed{4}$",
            r"\(\boxed{3}\) and \(\boxed{4}\)",
            "\\[\\boxed{3}\\]\n\\[\\boxed{4}\\]",
        ),
    ],
)
def test_of_several_boxed_answers_none_is_taken(solution):
    assert reduced(solution) == (solution, "")


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
    row = {
        **ROWS[0],
        "index": 7,
        "split": "dev",
        "image": "a.png",
        "prompts": "x",
        "trainer_state": "y",
        "seed": 9,
    }
    (found,) = read([row])
    assert (found["index"], found["split"]) == (0, "train")
    for name in ("index", "split", "image", "prompts", "trainer_state", "seed"):
        assert found[f"source_{name}"] == row[name]
    assert not {"image", "prompts", "trainer_state", "seed"} & found.keys()


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=["Windows", "old Mac"])
def test_lines_within_a_cell_end_as_a_model_ends_them(tmp_path, end):
    asked, said = f"Two{end}lines", f"a{end}b"
    spoken = [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]
    sources = [
        as_file(tmp_path, "a.csv", f'question,answer{end}"{asked}","{said}"{end}'),
        as_file(tmp_path, "a.json", json.dumps([{"question": asked, "answer": said}])),
        [{"messages": spoken}],
        [{"messages": f"Human: {asked}{end}{end}Assistant: {said}"}],
    ]
    for source in sources:
        (row,) = read(source, verifier="exact")
        assert (row["question"], row["answer"]) == ("Two\nlines", "a\nb")
        assert row["prompt"] == [{"role": "user", "content": "Two\nlines"}]
        assert VERIFIERS["exact"]("a\nb", row["answer"])
