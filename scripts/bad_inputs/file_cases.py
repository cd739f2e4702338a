"""Models, sources and requests that are not as they should be; and the cases of all files."""

import json
import os
import shutil
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bad_inputs.cases import Case, Spoil
from bad_inputs.code_cases import REWARDS, REWARDS_RIGHT, VERIFIERS
from bad_inputs.data_cases import DATA, RIGHT, each, jsonl


def edit(name: str, **changes: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        path = folder / name
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return spoil


def write(name: str, content: bytes) -> Spoil:
    return lambda folder: (folder / name).write_bytes(content) and None  # ty: ignore[invalid-explicit-return]


def remove(*names: str) -> Spoil:
    return lambda folder: [(folder / name).unlink() for name in names] and None  # ty: ignore[invalid-explicit-return]


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
    "an accelerate file that is one word": put("accelerate/cpu.yaml", "hello\n"),
    "an accelerate file that is empty": put("accelerate/cpu.yaml", ""),
    "an accelerate file that is no YAML": put("accelerate/cpu.yaml", "use_cpu: [\n"),
    "an accelerate file in Latin-1": put("accelerate/cpu.yaml", b"distributed_type: MULTI_CPU # caf\xe9\n"),
    "an accelerate file with a misspelt key": put("accelerate/cpu.yaml", "distributed_type: MULTI_CPU\nuse_cqu: true\n"),
    "an accelerate file with NO as a word": put("accelerate/cpu.yaml", "distributed_type: NO\nuse_cpu: true\n"),
    "an accelerate file without a type": put("accelerate/cpu.yaml", "use_cpu: true\n"),
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
    yield Case("02", "data", "a test of one index", test=("test.jsonl", each(index=0)))
    for what, changes in {
        "pairs without a chosen answer": {"chosen": ...},
        "pairs of two equal answers": {"rejected": [{"role": "assistant", "content": "1"}], "chosen": [{"role": "assistant", "content": "1"}]},
        "pairs with empty answers": {"chosen": [{"role": "assistant", "content": ""}]},
        "pairs with texts as answers": {"chosen": "1", "rejected": "2"},
        "pairs that end with the user": {"chosen": [{"role": "user", "content": "1"}]},
    }.items():  # fmt: skip
        yield Case("01", "data", what, train=("train.jsonl", each(**changes)))
    yield Case(
        "01", "data", "one pair", train=("train.jsonl", lambda rows: jsonl(rows[:1])), right=RIGHT["one pair"]
    )
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
