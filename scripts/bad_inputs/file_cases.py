"""Files that are not as they should be: data, rewards and verifiers, models, sources; and requests."""

import gzip
import io
import json
import os
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_inputs.cases import Case, Rows, Spoil

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
    "the same row throughout": "one may want to see a model learn one row by heart. Preflight warns",
    "each row twice": "the rows are seen twice as often. Preflight warns",
    "one index for all": "the number of a problem, which training does not read",
    "a line of 50 MB": "a column of one's own may be long, and no prompt is",
    "a byte order mark": "it is taken off",
    "a zero character in a question": "a character like others to a tokenizer of bytes",
}
# what is bad -> bad_file.py, which the recipe names as reward bad_file.mine
REWARDS = {
    "raises": "def mine(completions, **kwargs):\n    raise KeyError('gold')",
    "returns None": "def mine(completions, **kwargs):\n    pass",
    "returns None for each": "def mine(completions, **kwargs):\n    return [None] * len(completions)",
    "returns NaN": "def mine(completions, **kwargs):\n    return [float('nan')] * len(completions)",
    "returns infinities": "def mine(completions, **kwargs):\n    return [float('inf')] * len(completions)",
    "returns numbers too large for a float": "def mine(completions, **kwargs):\n    return [10**400] * len(completions)",
    "returns numbers too large to compute with": "def mine(completions, **kwargs):\n    return [1e300 * n for n, _ in enumerate(completions)]",
    "returns texts": "def mine(completions, **kwargs):\n    return ['1'] * len(completions)",
    "returns one number": "def mine(completions, **kwargs):\n    return 1.0",
    "returns a list that is too short": "def mine(completions, **kwargs):\n    return [1.0]",
    "returns a list that is too long": "def mine(completions, **kwargs):\n    return [1.0] * (len(completions) + 1)",
    "returns lists": "def mine(completions, **kwargs):\n    return [[1.0]] * len(completions)",
    "returns complex numbers": "def mine(completions, **kwargs):\n    return [1j] * len(completions)",
    "returns a dict": "def mine(completions, **kwargs):\n    return dict.fromkeys(range(len(completions)), 1.0)",
    "is a generator": "def mine(completions, **kwargs):\n    yield from [1.0] * len(completions)",
    "is an async generator": "async def mine(completions, **kwargs):\n    yield 1.0",
    "returns a coroutine": "async def one(n):\n    return [1.0] * n\ndef mine(completions, **kwargs):\n    return one(len(completions))",
    "an async one that raises": "async def mine(completions, **kwargs):\n    raise ValueError('no')",
    "returns a matrix": "import torch\ndef mine(completions, **kwargs):\n    return torch.ones(len(completions), 2)",
    "takes nothing": "def mine():\n    return [1.0]",
    "takes no keywords": "def mine(completions):\n    return [1.0] * len(completions)",
    "asks for a column that is not there": "def mine(completions, solution, **kwargs):\n    return [1.0] * len(completions)",
    "takes answers by position alone": "def mine(completions, answer, /):\n    return [1.0] * len(completions)",
    "is a class": "class mine:\n    def __init__(self, completions, **kwargs): pass",
    "is a number": "mine = 5",
    "is not there": "def yours(completions, **kwargs):\n    return [1.0] * len(completions)",
    "a syntax error": "def mine(completions, **kwargs)\n    return 1",
    "an import that is not there": "import no_such_package_at_all\ndef mine(completions, **kwargs): return [1.0]",
    "an import that calls sys.exit": "import sys\nsys.exit(0)",
    "an import that calls os._exit": "import os\nos._exit(0)",
    "an import that raises": "raise RuntimeError('no')",
    "an import that prints a megabyte": "print('x' * 2**20)\nraise RuntimeError('y' * 2**20)",
    "calls sys.exit": "import sys\ndef mine(completions, **kwargs):\n    sys.exit(0)",
    "calls os._exit": "import os\ndef mine(completions, **kwargs):\n    os._exit(0)",
    "kills itself": "import os\ndef mine(completions, **kwargs):\n    os.kill(os.getpid(), 9)",
    "raises KeyboardInterrupt": "def mine(completions, **kwargs):\n    raise KeyboardInterrupt",
    "calls itself for ever": "def mine(completions, **kwargs):\n    return mine(completions, **kwargs)",
    "sleeps for ever": "import time\ndef mine(completions, **kwargs):\n    time.sleep(10**6)",
    "an import that never ends": "import time\ntime.sleep(10**6)",
    "an async one that never ends": "import asyncio\nasync def mine(completions, **kwargs):\n    await asyncio.sleep(10**6)",
    "leaves a process that never ends": (
        "import subprocess\nsubprocess.Popen(['sleep', '600'])\ndef mine(completions, **kwargs):\n    return [1.0]"
    ),
    "the same for all": "def mine(completions, **kwargs):\n    return [0.0] * len(completions)",
    "a file that is no UTF-8": b"# caf\xe9\ndef mine(completions, **kwargs):\n    return [1.0] * len(completions)\n",
    "a file with zero bytes": b"\0\0\0",
}  # fmt: skip
REWARDS_RIGHT = {
    "reward: the same for all": "whether it can tell good from bad, only completions show; the log of the job says that it did not",
    "verifier: never says yes": "a gold may be a rule and no answer. Preflight warns, and so does the job",
    "verifier: never says no": "likewise",
}
# likewise, of verifier: bad_file.mine
VERIFIERS = {
    "raises": "def mine(given, gold):\n    raise ValueError('no')",
    "returns a text": "def mine(given, gold):\n    return 'yes'",
    "returns None": "def mine(given, gold):\n    pass",
    "returns 0.5": "def mine(given, gold):\n    return 0.5",
    "takes one text": "def mine(given):\n    return True",
    "is async": "async def mine(given, gold):\n    return True",
    "never says yes": "def mine(given, gold):\n    return False",
    "never says no": "def mine(given, gold):\n    return True",
    "is a number": "mine = 5",
    "sleeps for ever": "import time\ndef mine(given, gold):\n    time.sleep(10**6)",
    "calls os._exit": "import os\ndef mine(given, gold):\n    os._exit(0)",
}


