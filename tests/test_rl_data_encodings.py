"""Text files in other encodings than UTF-8: the advice names one that reads them, or shows what that would make of them."""

import pytest
from rl.data_files import read_records
from rl.data_values import DataError
from test_rl_data_files import values, write


@pytest.mark.parametrize(
    ("encoding", "mark"),
    [
        ("cp1252", ""),
        ("utf-16", ""),
        *((wide, mark) for wide in ("utf-16-le", "utf-16-be") for mark in ("", "\ufeff")),
    ],
)
def test_the_advice_on_encodings_works_when_it_is_followed(tmp_path, encoding, mark):
    text = "question,answer\ncaf\u00e9,4\n"
    path = write(tmp_path / "a.csv", (mark + text).encode(encoding))
    with pytest.raises(DataError, match="line [12]: not UTF-8 text.*encoding='") as error:
        read_records(path)
    advised = str(error.value).split("encoding='")[1].split("'")[0]
    assert values(path, encoding=advised) == [{"question": "caf\u00e9", "answer": "4"}]
    assert values(path, encoding=encoding) == [{"question": "caf\u00e9", "answer": "4"}]


@pytest.mark.parametrize("before", ["", "x" * 100])
def test_the_advice_shows_what_cp1252_would_make_of_another_alphabet(tmp_path, before):
    path = write(
        tmp_path / "a.csv", f"question,answer\n{before}\u0421\u0442\u043e\u043b,4\nb,5\n".encode("cp1251")
    )
    with pytest.raises(
        DataError, match="It would read '(x{20})?\u00d1\u00f2\u00ee\u00eb,4': if that is not your text"
    ):
        read_records(path)


def test_an_encoding_that_is_not_the_files(tmp_path):
    path = write(tmp_path / "a.csv", "question,answer\n\u00fc,4\n".encode() + b"x,5\n")
    with pytest.raises(DataError, match="not ASCII text.*encoding='utf-8'"):
        read_records(path, encoding="ascii")
    neither = write(tmp_path / "b.csv", b"question,answer\n\x82\x81,4\n")  # of Japan
    for encoding in ("utf-8", "UTF8", "cp1252"):
        with pytest.raises(DataError, match="line 2: not .* Save the file as UTF-8") as error:
            read_records(neither, encoding=encoding)
        assert "encoding=" not in str(error.value)
