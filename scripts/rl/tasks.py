"""The workshop's problems: questions with answers that a program can check.

    splits = make_splits("chain_sum", {"train": 2000, "test": 300})
    files = write_splits(splits, Path("build/data"))        # build/data/train/train.jsonl, ...

reasoning-gym makes item i from Random(seed + i): seeds 42 and 43 share all items but one. So there is ONE seed, splits
are ranges of its indices, and a question that came before is dropped wherever it comes again.
"""

import hashlib
import io
import itertools
import json
import os
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict, cast

from rl.data_files import decoded, file_content, is_folder, jsonl_values, kind_of, parquet_rows, regular_file
from rl.data_golds import reduced
from rl.data_values import DataError, check_columns, json_value, same_columns
from rl.environments import till_problem
from rl.spelling import unknown_name


class Message(TypedDict):
    """One turn of a conversation."""

    role: str  # system, user, assistant or tool
    content: str


class Row(TypedDict):
    """One problem. It may have more columns, which reach rewards of one's own as keyword arguments."""

    prompt: list[Message]
    question: str
    answer: str
    task: str
    split: str
    index: int  # the problem's number in its task


FORMAT_INSTRUCTIONS = (
    "Solve the problem step by step. Write your reasoning inside <think> and </think>, then only the final number "
    "inside <answer> and </answer>, and nothing after it."
)
FIELDS = {"prompt": list, "question": str, "answer": str, "task": str, "split": str, "index": int}
# Keyword arguments that TRL calls a reward with besides the columns (GRPOTrainer._calculate_rewards)
TAKEN = (
    "prompts",
    "completions",
    "completion_ids",
    "trainer_state",
    "log_extra",
    "log_metric",
    "environments",
)
# And what the training scripts bind (rl.rewards.get_rewards). Pairs, for which there are no rewards, may have them.
BOUND = ("verifier", "opening", "max_completion_length", "seed")
_CHECKED = {
    *FIELDS,
    "chosen",
    "rejected",
}  # columns whose types are checked by name, the last two by read_pairs


def _chain_sum(seed: int) -> Iterator[tuple[str, str]]:
    """Sums and differences of 4 to 6 one-digit numbers."""
    return _reasoning_gym("chain_sum", seed, min_terms=4, max_terms=6, min_digits=1, max_digits=1)


def _long_sum(seed: int) -> Iterator[tuple[str, str]]:
    """Sums and differences of 3 or 4 three-digit numbers: too much for a tiny head, nothing for a calculator."""
    return _reasoning_gym("chain_sum", seed, min_terms=3, max_terms=4, min_digits=3, max_digits=3)


def _till(seed: int) -> Iterator[tuple[str, str]]:
    """What two to four items cost, which only a till knows (rl.environments); those with an odd number."""
    for index in itertools.count():
        yield till_problem(random.Random(f"till {seed} {index}"), range(101, 1000, 2))


def _gsm_symbolic(seed: int) -> Iterator[tuple[str, str]]:
    """Grade-school word problems from templates; the offline stand-in for GSM8K."""
    return _reasoning_gym("gsm_symbolic", seed)


def _reasoning_gym(family: str, seed: int, **config: int) -> Iterator[tuple[str, str]]:
    import reasoning_gym

    # Every family draws item i from the seed and i alone, so the size sets only where the items end.
    for item in reasoning_gym.create_dataset(family, seed=seed, size=1_000_000, **config):
        yield item["question"], item["answer"]


def _gsm8k(seed: int) -> Iterator[tuple[str, str]]:
    """openai/gsm8k's 7,473 training problems, shuffled; needs a network."""
    try:
        from datasets import load_dataset

        problems = load_dataset("openai/gsm8k", "main", split="train").shuffle(seed=seed)
    except ImportError as error:
        raise DataError("The task gsm8k needs the package 'datasets': pip install datasets.") from error
    except (OSError, ValueError) as error:
        raise DataError(
            f"openai/gsm8k could not be loaded from the Hugging Face Hub ({error}). It needs a network; "
            "the task gsm_symbolic has problems of the same kind and needs none."
        ) from error
    for problem in problems:
        yield problem["question"], reduced(problem["answer"]).answer


TASKS = {
    "chain_sum": _chain_sum,
    "long_sum": _long_sum,
    "till": _till,
    "gsm_symbolic": _gsm_symbolic,
    "gsm8k": _gsm8k,
}