def edit(name: str, **changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def write(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content) and None  # ty: ignore[invalid-return-type]


def remove(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names] and None  # ty: ignore[invalid-return-type]


def cut(name: str, size: int) -> Spoil:
    return lambda folder: os.truncate(folder / name, size)


def replaced(name: str, put: Spoil) -> Spoil:
    """The file is taken away and something else put in its place."""

    def spoil(folder: Path) -> None:
        (folder / name).unlink()
        put(folder / name)

    return spoil


def circle(path: Path) -> None:
    path.symlink_to(path.name)


def sparse(path: Path) -> None:
    """10 GB that take no room on the disk."""
    path.touch()
    os.truncate(path, 10 * 2**30)


def weights(change: Callable[[dict[str, Any]], dict[str, Any]]) -> Spoil:
    def spoil(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        path = folder / "model.safetensors"
        save_file(change(load_file(path)), path, metadata={"format": "pt"})

    return spoil


MODELS: dict[str, Spoil] = {
    "no config.json": remove("config.json"),
    "an empty folder": lambda folder: shutil.rmtree(folder) or folder.mkdir(),
    "no weights": remove("model.safetensors"),
    "weights cut off": cut("model.safetensors", 1_000_000),
    "empty weights": cut("model.safetensors", 0),
    "weights whose header is damaged": write("model.safetensors", b"\xff" * 100_000),
    "NaN among the weights": weights(lambda found: {key: value * float("nan") for key, value in found.items()}),
    "a layer missing": weights(lambda found: {key: value for key, value in found.items() if ".0." not in key}),
    "a tensor missing": weights(lambda found: dict(list(found.items())[1:])),
    "tensors of another shape": edit("config.json", hidden_size=64),
    "more layers than there are": edit("config.json", num_hidden_layers=99),
    "heads that do not divide": edit("config.json", num_attention_heads=7),
    "zero heads": edit("config.json", num_attention_heads=0),
    "another architecture": edit("config.json", model_type="bert", architectures=["BertForMaskedLM"]),
    "an unknown architecture": edit("config.json", model_type="nonsense", architectures=["Nonsense"]),
    "config.json is a list": write("config.json", b"[]"),
    "config.json is no JSON": write("config.json", b"{"),
    "config.json is empty": write("config.json", b""),
    "no tokenizer": remove("tokenizer.json", "tokenizer_config.json"),
    "tokenizer.json is no JSON": write("tokenizer.json", b"{"),
    "tokenizer of another model": edit("config.json", vocab_size=50),
    "no chat template": remove("chat_template.jinja"),
    "a template that is no Jinja": write("chat_template.jinja", b"{% for"),
    "a template that never ends": write(
        "chat_template.jinja", b"{% for a in range(99999) %}{% for b in range(99999) %}x{% endfor %}{% endfor %}"
    ),
    "a template without the question": write("chat_template.jinja", b"hello"),
    "a template that raises": write("chat_template.jinja", b"{{ raise_exception('no') }}"),
    "no end token": edit("tokenizer_config.json", eos_token=None),
    "a link in a loop for weights": replaced("model.safetensors", circle),
    "a pipe for config.json": replaced("config.json", lambda path: os.mkfifo(path)),
    "a pipe for weights": replaced("model.safetensors", lambda path: os.mkfifo(path)),
    "a folder for config.json": replaced("config.json", lambda path: path.mkdir()),
    "10 GB of nothing for weights": replaced("model.safetensors", sparse),
    "10 GB of nothing for tokenizer.json": replaced("tokenizer.json", sparse),
    "adapters of themselves": write("adapter_config.json", b'{"base_model_name_or_path": "channel:model"}'),
    "adapters of nothing": write("adapter_config.json", b"{}"),
    "a model.tar.gz that is none": write("model.tar.gz", b"hello"),
}  # fmt: skip


def put(name: str, content: str | bytes) -> Spoil:
    data = content.encode() if isinstance(content, str) else content
    return replaced(name, lambda path: path.write_bytes(data) and None)  # ty: ignore[invalid-argument-type]


SOURCES: dict[str, Spoil] = {
    "requirements that include themselves": put("requirements.txt", "-r requirements.txt\n"),
    "requirements in a circle": lambda folder: (
        put("requirements.txt", "-r more.txt\n")(folder),
        (folder / "more.txt").write_text("-r requirements.txt\n"),
    )[0],
    "requirements that are binary": put("requirements.txt", b"\xff\xfe\0"),
    "requirements that name torch": put("requirements.txt", "torch==2.0\n"),
    "a pipe for requirements": replaced("requirements.txt", lambda path: os.mkfifo(path)),
    "a folder for requirements": replaced("requirements.txt", lambda path: path.mkdir()),
    "a pipe within requirements": lambda folder: (
        put("requirements.txt", "-r pipe\n")(folder),
        os.mkfifo(folder / "pipe"),
    )[0],
    "a link in a loop for requirements": replaced("requirements.txt", circle),
    "arguments.py that never ends": put("arguments.py", "while True: pass\n"),
    "arguments.py that calls sys.exit": put("arguments.py", "import sys; sys.exit(0)\n"),
    "arguments.py that calls os._exit": put("arguments.py", "import os; os._exit(0)\n"),
    "arguments.py that prints a megabyte": put("arguments.py", "print('x' * 2**20); raise ValueError('y' * 2**20)\n"),
    "arguments.py with SCRIPTS = 5": put("arguments.py", "SCRIPTS = 5\n"),
    "arguments.py with zero bytes": put("arguments.py", b"\0\0"),
    "a pipe for arguments.py": replaced("arguments.py", lambda path: os.mkfifo(path)),
    "a pipe for the recipe": replaced("recipes/smoke.yaml", lambda path: os.mkfifo(path)),
    "a device for the recipe": replaced("recipes/smoke.yaml", lambda path: path.symlink_to("/dev/zero")),
    "a folder for the recipe": replaced("recipes/smoke.yaml", lambda path: path.mkdir()),
    "a link in a loop for the recipe": replaced("recipes/smoke.yaml", circle),
    "10 GB of nothing for the recipe": replaced("recipes/smoke.yaml", sparse),
    "a pipe for train.py": replaced("train.py", lambda path: os.mkfifo(path)),
    "train.py with a syntax error": put("train.py", "def main(\n"),
    "train.py with zero bytes": put("train.py", b"\0"),
    "a pipe for the accelerate file": replaced("accelerate/cpu.yaml", lambda path: os.mkfifo(path)),
    "an accelerate file that is a list": put("accelerate/cpu.yaml", "- 1\n"),
}  # fmt: skip
# Of the channel train: what lies there in the place of a file.
PLACES: dict[str, Spoil] = {
    "a pipe": lambda path: os.mkfifo(path),
    "a folder": lambda path: path.mkdir(),
    "a device": lambda path: path.symlink_to("/dev/zero"),
    "a link in a loop": circle,
    "a link to nothing": lambda path: path.symlink_to("nothing"),
    "10 GB of nothing": sparse,
}
REQUESTS: dict[str, dict[str, Any]] = {
    "no instances": {"instance_count": 0},
    "-1 instances": {"instance_count": -1},
    "1.5 instances": {"instance_count": 1.5},
    "10,000 instances": {"instance_count": 10_000},
    "an unknown instance type": {"instance_type": "ml.nonsense"},
    "an instance type that is a number": {"instance_type": 5},
    "a volume of 0 GB": {"volume_size_in_gb": 0},
    "a volume of -1 GB": {"volume_size_in_gb": -1},
    "a volume of a million GB": {"volume_size_in_gb": 1_000_000},
    "0 s at most": {"max_runtime_in_seconds": 0},
    "-5 s at most": {"max_runtime_in_seconds": -5},
    "a year at most": {"max_runtime_in_seconds": 365 * 86400},
    "spot that waits for less than it runs": {"max_wait_time_in_seconds": 5, "enable_managed_spot_training": True},
    "spot with save_steps 0": {"enable_managed_spot_training": True, "save_steps": 0},
    "spot without a waiting time": {"enable_managed_spot_training": True},
    "a warm pool of -1 s": {"keep_alive_period_in_seconds": -1},
    "a warm pool of a week": {"keep_alive_period_in_seconds": 7 * 86400},
    "a name of 200 letters": {"base_job_name": "a" * 200},
    "a name with a space": {"base_job_name": "my job"},
    "an empty name": {"base_job_name": ""},
    "no processes": {"process_count_per_node": 0},
    "-1 processes": {"process_count_per_node": -1},
    "1,000 processes": {"process_count_per_node": 1000},
    "an entry script that is not there": {"entry_script": "trian.py"},
    "an entry script outside the source": {"entry_script": "../../../etc/passwd"},
    "requirements that are not there": {"requirements": "no.txt"},
    "a channel named as the SDK's": {"channel": "code"},
    "a channel with a space": {"channel": "my data"},
    "a channel with a zero byte": {"channel": "a\0b"},
    "a channel of 100 letters": {"channel": "a" * 100},
    "data at a path with a zero byte": {"data": "/tmp/a\0b"},
    "data at a path with a surrogate": {"data": "/tmp/\ud800"},
    "data at an S3 address without a bucket": {"data": "s3://"},
    "data in a bucket that is not there": {"data": "s3://no-such-bucket-at-all/train"},
    "data at a path of 5,000 letters": {"data": "/tmp/" + "a" * 5000},
    "data at no place": {"data": "/no/such/folder"},
    "data at the web": {"data": "https://example.com/train.jsonl"},
    "an environment variable with a secret": {"environment": {"HF_TOKEN": "hf_" + "a" * 34}},
    "a hyperparameter with a quote": {"hyperparameters": {"run_name": "it's"}},
    "a hyperparameter of 3,000 letters": {"hyperparameters": {"run_name": "a" * 3000}},
    "a hyperparameter with a zero byte": {"hyperparameters": {"run_name": "a\0b"}},
    "a hyperparameter with a surrogate": {"hyperparameters": {"run_name": "\ud800"}},
    "a hyperparameter with a dash in its name": {"hyperparameters": {"run-name": "a"}},
    "a hyperparameter that is an object": {"hyperparameters": {"run_name": object()}},
    "a recipe outside the source": {"hyperparameters": {"config": "../../../../etc/passwd"}},
    "a recipe with a zero byte in its path": {"hyperparameters": {"config": "recipes/\0.yaml"}},
    "a recipe that is a number": {"hyperparameters": {"config": 5}},
}  # fmt: skip


def file_cases() -> Iterator[Case]:
    """A case for each of the above."""
    for what, file in DATA.items():
        yield Case("02", "data", what, train=file, right=RIGHT.get(what, ""))
    yield Case("02", "data", "test has the rows of train", test=("test.jsonl", jsonl))
    yield Case("02", "data", "an empty test", test=("test.jsonl", lambda rows: b""))
    for what, changes in {
        "pairs without a chosen answer": {"chosen": ...},
        "pairs of two equal answers": {"rejected": [{"role": "assistant", "content": "1"}], "chosen": [{"role": "assistant", "content": "1"}]},
        "pairs with empty answers": {"chosen": [{"role": "assistant", "content": ""}]},
        "pairs with texts as answers": {"chosen": "1", "rejected": "2"},
        "pairs that end with the user": {"chosen": [{"role": "user", "content": "1"}]},
    }.items():  # fmt: skip
        yield Case("01", "data", what, train=("train.jsonl", each(**changes)))
    yield Case("01", "data", "one pair", train=("train.jsonl", lambda rows: jsonl(rows[:1])))
    for what, file in DATA.items():
        if what in ("an empty file", "one row", "empty answers", "prompts longer than the model's context"):
            yield Case("05", "data", what, train=file)
    for what, spoil in PLACES.items():
        yield Case("02", "data", f"{what} for train.jsonl", request={"place": spoil})
    for kind, sources in (("reward", REWARDS), ("verifier", VERIFIERS)):
        for what, text in sources.items():
            content = text if isinstance(text, bytes) else textwrap.dedent(text) + "\n"
            value = (
                {"rewards": ["bad_file.mine"], "reward_weights": [1.0]}
                if kind == "reward"
                else {"verifier": "bad_file.mine"}
            )
            right = REWARDS_RIGHT.get(f"{kind}: {what}", "")
            yield Case(
                "02", "reward", f"{kind}: {what}", settings=value, files={"bad_file.py": content}, right=right
            )
            if what in ("raises", "returns NaN", "returns None", "sleeps for ever", "returns a text"):
                keys = {f"job.{key}": found for key, found in value.items()}
                yield Case("05", "reward", f"{kind}: {what}", settings=keys, files={"bad_file.py": content})
    for what, spoil in MODELS.items():
        yield Case("02", "model", what, model=spoil)
    for what, spoil in SOURCES.items():
        yield Case("02", "source", what, source=spoil)
    for what, changes in REQUESTS.items():
        yield Case("02", "request", what, request=changes)
