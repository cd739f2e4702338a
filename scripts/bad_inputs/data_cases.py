"""Data that is not as it should be: the file that the channel train holds, made of its sound rows."""

import gzip
import io
import json
from collections.abc import Callable
from typing import Any

from bad_inputs.cases import Rows

Make = Callable[[Rows], bytes]


def jsonl(rows: Rows) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def each(**changes: Any) -> Make:
    """All rows with these columns changed; ... leaves a column out."""
    return lambda rows: jsonl(
        [{key: value for key, value in {**row, **changes}.items() if value is not ...} for row in rows]
    )


def parquet(rows: Rows) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    return file.getvalue()


def _csv(rows: Rows) -> bytes:
    return b"question,answer\n" + "".join(f"{row['question']},{row['answer']}\n" for row in rows).encode()


# what is bad -> file name, content. Of module 02, whose rows are problems.
DATA: dict[str, tuple[str, Make]] = {
    "an empty file": ("train.jsonl", lambda rows: b""),
    "white space alone": ("train.jsonl", lambda rows: b"\n \n\t\n"),
    "rows without columns": ("train.jsonl", lambda rows: b"{}\n" * 40),
    "other columns": ("train.jsonl", lambda rows: b'{"text": "hello"}\n' * 40),
    "prompts alone": (
        "train.jsonl",
        each(question=..., answer=..., task=..., split=..., index=...),
    ),
    "no answers": ("train.jsonl", each(answer=...)),
    "empty answers": ("train.jsonl", each(answer=" ")),
    "null answers": ("train.jsonl", each(answer=None)),
    "NaN answers": (
        "train.jsonl",
        lambda rows: jsonl([{**row, "answer": float("nan")} for row in rows]),
    ),
    "the text nan as answers": ("train.jsonl", each(answer="nan")),
    "numbers as answers": ("train.jsonl", each(answer=7)),
    "lists as answers": ("train.jsonl", each(answer=["7"])),
    "answers with units": ("train.jsonl", each(answer="7 apples")),
    "one answer to all": ("train.jsonl", each(answer="7")),
    "prompts that are texts": ("train.jsonl", each(prompt="What is 1 + 1?")),
    "empty prompts": ("train.jsonl", each(prompt=[])),
    "prompts without a text": ("train.jsonl", each(prompt=[{"role": "user", "content": ""}])),
    "an unknown role": ("train.jsonl", each(prompt=[{"role": "wizard", "content": "What is 1 + 1?"}])),
    "messages without a role": ("train.jsonl", each(prompt=[{"content": "What is 1 + 1?"}])),
    "a prompt that ends with the assistant": (
        "train.jsonl",
        each(prompt=[{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]),
    ),
    "the same row throughout": ("train.jsonl", lambda rows: jsonl(rows[:1] * 40)),
    "each row twice": ("train.jsonl", lambda rows: jsonl(rows + rows)),
    "one row": ("train.jsonl", lambda rows: jsonl(rows[:1])),
    "one index for all": ("train.jsonl", each(index=0)),
    "an index that is a text": ("train.jsonl", each(index="0")),
    "prompts of a megabyte": (
        "train.jsonl",
        lambda rows: jsonl(
            [{**row, "prompt": [{"role": "user", "content": f"{n} + 1 " * 120_000}]} for n, row in enumerate(rows[:8])]
        ),
    ),
    "prompts longer than the model's context": (
        "train.jsonl",
        each(prompt=[{"role": "user", "content": "1 + 1 + " * 400 + "1"}]),
    ),
    "one prompt longer than the model's context": (
        "train.jsonl",
        lambda rows: jsonl([*rows[:-1], {**rows[-1], "prompt": [{"role": "user", "content": "1 + 1 + " * 400 + "1"}]}]),
    ),
    "a line that is no JSON": ("train.jsonl", lambda rows: jsonl(rows[:20]) + b"{oops\n" + jsonl(rows[20:])),
    "cut off in the last line": ("train.jsonl", lambda rows: jsonl(rows)[:-30]),
    "a list over several lines": ("train.jsonl", lambda rows: json.dumps(rows, indent=1).encode()),
    "a key twice in a row": ("train.jsonl", lambda rows: b'{"answer": "1", "answer": "2"}\n' * 40),
    "a line of 50 MB": ("train.jsonl", lambda rows: jsonl([{**rows[0], "extra": "x" * 50_000_000}, *rows[1:]])),
    "20,000 brackets": ("train.jsonl", lambda rows: b"[" * 20_000 + b"\n"),
    "Latin-1": ("train.jsonl", lambda rows: jsonl([{**row, "extra": "caf\xe9"} for row in rows]).decode().encode("latin-1")),
    "UTF-16": ("train.jsonl", lambda rows: jsonl(rows).decode().encode("utf-16")),
    "a byte order mark": ("train.jsonl", lambda rows: b"\xef\xbb\xbf" + jsonl(rows)),
    "surrogates": ("train.jsonl", lambda rows: json.dumps({**rows[0], "question": "\ud800"}).encode() + b"\n" + jsonl(rows[1:])),
    "a zero character in a question": ("train.jsonl", each(question="1 + \0 1")),
    "numbers of 5,000 digits": ("train.jsonl", lambda rows: b'{"index": ' + b"9" * 5000 + b"}\n"),
    "columns of two types": (
        "train.jsonl",
        lambda rows: jsonl([{**row, "level": n if n % 2 else "hard"} for n, row in enumerate(rows)]),
    ),
    "a column named completions": ("train.jsonl", each(completions="x")),
    "a column named trainer_state": ("train.jsonl", each(trainer_state="x")),
    "a column named verifier": ("train.jsonl", each(verifier="x")),
    "columns of infinities": ("train.jsonl", lambda rows: jsonl([{**row, "level": float("inf")} for row in rows])),
    "a .txt": ("train.txt", jsonl),
    "a CSV": ("train.csv", _csv),
    "a CSV with ragged rows": ("train.csv", lambda rows: _csv(rows) + b"1,2,3,4\n"),
    "a JSONL named .json": ("train.json", jsonl),
    "a JSONL named .parquet": ("train.parquet", jsonl),
    "a parquet named .jsonl": ("train.jsonl", parquet),
    "a gzip named .jsonl": ("train.jsonl", lambda rows: gzip.compress(jsonl(rows))),
    "a parquet cut off": ("train.parquet", lambda rows: parquet(rows)[:-100]),
    "a parquet of zeros within": ("train.parquet", lambda rows: (found := parquet(rows))[:200] + bytes(200) + found[400:]),
    "a parquet without rows": ("train.parquet", lambda rows: parquet(rows)[:0] + _no_rows(rows)),
}  # fmt: skip


def _no_rows(rows: Rows) -> bytes:
    import pyarrow
    import pyarrow.parquet

    file = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows).slice(0, 0), file)
    return file.getvalue()


# Why a job that completes with such data is right to.
RIGHT = {
    "one answer to all": "nobody but the author can know that they are wrong; the rewards show it",
    "an unknown role": "which roles there are, the chat template decides, and that of the tiny model writes any",
    "a prompt that ends with the assistant": "the beginning of an answer, which the model goes on with",
    "one pair": "one may want to see a model learn one pair by heart. Preflight warns",
    "the same row throughout": "one may want to see a model learn one row by heart. Preflight warns",
    "each row twice": "the rows are seen twice as often. Preflight warns",
    "one index for all": "the number of a problem, which training does not read",
    "a line of 50 MB": "a column of one's own may be long, and no prompt is",
    "a byte order mark": "it is taken off",
    "a zero character in a question": "a character like others to a tokenizer of bytes",
}