def make_splits(
    task: str, sizes: dict[str, int], *, seed: int = 42, system_prompt: str | None = None
) -> dict[str, list[Row]]:
    """Splits of exactly the given sizes, in the given order, with no question in two of them or twice in one.

    Args:
        task: a name in TASKS.
        sizes: rows in each split, such as {"train": 2000, "test": 300}. A split's rows do not change when a later
            split is added or made larger.
        system_prompt: put before each question, such as FORMAT_INSTRUCTIONS for a model that was not trained on it.

    Raises:
        DataError: unknown task, no splits, a size below 1, or a task with too few different questions.
    """
    if task not in TASKS:
        raise DataError(unknown_name("task", task, TASKS))
    if not sizes or any(not isinstance(size, int) or size < 1 for size in sizes.values()):
        raise DataError(
            f"Give each split a size of at least 1, such as {{'train': 2000, 'test': 300}}; got {sizes}."
        )
    problems = enumerate(TASKS[task](seed))
    system = [Message(role="system", content=system_prompt)] if system_prompt else []
    seen: set[str] = set()
    splits: dict[str, list[Row]] = {}
    for split, size in sizes.items():
        rows = splits[split] = []
        while len(rows) < size:
            found = next(problems, None)
            if found is None:
                raise DataError(
                    f"{task} has only {len(seen)} different questions; {sum(sizes.values())} were asked for."
                )
            index, (question, answer) = found
            if question in seen:
                continue
            seen.add(question)
            prompt = [*system, Message(role="user", content=question)]
            rows.append(
                Row(prompt=prompt, question=question, answer=answer, task=task, split=split, index=index)
            )
    return splits


def write_splits(splits: Mapping[str, Sequence[Row]], folder: Path | str) -> dict[str, Path]:
    """Writes each split as JSONL and parquet into a folder of its own, which can be uploaded as a channel.

    The rows may be problems or pairs, and have columns of their own. Parquet is written only where it can hold the rows
    exactly as they are (no column of two types, no empty objects): the JSONL is what counts.

    Returns:
        The folder of each split: {"train": folder/train, ...}, holding train.jsonl and train.parquet.

    Raises:
        DataError: a split is there already with other rows, as JSONL or as parquet alone; nothing is overwritten then, in
            no split. Or a row holds a value that JSON cannot (see rl.data_values.json_value).
    """
    folders = {split: Path(folder) / split for split in splits}
    contents = {split: _jsonl(rows) for split, rows in splits.items()}
    for split, content in contents.items():
        jsonl, parquet = (folders[split] / f"{split}.{kind}" for kind in ("jsonl", "parquet"))
        there = [path for path in (jsonl, parquet) if path.exists()]
        # Parquet beside the same JSONL is of these rows too, whatever its bytes; parquet alone may be the source.
        if there and not (jsonl.exists() and jsonl.read_bytes() == content):
            also = f", and {there[1].name} lies beside it" if there[1:] else ""
            raise DataError(
                f"{there[0]} exists and holds other rows{also}. Move what is there away, or write to another folder."
            )
    for split, content in contents.items():
        write_whole(folders[split] / f"{split}.jsonl", content)  # first: it says whose the parquet is
        if (parquet := _parquet(content)) is not None:
            write_whole(folders[split] / f"{split}.parquet", parquet)
    return folders


def _parquet(jsonl: bytes) -> bytes | None:
    """The same rows as parquet; None where parquet would change them or cannot hold them."""
    import pyarrow
    import pyarrow.parquet

    rows = same_columns(json.loads(line) for line in jsonl.decode().split("\n")[:-1])
    file = io.BytesIO()
    try:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), file)
    except pyarrow.ArrowException:
        return None
    there = pyarrow.parquet.ParquetFile(file).read().to_pylist()
    return file.getvalue() if json.dumps(there) == json.dumps(rows) else None


def write_whole(path: Path, content: bytes) -> None:
    """Writes a file so that a reader never meets half of it, not even when two notebooks write the same at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(path)


def _jsonl(rows: Sequence[Row]) -> bytes:
    plain = (json_value(row, f"row {number}") for number, row in enumerate(rows, start=1))
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in plain).encode()


def read_rows(path: Path | str) -> list[Row]:
    """Rows of a JSONL or parquet file, or of the one such file in a channel's folder (of two, the JSONL).

    All rows get the same columns (None where one is missing), with values as JSON has them.

    Raises:
        DataError: nothing to read, another kind of file, an empty one, a line that is no JSON or not UTF-8, a field
            that is missing or of the wrong type, a column of two types; names file, line (in parquet: row) and field,
            both counted from 1.
    """
    path = data_file(Path(path))
    content = file_content(path)
    if path.suffix == ".parquet":
        numbered, unit = parquet_rows(path, content), "row"
    else:
        numbered, unit = jsonl_values(path, decoded(path, content)), "line"
    rows = []
    for number, value in numbered:
        where = f"{path}, {unit} {number}"
        row = json_value(value, where)
        _check_row(row, where)
        rows.append((where, row))
    if not rows:
        raise DataError(f"{path} is empty. Write it again with rl.tasks.write_splits.")
    own = [(where, {name: row[name] for name in row if name not in _CHECKED}) for where, row in rows]
    check_columns(own)
    return cast(list[Row], same_columns(row for _, row in rows))


def data_file(path: Path) -> Path:
    """The data file itself, or the one in a channel's folder (of two, the JSONL).

    Raises:
        DataError: there is none, several, or one of another kind.
    """
    if is_folder(path):
        for suffix in (".jsonl", ".parquet"):
            files = sorted(path.glob(f"*{suffix}"))
            if len(files) > 1:
                raise DataError(
                    f"{path} holds several {suffix} files: {', '.join(file.name for file in files)}. {_way_forward(path)}"
                )
            if files:
                return regular_file(files[0])
        others = [file for file in sorted(path.glob("*")) if kind_of(file)]
        found = f" There is {others[0].name}. {_way_forward(others[0])}" if others else ""
        raise DataError(f"{path} holds no .jsonl or .parquet file.{found}")
    regular_file(path)
    if path.suffix not in (".jsonl", ".parquet"):
        raise DataError(f"{path} is neither .jsonl nor .parquet. {_way_forward(path)}")
    return path


def _way_forward(path: Path) -> str:
    return (
        f"A job reads one file of rows: splits, report = rl.own_data.rows_from('{path}') (of pairs: pairs_from) makes them, "
        "and rl.tasks.write_splits writes them."
    )


def _check_row(row: Any, where: str) -> None:
    if not isinstance(row, dict):
        raise DataError(f"{where}: expected an object with the fields {', '.join(FIELDS)}.")
    for field, kind in FIELDS.items():
        wrong = ""
        if field not in row:
            wrong = f"is missing; there are {', '.join(row) or 'none'}"
        elif not isinstance(row[field], kind) or isinstance(row[field], bool):
            wrong = f"must be {kind.__name__}, not {type(row[field]).__name__}"
        if wrong:
            maker = "pairs_from" if "chosen" in row else "rows_from"
            raise DataError(
                f"{where}: the field '{field}' {wrong}. rl.own_data.{maker} makes such rows of data in other forms."
            )
    for name in (*TAKEN, *(() if "chosen" in row else BOUND)):
        if name in row:
            raise DataError(
                f"{where}: a column may not be named '{name}', which the training gives to rewards itself. Rename it."
            )
    for field in ("question", "answer"):
        if not row[field].strip():
            raise DataError(f"{where}: the field '{field}' is empty.")
    if not row["prompt"] or not all(map(_is_turn, row["prompt"])):
        raise DataError(
            f"{where}: the field 'prompt' must be a list of {{'role': ..., 'content': ...}} with text."
        )
    if not any(message["content"].strip() for message in row["prompt"]):
        raise DataError(f"{where}: the field 'prompt' asks nothing: no message in it has a text.")


def _is_turn(message: Any) -> bool:
    """Whether it has a role and a text, which may be empty: a turn that calls a tool has none."""
    return isinstance(message, dict) and all(isinstance(message.get(key), str) for key in ("role", "content"))


def fingerprint(rows: Sequence[Row]) -> str:
    """SHA-256 of the rows' content: the same for the same data, whichever file format it came from.

    Raises:
        DataError: a row holds a value that no file of ours can.
    """
    digest = hashlib.sha256()
    for number, row in enumerate(rows, start=1):
        digest.update(json.dumps(json_value(row, f"row {number}"), sort_keys=True).encode() + b"\n")
    return digest.hexdigest()
